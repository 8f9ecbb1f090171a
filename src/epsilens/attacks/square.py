"""Square attack: random search over squares, without gradients (Andriushchenko et al. 2020, arXiv:1912.00049)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from epsilens.attacks.config import Count
from epsilens.attacks.losses import margins
from epsilens.attacks.threat import ThreatModel, norms
from epsilens.randomness import per_image
from epsilens.types import Images, Labels, Model, NoiseSeeds

SHARE = 0.8  # of the pixels, in the first squares
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which the share is halved
TILES = 5  # tiles along the height at the start (L2)
TINY = 1e-12
BLOCK = 500  # queries whose noise is drawn at once


@torch.no_grad()
def square(
    predict: Model, images: Images, labels: Labels, threat: ThreatModel, seeds: NoiseSeeds, *, queries: Count
) -> tuple[Images, Tensor]:
    """For each image the perturbed one with the smallest margin: (images, margins [N]).

    An image that is misclassified is left alone from then on. All noise is per image.
    """
    propose = PROPOSALS[threat.norm]
    worst = STARTS[threat.norm](images, threat.epsilon, seeds)
    lowest = margins(predict(worst), labels)
    chance = lowest  # drawn block by block, for the images that are left
    rows = torch.arange(len(images), device=images.device)
    x, y, best, least = images, labels, worst.clone(), lowest.clone()
    for query in range(queries):
        if (least <= 0).any():
            worst[rows], lowest[rows], going = best, least, least > 0
            rows, x, y, best, least, chance = (column[going] for column in (rows, x, y, best, least, chance))
        if not len(rows):
            break
        if query % BLOCK == 0:
            chance = per_image(torch.rand, (BLOCK, 5 + images.shape[1]), seeds[rows.cpu()], "square", query).to(images)
        side = side_of(query, images.shape[2], images.shape[3], threat.norm)
        candidate = propose(x, best, threat.epsilon, side, chance[:, query % BLOCK])
        margin = margins(predict(candidate), y)
        better = margin < least
        best, least = torch.where(better[:, None, None, None], candidate, best), torch.where(better, margin, least)
    worst[rows], lowest[rows] = best, least
    return worst, lowest


def side_of(query: int, height: int, width: int, norm: str) -> int:
    """Pixels along a side of the square of a query; odd and at least 3 for L2."""
    share = SHARE / 2 ** sum(query > limit for limit in HALVINGS)
    side = round(math.sqrt(share * height * width))
    side = max(side, 1) if norm == "linf" else max(side, 3) // 2 * 2 + 1
    return min(side, height, width)


def _stripes(images: Images, epsilon: float, seeds: NoiseSeeds) -> Images:
    """Every column of every channel moved by the whole budget, up or down."""
    noise = per_image(torch.rand, (images.shape[1], 1, images.shape[3]), seeds, "square", "start").to(images)
    return (images + epsilon * _signs(noise)).clamp(0, 1)


def _linf_proposal(images: Images, best: Images, epsilon: float, side: int, chance: Tensor) -> Images:
    """A square of each image moved by the whole budget, up or down in each channel."""
    window = _window(images, chance[:, 0], chance[:, 1], side)
    candidate = best.clone()
    candidate[window] = (images[window] + epsilon * _signs(chance[:, 5:, None, None])).clamp(0, 1)
    return candidate


def _tiles(images: Images, epsilon: float, seeds: NoiseSeeds) -> Images:
    """The bumps of `bumps` side by side, as many as fit, up or down in each channel, scaled to the budget."""
    _, channels, height, width = images.shape
    side = max(height // TILES, 1)
    down, across = height // side, width // side
    noise = per_image(torch.rand, (channels + 1, down, across), seeds, "square", "start").to(images)
    turned = (noise[:, -1:] > 0.5)[..., None, None]
    shape = bumps(side).to(images)
    tiles = _signs(noise[:, :-1])[..., None, None] * torch.where(turned, shape.T, shape)  # [N, C, down, across, s, s]
    top, left = (height - down * side) // 2, (width - across * side) // 2
    delta = torch.zeros_like(images)
    whole = tiles.transpose(3, 4).reshape(len(images), channels, down * side, across * side)
    delta[:, :, top : top + down * side, left : left + across * side] = whole
    return _within(images, delta, epsilon)


def _l2_proposal(images: Images, best: Images, epsilon: float, side: int, chance: Tensor) -> Images:
    """The budget of one window is moved into another, there as a bump upon what was there: algorithm 3 of the paper."""
    channels = images.shape[1]
    to = _window(images, chance[:, 0], chance[:, 1], side)
    fro = _window(images, chance[:, 2], chance[:, 3], side)
    delta = best - images
    used = delta.square()
    total = used.sum(dim=(1, 2, 3), keepdim=True)
    local = used[to].sum(dim=(2, 3), keepdim=True)
    either = torch.zeros_like(used)
    either[to], either[fro] = used[to], used[fro]
    shape = bumps(side).to(images)
    bump = torch.where(chance[:, 4, None, None] > 0.5, shape.T, shape)[:, None] * _signs(chance[:, 5:, None, None])
    bump = bump + delta[to] / (local.sqrt() + TINY)
    bump = bump / (bump.square().sum(dim=(2, 3), keepdim=True).sqrt() + TINY)
    budget = ((epsilon**2 - total).clamp_min(0) / channels + either.sum(dim=(2, 3), keepdim=True)).sqrt()
    delta[fro] = 0
    delta[to] = bump * budget
    return _within(images, delta, epsilon)


@cache
def bumps(side: int) -> Tensor:
    """Two pyramids of opposite sign that share a square, [side, side], of L2 norm 1: equation 3 of the paper."""
    upper = side // 2
    whole = torch.cat([_pyramid(upper, side), -_pyramid(side - upper, side)])
    return whole / whole.norm()


def _pyramid(height: int, width: int) -> Tensor:
    """Nested rectangles around the middle, the k-th of weight 1/k^2, of L2 norm 1."""
    middle = height // 2, width // 2
    found = torch.zeros(height, width)
    for k in range(max(middle) + 1):
        top, left = (max(m - k, 0) for m in middle)
        found[top : middle[0] + k + 1, left : middle[1] + k + 1] += 1 / (k + 1) ** 2
    return found / found.norm().clamp_min(TINY)


def _window(images: Images, down: Tensor, across: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Index of a square of each image, placed by two uniform numbers in [0, 1) each."""
    n, channels, height, width = images.shape
    ruler = torch.arange(side, device=images.device)
    top, left = ((share * (size - side + 1)).long() for share, size in ((down, height), (across, width)))
    image = torch.arange(n, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return image, channel, (top[:, None] + ruler)[:, None, :, None], (left[:, None] + ruler)[:, None, None, :]


def _within(images: Images, delta: Tensor, epsilon: float) -> Images:
    size = norms(delta, "l2")[:, None, None, None]
    return (images + delta / (size + TINY) * epsilon).clamp(0, 1)


def _signs(noise: Tensor) -> Tensor:
    return torch.where(noise < 0.5, -1.0, 1.0).to(noise)


STARTS: dict[str, Callable[[Images, float, NoiseSeeds], Images]] = {"linf": _stripes, "l2": _tiles}
PROPOSALS: dict[str, Callable[[Images, Images, float, int, Tensor], Images]] = {
    "linf": _linf_proposal,
    "l2": _l2_proposal,
}
