"""Relevance: how much of an explanation lies on the object (masks or boxes). An image without a mask has NaN.

c = |M| / n is the score of a map without any preference; the corrected variants are (s - c) / (1 - c): 0 by chance, 1 at
best, NaN where the mask is the whole image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from epsilens.metrics.weights import pixel_weights, shares, top
from epsilens.types import Attributions, Masks, Scores


def relevance_mass(attributions: Attributions, masks: Masks) -> Scores:
    """Share of the pixel weight inside the mask (Arras et al. 2022, arXiv:2003.07258), `[N]` in [0, 1].

    NaN for an all-zero map.
    """
    inside = masks.flatten(1)
    mass = (shares(pixel_weights(attributions)) * inside).sum(dim=1)
    return mass.where(inside.any(dim=1), torch.nan)


def relevance_rank(attributions: Attributions, masks: Masks) -> Scores:
    """Share of the |M| heaviest pixels that lie inside the mask M (Arras et al. 2022, arXiv:2003.07258), `[N]` in [0, 1].

    Pixels that tie for the last places share them. NaN for an all-zero map.
    """
    inside = masks.flatten(1)
    size = inside.sum(dim=1)
    members = top(pixel_weights(attributions).flatten(1), size)
    return (members * inside).sum(dim=1) / size  # 0 / 0 is NaN for an empty mask


def _corrected(scores: Scores, masks: Masks) -> Tensor:
    chance = masks.flatten(1).double().mean(dim=1)
    return ((scores - chance) / (1 - chance)).where(chance < 1, torch.nan)


def relevance_mass_corrected(attributions: Attributions, masks: Masks) -> Scores:
    """relevance_mass less what chance gives, `[N]`, at most 1."""
    return _corrected(relevance_mass(attributions, masks), masks)


def relevance_rank_corrected(attributions: Attributions, masks: Masks) -> Scores:
    """relevance_rank less what chance gives, `[N]`, at most 1."""
    return _corrected(relevance_rank(attributions, masks), masks)
