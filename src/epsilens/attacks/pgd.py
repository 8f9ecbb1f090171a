"""Projected gradient descent (Madry et al. 2018, arXiv:1706.06083)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from epsilens.attacks.config import Count, Positive
from epsilens.attacks.losses import cross_entropy, margins
from epsilens.attacks.threat import ThreatModel
from epsilens.randomness import per_image
from epsilens.types import Images, Labels, Logits, Model, NoiseSeeds


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
    predict: Model, images: Images, labels: Labels, threat: ThreatModel, seeds: NoiseSeeds, *,
    steps: Count, step_factor: Positive, restarts: Count,
) -> tuple[Images, Tensor]:  # fmt: skip
    """For each image the iterate with the smallest margin, over all steps and restarts: (images, margins [N]).

    step_factor: the step size is step_factor * epsilon / steps. The first start is the image itself, so that no image is
    ever scored better than clean. Further restarts are random and for the images that are still correct, all restarts of
    all images side by side, as many at once as there are images.
    """
    size = step_factor * threat.epsilon / steps
    worst, lowest = _worst_iterate(predict, images, labels, threat, images, steps, size)
    rows = (lowest > 0).nonzero().flatten()
    extra = restarts - 1
    parts = rows.split(max(1, len(images) // extra)) if extra and len(rows) and threat.epsilon else ()
    for part in parts:
        starts = [_random_start(images[part], threat, seeds[part.cpu()], restart) for restart in range(1, restarts)]
        again = part.repeat(extra)
        found, margin = _worst_iterate(predict, images[again], labels[again], threat, torch.cat(starts), steps, size)
        best = margin.view(extra, -1).argmin(dim=0) * len(part) + torch.arange(len(part), device=part.device)
        best = best[margin[best] < lowest[part]]
        worst[again[best]], lowest[again[best]] = found[best], margin[best]
    return worst, lowest


def _random_start(images: Images, threat: ThreatModel, seeds: NoiseSeeds, restart: int) -> Images:
    noise = per_image(torch.rand, tuple(images.shape[1:]), seeds, "pgd", restart)
    return threat.random_start(images, noise.to(images))


def _worst_iterate(
    predict: Model, images: Images, labels: Labels, threat: ThreatModel, start: Images, steps: int, step_size: float
) -> tuple[Images, Tensor]:
    """The iterate with the smallest margin, and that margin [N]."""
    worst, lowest = start.clone(), images.new_full((len(images),), torch.inf)

    def keep_worse(current: Images, logits: Logits) -> None:
        nonlocal worst, lowest
        margin = margins(logits, labels)
        worse = margin < lowest
        lowest = torch.where(worse, margin, lowest)
        worst = torch.where(worse[:, None, None, None], current, worst)

    last = pgd(predict, images, labels, threat, start, steps=steps, step_size=step_size, observe=keep_worse)
    with torch.no_grad():
        keep_worse(last, predict(last))
    return worst, lowest
