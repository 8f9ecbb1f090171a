"""Projected gradient descent (Madry et al. 2018, arXiv:1706.06083)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from epsilens.attacks.threat import ThreatModel
from epsilens.errors import NumericError
from epsilens.randomness import per_image
from epsilens.types import Images, Labels, Logits, Model, NoiseSeeds


def margins(logits: Logits, labels: Labels) -> Tensor:
    """Logit of the label minus the best other logit, [N]: negative where the network is wrong.

    Raises NumericError if a logit is NaN, for its arg-max would be a class like any other.
    """
    if logits.isnan().any():
        raise NumericError("the network's logits are NaN")
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own - others.amax(dim=1)


def cross_entropy(logits: Logits, labels: Labels) -> Tensor:
    """The sum over images: the gradient for an image does not depend on how many there are."""
    return F.cross_entropy(logits, labels, reduction="sum")


def pgd(
    predict: Model,
    images: Images,
    labels: Labels,
    threat: ThreatModel,
    start: Images,
    *,
    steps: int,
    step_size: float,
    loss: Callable[[Logits, Labels], Tensor] = cross_entropy,
    observe: Callable[[Images, Logits], None] | None = None,
) -> Images:
    """The last iterate of steepest ascent on the loss, from `start`, projected after every step.

    step_size: pixel units. loss: a scalar, the sum over images. `observe` sees every iterate before the last, with its
    logits. Gradients are taken with respect to the images only. At epsilon 0 the images themselves are returned.
    """
    if threat.epsilon == 0:
        return images
    step = threat.steps(images, step_size)
    current = start
    for _ in range(steps):
        current = current.detach().requires_grad_()
        with torch.enable_grad():
            logits = predict(current)
            (gradient,) = torch.autograd.grad(loss(logits, labels), current)
        current = current.detach()
        if observe is not None:
            observe(current, logits.detach())
        current = step.project(step.step(current, gradient))
    return current


def worst_case(
    predict: Model,
    images: Images,
    labels: Labels,
    threat: ThreatModel,
    seeds: NoiseSeeds,
    *,
    steps: int,
    step_size: float,
    restarts: int,
) -> tuple[Images, Tensor]:
    """For each image the iterate with the smallest margin, over all steps and restarts: (images, margins [N]).

    The first start is the image itself, so that no image is ever scored better than clean; further restarts are
    random, from per-image noise. Raises NumericError if a perturbation leaves the threat model or a logit is NaN.
    """
    best = images.clone()
    with torch.no_grad():
        lowest = margins(predict(images), labels)

    def keep_worse(current: Images, logits: Logits) -> None:
        nonlocal best, lowest
        margin = margins(logits, labels)
        worse = margin < lowest
        lowest = torch.where(worse, margin, lowest)
        best = torch.where(worse[:, None, None, None], current, best)

    for restart in range(restarts if threat.epsilon else 0):
        start = images
        if restart:
            noise = per_image(torch.rand, tuple(images.shape[1:]), seeds, "pgd", restart)
            start = threat.random_start(images, noise.to(images))
        last = pgd(predict, images, labels, threat, start, steps=steps, step_size=step_size, observe=keep_worse)
        with torch.no_grad():
            keep_worse(last, predict(last))
    threat.verify(images, best)
    return best, lowest
