"""Conciseness: on how few pixels an explanation puts its weight."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from epsilens.metrics.weights import ascending, known, pixel_weights, shares
from epsilens.types import Attributions, Scores


def _gini(values: Tensor) -> Scores:
    """Gini index of each row `[N, n]` of values that are not negative, `[N]`."""
    ordered = ascending(values)
    n = ordered.shape[1]
    place = 2 * torch.arange(1, n + 1, dtype=ordered.dtype, device=ordered.device) - n - 1
    return (place * ordered).sum(dim=1) / (n * ordered.sum(dim=1))


def gini(attributions: Attributions) -> Scores:
    """Gini index of the pixel weights (Chalasani et al. 2020, arXiv:1810.06583), `[N]`.

    0 when all pixels weigh the same, 1 - 1/n when one of n carries all, about 0.24 for Gaussian noise in three channels;
    NaN for an all-zero map.
    """
    return _gini(pixel_weights(attributions).flatten(1))


def gini_all_channels(attributions: Attributions) -> Scores:
    """Gini index of |g| over all channels and pixels alike, as Chalasani et al. 2020 (arXiv:1810.06583) have it, `[N]`.

    For comparison with published numbers: about 0.41 for Gaussian noise. NaN for an all-zero map.
    """
    return _gini(known(attributions.double().abs()).flatten(1))


def gini_positive(attributions: Attributions) -> Scores:
    """Gini index of the positive part of g over all channels and pixels alike, `[N]`.

    For comparison with published numbers: about 0.71 for Gaussian noise, of which half is cut to 0. NaN for a map without
    a positive value.
    """
    return _gini(known(attributions.double().clamp(min=0)).flatten(1))


def regional_gini(attributions: Attributions, block: int) -> Scores:
    """Gini index of the pixel weights averaged over blocks of `block` x `block` pixels (after Duan et al. 2023), `[N]`.

    0 when all blocks weigh the same, 1 - 1/m when one of m carries all; about 0.06 for Gaussian noise in three channels and
    blocks of 4 x 4. Means of blocks of one size have the Gini index of their sums; a block that the border cuts counts by
    its mean over the pixels that it has. NaN for an all-zero map.
    """
    weights = pixel_weights(attributions)[:, None]
    return _gini(F.avg_pool2d(weights, block, ceil_mode=True, count_include_pad=False).flatten(1))


def effective_fraction(attributions: Attributions) -> Scores:
    """Share of the pixels over which the weight is in effect spread: exp(entropy) / n (after Bhatt et al. 2020,
    arXiv:2005.00631), `[N]`.

    1/n when one pixel carries all, 1 when all weigh the same; NaN for an all-zero map.
    """
    p = shares(pixel_weights(attributions))
    return torch.exp(-torch.xlogy(p, p).sum(dim=1)) / p.shape[1]
