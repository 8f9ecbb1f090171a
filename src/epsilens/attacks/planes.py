"""The smallest step from points of the unit cube onto a hyperplane, within the cube."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

Points = Annotated[Tensor, "float [N, D] in [0, 1]"]

ROUNDS = 200  # Newton ends exactly, after a handful; this only bounds a loop that rounding might keep from ending


def to_plane(points: Points, normal: Tensor, offset: Tensor, norm: str) -> Tensor:
    """The perturbation [N, D] of least Linf or L2 norm with <normal, points + perturbation> = offset.

    normal: [N, D]; offset: [N]. Where the cube does not reach the plane: the corner of the cube that is nearest to it.

    The optimum moves every coordinate at its rate (1 for Linf, |normal| for L2) for a common time, until it meets its
    bound. How far that brings a point is a concave, piecewise linear function of time, so that Newton's method from time 0
    rises to the solution and ends on it: exact, without sorting.
    """
    need = offset - torch.linalg.vecdot(normal, points)
    direction = normal.sign() * need.sign()[:, None]
    scale = normal.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(normal.dtype).tiny)
    weight, need = (
        normal.abs() / scale,
        need.abs() / scale.squeeze(1),
    )  # so that no square of a small gradient underflows
    rate = torch.ones_like(weight) if norm == "linf" else weight
    room = torch.where(direction > 0, 1 - points, points)
    limit = room / rate  # when a coordinate meets its bound; 0/0 = NaN is never, and weighs nothing
    speed, most = weight * rate, weight * room
    time, moving = torch.zeros_like(need), None
    for _ in range(ROUNDS):
        free = time[:, None] < limit
        running = free.to(weight)
        total = torch.linalg.vecdot(speed, running)
        met = torch.linalg.vecdot(most, 1 - running)
        time = torch.where(total > 0, (need - met) / total, time).clamp_max(torch.finfo(normal.dtype).max)
        before, moving = moving, free.sum(dim=1)
        if before is not None and torch.equal(before, moving):
            break
    return direction * torch.minimum(rate * time[:, None], room)
