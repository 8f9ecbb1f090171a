"""Faithfulness: whether the pixels that an explanation ranks high carry the prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from epsilens.types import Scores


def road_gap(least_first: Tensor, most_first: Tensor) -> Scores:
    """ROAD (Rong et al. 2022, arXiv:2202.00449) as one number, `[N]` in [-1, 1].

    least_first, most_first: `[Q, N]`, 1 where the prediction is still the clean one after the least (most) relevant share q
    of the pixels was imputed, 0 where not, NaN where that is undefined. The score is the mean over q of the difference: 1
    when the least relevant pixels never matter and the most relevant always do, 0 for a ranking without information. The
    reference is the network's own clean prediction, so that the score means the same on wrongly classified images.
    """
    return (least_first - most_first).mean(dim=0)


def _area(fractions: Tensor, probabilities: Tensor, clean: Tensor) -> Scores:
    """Mean height of the path p_q / p_0 from q = 0, where it is 1, to the largest fraction, by trapezoids, `[N]`."""
    q, order = fractions.to(clean).sort()
    path = probabilities[order.to(clean.device)] / clean
    start = torch.zeros_like(q[:1]), torch.ones_like(path[:1])
    return torch.trapezoid(torch.cat([start[1], path]), torch.cat([start[0], q]), dim=0) / q[-1]


def deletion_auc(fractions: Tensor, probabilities: Tensor, clean: Tensor) -> Scores:
    """Mean probability of the explained class while the most relevant pixels go, in units of the clean one, `[N]` >= 0
    (Petsiuk et al. 2018, arXiv:1806.07421, with imputation instead of grey).

    fractions: `[Q]`, shares of the pixels that are removed; probabilities: `[Q, N]`; clean: `[N]`, both by the softmax of
    the logits as they are (temperature 1). 0 when the first pixel removed takes all, 1 when none takes anything.
    """
    return _area(fractions, probabilities, clean)


def insertion_auc(fractions: Tensor, probabilities: Tensor, clean: Tensor) -> Scores:
    """Mean probability of the explained class while the most relevant pixels come, in units of the clean one, `[N]` >= 0
    (Petsiuk et al. 2018, arXiv:1806.07421, with imputation instead of blur).

    Arguments as of deletion_auc, but of the path on which the least relevant pixels are removed: walked backwards, the most
    relevant are inserted first. 1 when the least relevant pixels never matter.
    """
    return _area(fractions, probabilities, clean)


def infidelity(products: Tensor, changes: Tensor) -> Scores:
    """1 - E[zD]^2 / (E[z^2] E[D^2]), `[N]` in [0, 1] (after Yeh et al. 2019, arXiv:1901.09392).

    products: z = <I, g>, `[K, N]`, what the map says of the perturbation I; changes: D = h(x) - h(x - I), `[K, N]`, what the
    network says. It is the infidelity with the best factor on the map, E[(cz - D)^2], in units of E[D^2]: free of the scale
    of the map and of the logits. 0 for the gradient of a linear network, about 1 - 1/K for a map without information. NaN
    for an all-zero map and where the logit never changes.
    """
    z, d = (values / values.abs().amax(dim=0) for values in (products.double(), changes.double()))
    explained = (z * d).mean(dim=0).square() / (z.square().mean(dim=0) * d.square().mean(dim=0))
    return (1 - explained).clamp(min=0)  # rounding; by Cauchy and Schwarz it is not negative
