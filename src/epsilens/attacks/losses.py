"""What attacks maximise, and how far an image is from being misclassified. Higher losses are worse for the network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from epsilens.errors import NumericError
from epsilens.types import Labels, Logits

TINY = 1e-12  # keeps the DLR losses finite where logits are equal


def margins(logits: Logits, labels: Labels) -> Tensor:
    """Logit of the label minus the best other logit, [N]: not positive where the network is wrong.

    Raises NumericError if it is NaN (a logit is, or two are infinite), for the arg-max would be a class like any other.
    """
    own = logits.gather(1, labels[:, None]).squeeze(1)
    found = own - logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    if found.isnan().any():
        raise NumericError("the network's logits are NaN, or infinite")
    return found


def cross_entropy(logits: Logits, labels: Labels) -> Tensor:
    """The sum over images: the gradient for an image does not depend on how many there are."""
    return F.cross_entropy(logits, labels, reduction="sum")


def cross_entropies(logits: Logits, labels: Labels, targets: Labels) -> Tensor:
    """Cross entropy of each image, [N]; `targets` are not looked at."""
    return F.cross_entropy(logits, labels, reduction="none")


def dlr(logits: Logits, labels: Labels, targets: Labels) -> Tensor:
    """Difference of logits ratio, [N] in [-1, 1]: invariant to scale and shift of the logits; needs three classes.

    Croce and Hein 2020, arXiv:2003.01690, equation 6; `targets` are not looked at.
    """
    ranked = logits.sort(dim=1, descending=True).values
    return -margins(logits, labels) / (ranked[:, 0] - ranked[:, 2] + TINY)


def dlr_targeted(logits: Logits, labels: Labels, targets: Labels) -> Tensor:
    """The same towards one other class, [N]; needs four classes. Croce and Hein 2020, arXiv:2003.01690, equation 7."""
    ranked = logits.sort(dim=1, descending=True).values
    own, other = (logits.gather(1, classes[:, None]).squeeze(1) for classes in (labels, targets))
    return (other - own) / (ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2 + TINY)
