"""Conciseness: on how few pixels an explanation puts its weight."""

from __future__ import annotations

import torch

from epsilens.metrics.weights import pixel_weights, shares
from epsilens.types import Attributions, Scores


def gini(attributions: Attributions) -> Scores:
    """Gini index of the pixel weights (Chalasani et al. 2020, arXiv:1810.06583), `[N]`.

    0 when all pixels weigh the same, 1 - 1/n when one of n carries all, about 0.24 for Gaussian noise in three channels;
    NaN for an all-zero map.
    """
    weights = pixel_weights(attributions).flatten(1).sort(dim=1).values  # [N, n], ascending
    n = weights.shape[1]
    place = 2 * torch.arange(1, n + 1, device=weights.device) - n - 1
    return (place * weights).sum(dim=1) / (n * weights.sum(dim=1))


def effective_fraction(attributions: Attributions) -> Scores:
    """Share of the pixels over which the weight is in effect spread: exp(entropy) / n (after Bhatt et al. 2020,
    arXiv:2005.00631), `[N]`.

    1/n when one pixel carries all, 1 when all weigh the same; NaN for an all-zero map.
    """
    p = shares(pixel_weights(attributions))
    return torch.exp(-torch.xlogy(p, p).sum(dim=1)) / p.shape[1]
