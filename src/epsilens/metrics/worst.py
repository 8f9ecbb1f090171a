"""The attack behind adversarial_stability: a neighbour, within the radius and of the same prediction, whose map points as
far away as can be found (after Ghorbani et al. 2019, arXiv:1710.10547).

It climbs the distance D of the directions of the maps. Let v be the change of a map that raises D fastest; it is known in
closed form. The slope of D in the image is J^T v, J the derivative of the map. For the gradient map J is the Hessian, which
is symmetric: J^T v = J v, the difference of two maps along v. So no second derivative is taken, which in a network of
ReLUs is zero almost everywhere: over a step of the radius ReLUs switch, and the difference sees it. For maps that are not
gradients J v is a direction to try, no more; what is tried is kept only if the method's own map has moved further.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from epsilens.metrics.stability import distances
from epsilens.metrics.weights import directions, pixel_weights
from epsilens.types import Attributions, Images

Explain = Callable[[Images], Attributions]
Holds = Callable[[Images], Tensor]  # bool [N]: whether the prediction is still the same


def climb(
    images: Images,
    attributions: Attributions,
    start: tuple[Images, Attributions],
    radius: float,
    steps: int,
    explain: Explain,
    holds: Holds,
) -> tuple[Images, Attributions]:
    """The worst neighbours found and their maps, `[N, C, H, W]` each.

    images, attributions: x and its map; start: the same of where to start, within `radius` of x in [0, 1]. A step is at
    first half the radius and is halved for an image whenever it does not lead further out. Three explanations a step.
    """
    best, maps = start
    far = distances(attributions, maps)
    stride = torch.full_like(images[:, :1, :1, :1], radius / 2)
    for _ in range(steps):
        slope = _slope(attributions, best, maps, radius, explain)
        tried = (best + stride * slope.to(best)).clamp(images - radius, images + radius).clamp(0, 1)
        there = explain(tried)
        distance = distances(attributions, there)
        further = holds(tried) & (distance > far)
        chosen = further[:, None, None, None]
        best, maps = torch.where(chosen, tried, best), torch.where(chosen, there, maps)
        far, stride = torch.where(further, distance, far), torch.where(chosen, stride, stride / 2)
    return best, maps


def _slope(attributions: Attributions, at: Images, maps: Attributions, radius: float, explain: Explain) -> Tensor:
    """The slope of the distance as a step of at most 1 a value."""
    along = radius * _step(outward(attributions, maps)).to(at)
    return _step(explain((at + along).clamp(0, 1)).double() - explain((at - along).clamp(0, 1)).double())


def _step(slope: Tensor) -> Tensor:
    """The sign of the slope, but for values below their mean size, so that rounding does not decide which way they go; 0
    where the slope is undefined."""
    return (slope / slope.abs().mean(dim=(1, 2, 3), keepdim=True)).clamp(-1, 1).nan_to_num(0)


def outward(attributions: Attributions, maps: Attributions) -> Tensor:
    """The change of `maps` that raises the distance of their directions from those of `attributions` fastest, float64
    `[N, C, H, W]`, up to a factor for each image; NaN for an all-zero map."""
    here, start = directions(pixel_weights(maps)), directions(pixel_weights(attributions))
    apart = (here * start).sum(dim=1, keepdim=True) * here - start  # the change of the weights
    return maps.double().sign() * apart.view(len(maps), 1, *maps.shape[2:])
