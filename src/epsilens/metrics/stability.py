"""Stability: how far an explanation moves when the image is perturbed and the prediction is not.

attributions: the maps at x, `[N, C, H, W]`; perturbed: the maps at x + delta_k, `[K, N, C, H, W]`, of the same class;
kept: bool `[K, N]`, whether the prediction is still that class. A sample whose prediction flipped is left out singly;
an image with no sample left has NaN, and so has one with an all-zero map at x or at a sample that is kept. Only
directions and ranks are compared: adversarial training shrinks gradients, and any distance that knows their scale would
call that stability.
"""

from __future__ import annotations

import torch
from torch import Tensor

from epsilens.metrics.weights import directions, pixel_weights, ranks, top
from epsilens.types import Attributions, Scores

TOP = 0.1  # share of the pixels in the top set


def _distances(attributions: Attributions, perturbed: Tensor) -> Tensor:
    """Euclidean distance of the directions, `[K, N]` in [0, sqrt(2)]: the weights are not negative."""
    moved = directions(pixel_weights(perturbed)) - directions(pixel_weights(attributions))
    return torch.linalg.vector_norm(moved, dim=-1)


def _mean_kept(values: Tensor, kept: Tensor) -> Scores:
    return values.where(kept, 0).sum(dim=0) / kept.sum(dim=0)


def direction_sensitivity(attributions: Attributions, perturbed: Tensor, kept: Tensor) -> Scores:
    """Mean over k of ||a'/||a'|| - a/||a|| ||, `[N]` in [0, sqrt(2)] (after Yeh et al. 2019, arXiv:1901.09392).

    0 when every perturbed map is a multiple of the map, sqrt(2) when none shares a pixel with it.
    """
    return _mean_kept(_distances(attributions, perturbed), kept)


def direction_sensitivity_max(attributions: Attributions, perturbed: Tensor, kept: Tensor) -> Scores:
    """The maximum over k of what direction_sensitivity averages, `[N]` in [0, sqrt(2)]."""
    largest = _distances(attributions, perturbed).where(kept, -torch.inf).amax(dim=0)
    return largest.where(kept.any(dim=0), torch.nan)


def rank_stability(attributions: Attributions, perturbed: Tensor, kept: Tensor) -> Scores:
    """Mean over k of Spearman's correlation of the pixel weights, `[N]` in [-1, 1]: 1 for the same order.

    NaN for a map without any order (constant).
    """
    a = ranks(pixel_weights(attributions).flatten(-2))
    b = ranks(pixel_weights(perturbed).flatten(-2))
    middle = (a.shape[-1] + 1) / 2  # the mean rank, exactly: CUDA rounds a mean, and a constant map would have an order
    a, b = a - middle, b - middle
    scale = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    return _mean_kept((a * b).sum(dim=-1) / scale, kept)


def top_stability(attributions: Attributions, perturbed: Tensor, kept: Tensor) -> Scores:
    """Mean over k of the share of the top tenth of the pixels that stays in it, `[N]` in [0, 1] (Ghorbani et al. 2019,
    arXiv:1710.10547); 0.1 by chance."""
    a, b = pixel_weights(attributions).flatten(-2), pixel_weights(perturbed).flatten(-2)
    count = torch.tensor(max(1, round(TOP * a.shape[-1])), device=a.device)
    common = torch.minimum(top(a, count.expand(a.shape[:-1])), top(b, count.expand(b.shape[:-1])))
    return _mean_kept(common.sum(dim=-1) / count, kept)


def retention(attributions: Attributions, perturbed: Tensor, kept: Tensor) -> Scores:
    """Share of the K samples whose prediction did not flip, `[N]` in [0, 1]: what the other stability scores rest on."""
    return kept.double().mean(dim=0)
