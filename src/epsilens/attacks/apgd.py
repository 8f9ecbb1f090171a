"""Auto-PGD: steepest ascent with momentum that halves its step by itself (Croce and Hein 2020, arXiv:2003.01690)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from epsilens.attacks.config import Count
from epsilens.attacks.losses import cross_entropies, dlr, dlr_targeted, margins
from epsilens.attacks.targets import in_turn
from epsilens.attacks.threat import ThreatModel
from epsilens.randomness import per_image
from epsilens.types import Images, Labels, Logits, Model, NoiseSeeds

Loss = Callable[[Logits, Labels, Labels], Tensor]  # logits, labels, targets -> [N]

RISES = 0.75  # the step is halved where fewer of the steps since the last check than this share raised the loss
MOMENTUM = 0.25  # weight of the step before


@dataclass
class Climb:
    """The images that are still correct; every field has one row for each."""

    rows: Tensor  # their positions in the batch
    images: Images
    labels: Labels
    targets: Labels
    current: Images
    previous: Images
    gradient: Tensor  # of the loss at `current`
    loss: Tensor
    best: Images  # the iterate of the highest loss
    best_gradient: Tensor
    best_loss: Tensor
    step: Tensor  # step size, [n, 1, 1, 1], pixel units
    rises: Tensor  # how many steps since the last check raised the loss
    halved: Tensor  # whether the last check halved the step
    checked: Tensor  # `best_loss` at the last check

    def take(self, chosen: Tensor) -> Climb:
        """Some of the rows."""
        return Climb(*(getattr(self, field.name)[chosen] for field in fields(self)))


def windows(iterations: int) -> dict[int, int]:
    """After how many iterations the step size is checked -> how many lie since the check before.

    Section 3.1 of the paper in whole iterations, as its authors' code rounds: 22 % first, each 3 % shorter, at least 6 %.
    """
    length, shorter, least = (max(int(share * iterations), 1) for share in (0.22, 0.03, 0.06))
    found, done = {}, length
    while done <= iterations:
        found[done] = length
        length = max(length - shorter, least)
        done += length
    return found


def apgd_ce(
    predict: Model, images: Images, labels: Labels, threat: ThreatModel, seeds: NoiseSeeds, *, iterations: Count
) -> tuple[Images, Tensor]:
    """On the cross entropy, from a random start: (images, margins [N])."""
    start = _start(images, threat, seeds, "apgd_ce")
    return apgd(predict, images, labels, labels, threat, start, iterations=iterations, loss=cross_entropies)


def apgd_dlr(
    predict: Model, images: Images, labels: Labels, threat: ThreatModel, seeds: NoiseSeeds, *, iterations: Count
) -> tuple[Images, Tensor]:
    """On the difference of logits ratio, from a random start: (images, margins [N])."""
    start = _start(images, threat, seeds, "apgd_dlr")
    return apgd(predict, images, labels, labels, threat, start, iterations=iterations, loss=dlr)


def apgd_t(
    predict: Model, images: Images, labels: Labels, threat: ThreatModel, seeds: NoiseSeeds, *,
    iterations: Count, targets: Count,
) -> tuple[Images, Tensor]:  # fmt: skip
    """On the targeted difference of logits ratio, towards the `targets` most likely other classes in turn."""

    def attack(rows: Tensor, other: Labels, rank: int) -> tuple[Images, Tensor]:
        x, y = images[rows], labels[rows]
        start = _start(x, threat, seeds[rows.cpu()], "apgd_t", rank)
        return apgd(predict, x, y, other, threat, start, iterations=iterations, loss=dlr_targeted)

    return in_turn(attack, predict, images, labels, targets)


def apgd(
    predict: Model,
    images: Images,
    labels: Labels,
    targets: Labels,
    threat: ThreatModel,
    start: Images,
    *,
    iterations: int,
    loss: Loss,
) -> tuple[Images, Tensor]:
    """For each image the iterate with the smallest margin: (images, margins [N]).

    start: inside the threat model. An image that is misclassified is left alone from then on.
    """
    worst, lowest = images.clone(), images.new_full((len(images),), torch.inf)
    state = _begin(images, labels, targets, start, threat)
    checks = windows(iterations)
    for i in range(iterations + 1):
        if i:
            _ascend(state, threat, MOMENTUM if i > 1 else 0.0)
        margin = margins(_differentiate(predict, state, loss), state.labels)
        lower = margin < lowest[state.rows]
        lowest[state.rows[lower]], worst[state.rows[lower]] = margin[lower], state.current[lower]
        if (margin <= 0).any():
            state = state.take(margin > 0)
        if not len(state.rows):
            break
        if i in checks:
            _check(state, checks[i])
    return worst, lowest


def _start(images: Images, threat: ThreatModel, seeds: NoiseSeeds, *key: object) -> Images:
    return threat.random_start(images, per_image(torch.rand, tuple(images.shape[1:]), seeds, *key).to(images))


def _begin(images: Images, labels: Labels, targets: Labels, start: Images, threat: ThreatModel) -> Climb:
    n = len(images)
    blank = images.new_full((n,), -torch.inf)
    return Climb(
        torch.arange(n, device=images.device), images, labels, targets,
        current=start, previous=start, gradient=torch.zeros_like(start), loss=-blank,
        best=start.clone(), best_gradient=torch.zeros_like(start), best_loss=blank,
        step=images.new_full((n, 1, 1, 1), 2 * threat.epsilon),
        rises=torch.zeros_like(labels), halved=torch.ones_like(labels, dtype=torch.bool), checked=blank,
    )  # fmt: skip


def _ascend(state: Climb, threat: ThreatModel, momentum: float) -> None:
    """Algorithm 1 of the paper, lines 7 and 8."""
    rule = threat.steps(state.images, state.step)
    moved = rule.project(rule.step(state.current, state.gradient)) - state.current
    inertia = state.current - state.previous
    state.previous = state.current
    state.current = rule.project(state.current + (1 - momentum) * moved + momentum * inertia)


def _differentiate(predict: Model, state: Climb, loss: Loss) -> Logits:
    """Loss and gradient at the current iterates, and the best of both; returns the logits there."""
    current = state.current.detach().requires_grad_()
    with torch.enable_grad():
        logits = predict(current)
        found = loss(logits, state.labels, state.targets)
        (state.gradient,) = torch.autograd.grad(found.sum(), current)
    found = found.detach()
    state.rises = state.rises + (found > state.loss)
    state.loss = found
    better = found > state.best_loss
    state.best_loss = torch.where(better, found, state.best_loss)
    state.best = torch.where(_wide(better), state.current, state.best)
    state.best_gradient = torch.where(_wide(better), state.gradient, state.best_gradient)
    return logits.detach()


def _check(state: Climb, window: int) -> None:
    """Section 3.1 of the paper: halve the step and go on from the best iterate, where few steps rose, or where neither
    the step nor the best loss has changed since the check before."""
    stuck = ~state.halved & (state.checked >= state.best_loss)
    state.halved = (state.rises <= RISES * window) | stuck
    state.checked = state.best_loss
    state.rises = torch.zeros_like(state.rises)
    wide = _wide(state.halved)
    state.step = torch.where(wide, state.step / 2, state.step)
    state.current = torch.where(wide, state.best, state.current)
    state.gradient = torch.where(wide, state.best_gradient, state.gradient)


def _wide(rows: Tensor) -> Tensor:
    return rows[:, None, None, None]
