"""Relevance: how much of an explanation lies on the object (masks or boxes). An image without a mask has NaN.

c = |M| / n is the score of a map without any preference; the corrected variants are (s - c) / (1 - c): 0 by chance, 1 at
best, NaN where the mask is the whole image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from epsilens.metrics.weights import known, pixel_weights, shares, top
from epsilens.types import Attributions, Masks, Scores


def relevance_mass(attributions: Attributions, masks: Masks) -> Scores:
    """Share of the pixel weight inside the mask (Arras et al. 2022, arXiv:2003.07258), `[N]` in [0, 1].

    NaN for an all-zero map.
    """
    inside = masks.flatten(1)
    mass = shares(pixel_weights(attributions)).where(inside, 0).sum(dim=1)
    return mass.where(inside.any(dim=1), torch.nan)


def relevance_rank(attributions: Attributions, masks: Masks) -> Scores:
    """Share of the |M| heaviest pixels that lie inside the mask M (Arras et al. 2022, arXiv:2003.07258), `[N]` in [0, 1].

    Pixels that tie for the last places share them. NaN for an all-zero map.
    """
    inside = masks.flatten(1)
    size = inside.sum(dim=1)
    members = top(pixel_weights(attributions).flatten(1), size)
    return members.where(inside, 0).sum(dim=1) / size  # 0 / 0 is NaN for an empty mask


def pointing_game(attributions: Attributions, masks: Masks) -> Scores:
    """Whether the heaviest pixel lies inside the mask, `[N]`: 1 if it does, 0 if not (Zhang et al. 2016, arXiv:1608.00507,
    with tolerance 0).

    Pixels that tie for the heaviest share the hit. NaN for an all-zero map.
    """
    inside = masks.flatten(1)
    weights = pixel_weights(attributions).flatten(1)
    hit = top(weights, torch.ones_like(inside.sum(dim=1))).where(inside, 0).sum(dim=1)
    return hit.where(inside.any(dim=1), torch.nan)


def mosaic_focus(attributions: Attributions, cells: Tensor) -> Scores:
    """Share of the positive attribution that falls into the cell of the explained class, in a mosaic of 2 x 2 images of
    different classes, `[N]` in [0, 1] (after Arias-Duart et al. 2022, arXiv:2109.15035); 0.25 by chance.

    attributions: of the mosaics, `[N, C, 2H, 2W]`; cells: int64 `[N]`, 0 to 3, row by row. NaN for a mosaic without positive
    attribution.
    """
    positive = known(attributions.double().clamp(min=0)).sum(dim=1)
    count, height, width = positive.shape
    parts = positive.view(count, 2, height // 2, 2, width // 2).sum(dim=(2, 4)).flatten(1)  # [N, 4]
    return parts.gather(1, cells[:, None])[:, 0] / parts.sum(dim=1)


def _corrected(scores: Scores, masks: Masks) -> Tensor:
    inside = masks.flatten(1)
    chance = inside.double().mean(dim=1)  # of a full mask perhaps not exactly 1: CUDA multiplies by 1/n
    return ((scores - chance) / (1 - chance)).masked_fill(inside.all(dim=1), torch.nan)


def relevance_mass_corrected(attributions: Attributions, masks: Masks) -> Scores:
    """relevance_mass less what chance gives, `[N]`, at most 1."""
    return _corrected(relevance_mass(attributions, masks), masks)


def relevance_rank_corrected(attributions: Attributions, masks: Masks) -> Scores:
    """relevance_rank less what chance gives, `[N]`, at most 1."""
    return _corrected(relevance_rank(attributions, masks), masks)
