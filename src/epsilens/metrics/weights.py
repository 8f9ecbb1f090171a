"""From attribution maps to what is compared: pixel weights, directions, ranks, top sets. All in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from epsilens.types import Attributions, PixelWeights


def pixel_weights(attributions: Attributions) -> PixelWeights:
    """a = sum over channels of |g|, float64 `[..., H, W]`: the one convention of all metrics."""
    return attributions.double().abs().sum(dim=-3)


def directions(weights: PixelWeights) -> Tensor:
    """a / ||a||, `[..., H*W]`; NaN for an all-zero map. Free of the scale of the gradients, which training changes."""
    flat = weights.flatten(-2)
    return flat / torch.linalg.vector_norm(flat, dim=-1, keepdim=True)


def shares(weights: PixelWeights) -> Tensor:
    """a / sum(a), `[..., H*W]`; NaN for an all-zero map."""
    flat = weights.flatten(-2)
    return flat / flat.sum(dim=-1, keepdim=True)


def ranks(values: Tensor) -> Tensor:
    """Ranks 1 to n along the last dimension; ties share their average rank."""
    ordered = values.sort(dim=-1).values.contiguous()
    below = torch.searchsorted(ordered, values.contiguous(), right=False)
    up_to = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (below + up_to + 1).double() / 2


def top(values: Tensor, count: Tensor) -> Tensor:
    """Membership in [0, 1] of the `count` largest values of each row `[..., n]`; sums to `count`.

    Values that tie for the last places share them equally, so that no position in the image is preferred.
    count: `[...]`, 0 to n.
    """
    ordered = values.sort(dim=-1, descending=True).values
    last = ordered.gather(-1, (count - 1).clamp(min=0).unsqueeze(-1))
    above, tied = values > last, values == last
    places = count.unsqueeze(-1) - above.sum(dim=-1, keepdim=True)
    return torch.where(above, 1.0, tied * places / tied.sum(dim=-1, keepdim=True)).double() * (count > 0).unsqueeze(-1)
