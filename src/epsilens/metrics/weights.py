"""From attribution maps to what is compared: pixel weights, directions, ranks, top sets. All in float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from epsilens.types import Attributions, PixelWeights


def pixel_weights(attributions: Attributions) -> PixelWeights:
    """a = sum over channels of |g|, float64 `[..., H, W]`: the one convention of all metrics.

    NaN throughout for a map that is all zero or not finite, so that every score of it is NaN.
    """
    weights = attributions.abs().sum(dim=-3, dtype=torch.float64)
    return _where_positive(weights, weights.sum(dim=(-2, -1), keepdim=True))


def known(maps: Tensor) -> Tensor:
    """The maps `[..., C, H, W]`; NaN throughout for one that is all zero or not finite."""
    return _where_positive(maps, maps.abs().sum(dim=(-3, -2, -1), keepdim=True))


def _where_positive(maps: Tensor, total: Tensor) -> Tensor:
    return maps.where((total > 0) & total.isfinite(), torch.nan)


def directions(weights: PixelWeights) -> Tensor:
    """a / ||a||, `[..., H*W]`. Free of the scale of the gradients, which training changes."""
    flat = weights.flatten(-2)
    return flat / torch.linalg.vector_norm(flat, dim=-1, keepdim=True)


def shares(weights: PixelWeights) -> Tensor:
    """a / sum(a), `[..., H*W]`."""
    flat = weights.flatten(-2)
    return flat / flat.sum(dim=-1, keepdim=True)


def ascending(values: Tensor) -> Tensor:
    """The values of each row `[..., n]`, the smallest first, NaN last. On a CPU by numpy, which does not sort places too."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=-1))
    return values.sort(dim=-1).values


def ranks(values: Tensor) -> Tensor:
    """Ranks 1 to n along the last dimension; ties share their average rank. A row of NaN has ranks of NaN."""
    ordered = ascending(values).contiguous()
    below = torch.searchsorted(ordered, values.contiguous(), right=False)
    up_to = torch.searchsorted(ordered, values.contiguous(), right=True)
    return ((below + up_to + 1).double() / 2).masked_fill(values.isnan(), torch.nan)


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's correlation along the last dimension, `[..., n]` to `[...]`; NaN where all values of a row tie."""
    a, b = ranks(first), ranks(second)
    middle = (a.shape[-1] + 1) / 2  # the mean rank, exactly: CUDA rounds a mean, and a constant map would have an order
    a, b = a - middle, b - middle
    scale = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    return (a * b).sum(dim=-1) / scale


def top(values: Tensor, count: Tensor) -> Tensor:
    """Membership in [0, 1] of the `count` largest values of each row `[..., n]`; sums to `count`.

    Values that tie for the last places share them equally, so that no position in the image is preferred.
    count: `[...]`, 0 to n. A row of NaN has memberships of NaN.
    """
    last = _at_place(values, values.shape[-1] - count.clamp(min=1)).unsqueeze(-1)
    above, below = values > last, values < last
    more, less = (part.count_nonzero(dim=-1).unsqueeze(-1) for part in (above, below))
    share = (count.unsqueeze(-1) - more).double() / (values.shape[-1] - more - less)
    return torch.where(above, 1.0, torch.where(below, 0.0, share.masked_fill(last.isnan(), torch.nan)))


def _at_place(values: Tensor, place: Tensor) -> Tensor:
    """What `ascending` has at one place of each row: `[..., n]` and int64 `[...]` to `[...]`. On a CPU without sorting."""
    if values.device.type == "cpu":
        rows = zip(values.reshape(-1, values.shape[-1]).numpy(), place.flatten().tolist(), strict=True)
        found = np.array([np.partition(row, k)[k] for row, k in rows], dtype=np.float64)
        return torch.from_numpy(found).to(values.dtype).view(place.shape)
    return ascending(values).gather(-1, place.unsqueeze(-1)).squeeze(-1)
