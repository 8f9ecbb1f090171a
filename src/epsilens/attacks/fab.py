"""Fast adaptive boundary attack: the smallest perturbation to another class (Croce and Hein 2020, arXiv:1907.02044)."""

from __future__ import annotations

import torch
from torch import Tensor

from epsilens.attacks.config import Count
from epsilens.attacks.losses import margins
from epsilens.attacks.planes import to_plane
from epsilens.attacks.targets import in_turn
from epsilens.attacks.threat import ThreatModel, norms
from epsilens.types import Images, Labels, Model, NoiseSeeds

HOMING = 0.1  # alpha_max: most weight of the projection of the image itself
OVERSHOOT = 1.05  # eta: steps reach a little beyond the linearised boundary
RETREAT = 0.9  # beta: an iterate beyond the boundary is drawn back towards the image
LEAST = 1e-8  # of a step's length: two steps of length 0 have a ratio too


def fab_t(
    predict: Model, images: Images, labels: Labels, threat: ThreatModel, seeds: NoiseSeeds, *,
    iterations: Count, targets: Count,
) -> tuple[Images, Tensor]:  # fmt: skip
    """Towards the `targets` most likely other classes in turn, as far as the threat model reaches: (images, margins [N]).

    Without a random start, hence without noise.
    """

    def attack(rows: Tensor, other: Labels, rank: int) -> tuple[Images, Tensor]:
        x, y = images[rows], labels[rows]
        found, size = fab(predict, x, y, other, threat.norm, iterations=iterations, enough=threat.epsilon)
        found = torch.where((size <= threat.epsilon)[:, None, None, None], found, x)
        return found, margins(predict(found), y)

    return in_turn(attack, predict, images, labels, targets)


def fab(
    predict: Model, images: Images, labels: Labels, targets: Labels, norm: str, *, iterations: int, enough: float
) -> tuple[Images, Tensor]:
    """For each image the nearest misclassified one that was found: (images, their norms [N]; infinite where none was).

    targets: the class whose boundary is approached. An image is left alone once one within `enough` is found; 0 = never.
    """
    nearest, least = images.clone(), images.new_full((len(images),), torch.inf)
    rows = torch.arange(len(images), device=images.device)
    current = images
    for _ in range(iterations):
        if not len(rows):
            break
        origin, label = images[rows], labels[rows]
        current = _approach(predict, current, origin, label, targets[rows], norm)
        with torch.no_grad():
            wrong = margins(predict(current), label) <= 0
        size = norms(current - origin, norm)
        better = wrong & (size < least[rows])
        nearest[rows[better]], least[rows[better]] = current[better], size[better]
        current = torch.where(wrong[:, None, None, None], origin + RETREAT * (current - origin), current)
        going = least[rows] > enough
        rows, current = rows[going], current[going]
    return nearest, least


def _approach(predict: Model, current: Images, origin: Images, labels: Labels, targets: Labels, norm: str) -> Images:
    """One step towards where the linearised logits of label and target are equal: equation 10 of the paper."""
    difference, gradient = _boundary(predict, current, labels, targets)
    start, home, normal = current.flatten(1), origin.flatten(1), gradient.flatten(1)
    offset = torch.linalg.vecdot(normal, start) - difference
    near = to_plane(start, normal, offset, norm).view_as(current)
    far = to_plane(home, normal, offset, norm).view_as(current)
    lengths = [norms(step, norm).clamp_min(LEAST) for step in (near, far)]
    share = (lengths[0] / sum(lengths)).clamp_max(HOMING)[:, None, None, None]
    return ((1 - share) * (current + OVERSHOOT * near) + share * (origin + OVERSHOOT * far)).clamp(0, 1)


def _boundary(predict: Model, current: Images, labels: Labels, targets: Labels) -> tuple[Tensor, Tensor]:
    """Logit of the target minus that of the label, [N], and its gradient, [N, C, H, W]."""
    inputs = current.detach().requires_grad_()
    with torch.enable_grad():
        logits = predict(inputs)
        pair = logits.gather(1, torch.stack([targets, labels], dim=1))
        difference = pair[:, 0] - pair[:, 1]
        (gradient,) = torch.autograd.grad(difference.sum(), inputs)
    return difference.detach(), gradient
