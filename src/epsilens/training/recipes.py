"""Training objectives: each makes adversarial examples of a batch and returns the loss that the weights descend.

A new recipe is one function with the signature of `pgd_training` (its settings keyword-only) and one entry in `RECIPES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from epsilens.attacks import ThreatModel, pgd
from epsilens.types import Images, Labels, Logits, Model

Steps = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Criterion = Callable[[Logits, Labels], Tensor]


@dataclass(frozen=True)
class Batch:
    """One step's images, labels, and a source of noise: each call gives a new uniform draw in [0, 1), shaped as images."""

    images: Images
    labels: Labels
    noise: Callable[[], Tensor]


def standard(network: Model, attacked: Model, batch: Batch, threat: ThreatModel, criterion: Criterion) -> Tensor:
    """The loss on the images themselves: every recipe at epsilon 0."""
    return criterion(network(batch.images), batch.labels)


def pgd_training(
    network: Model,
    attacked: Model,
    batch: Batch,
    threat: ThreatModel,
    criterion: Criterion,
    *,
    steps: Steps,
    step_factor: Positive,
    random_start: bool,
) -> Tensor:
    """The loss on PGD examples (Madry et al. 2018, arXiv:1706.06083); one step from a random start is "fast" adversarial
    training (Wong et al. 2020, arXiv:2001.03994).

    network: in training mode; attacked: the same function in eval mode, without parameters to be differentiated.
    step_factor: step size = step_factor * epsilon / steps.
    """
    start = threat.random_start(batch.images, batch.noise()) if random_start else batch.images
    size = step_factor * threat.epsilon / steps
    adversarial = pgd(attacked, batch.images, batch.labels, threat, start, steps=steps, step_size=size)
    return criterion(network(adversarial), batch.labels)


def n_fgsm(
    network: Model,
    attacked: Model,
    batch: Batch,
    threat: ThreatModel,
    criterion: Criterion,
    *,
    noise_factor: Positive,
    step_factor: Positive,
) -> Tensor:
    """The loss on noisy single-step examples (de Jorge et al. 2022, arXiv:2202.01181): one step of size step_factor *
    epsilon from noise of noise_factor * epsilon (1 and 2 there), and no projection onto the threat model afterwards, on
    purpose: training examples may lie outside it, which keeps catastrophic overfitting away.
    """
    start = ThreatModel(threat.norm, noise_factor * threat.epsilon).random_start(batch.images, batch.noise())
    reach = ThreatModel(threat.norm, (noise_factor + step_factor) * threat.epsilon)  # what noise and step add up to
    size = step_factor * threat.epsilon
    adversarial = pgd(attacked, batch.images, batch.labels, reach, start, steps=1, step_size=size)
    return criterion(network(adversarial), batch.labels)


def trades(
    network: Model,
    attacked: Model,
    batch: Batch,
    threat: ThreatModel,
    criterion: Criterion,
    *,
    steps: Steps,
    step_factor: Positive,
    beta: Positive,
) -> Tensor:
    """The loss on the images, and beta times the divergence KL(clean || adversarial) of the predictions, whose maximum the
    examples seek (Zhang et al. 2019, arXiv:1901.08573). They start at the images plus normal noise of deviation .001.
    """
    with torch.no_grad():
        clean = attacked(batch.images).softmax(dim=1)
    noise = torch.special.ndtri(batch.noise().clamp(1e-6, 1 - 1e-6))
    size = step_factor * threat.epsilon / steps
    adversarial = pgd(
        attacked,
        batch.images,
        batch.labels,
        threat,
        batch.images + 0.001 * noise,
        steps=steps,
        step_size=size,
        loss=lambda logits, _: F.kl_div(logits.log_softmax(dim=1), clean, reduction="sum"),
    )
    logits = network(batch.images)
    divergence = F.kl_div(network(adversarial).log_softmax(dim=1), logits.softmax(dim=1), reduction="batchmean")
    return criterion(logits, batch.labels) + beta * divergence


@dataclass(frozen=True)
class Recipe:
    """run: (network, attacked, batch, threat, criterion, *, ...) -> scalar."""

    run: Callable[..., Tensor]
    source: str


RECIPES: dict[str, Recipe] = {
    "pgd": Recipe(pgd_training, "Madry et al. 2018, arXiv:1706.06083; one step: Wong et al. 2020, arXiv:2001.03994"),
    "n_fgsm": Recipe(n_fgsm, "de Jorge et al. 2022, arXiv:2202.01181"),
    "trades": Recipe(trades, "Zhang et al. 2019, arXiv:1901.08573"),
}
