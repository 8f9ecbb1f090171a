"""Relevance on maps whose overlap with the mask is known."""

from __future__ import annotations

import pytest
import torch

from epsilens.metrics.relevance import (
    mosaic_focus,
    pointing_game,
    relevance_mass,
    relevance_mass_corrected,
    relevance_rank,
    relevance_rank_corrected,
)

ALL = (relevance_mass, relevance_rank, relevance_mass_corrected, relevance_rank_corrected)
SHAPE = (3, 5)


def some_masks() -> torch.Tensor:
    masks = torch.zeros(3, *SHAPE, dtype=torch.bool)
    masks[0, 0, 1:4] = True  # 3 pixels
    masks[1, :, 2] = True  # 3 pixels
    masks[2, 1:, :] = True  # 10 pixels
    return masks


def signed(weights: torch.Tensor) -> torch.Tensor:
    """A map `[N, 2, H, W]` of mixed signs with these pixel weights."""
    return torch.stack([-0.25 * weights, 0.75 * weights], dim=1)


@pytest.mark.parametrize("metric", ALL)
def test_a_map_equal_to_its_mask_has_one(metric) -> None:
    masks = some_masks()
    assert metric(signed(masks.double()), masks).tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("metric", [relevance_mass, relevance_rank])
def test_a_map_beside_its_mask_has_zero(metric) -> None:
    masks = some_masks()[:2]
    assert metric(signed((~masks).double()), masks).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("metric", [relevance_mass_corrected, relevance_rank_corrected])
def test_a_constant_map_is_at_chance(metric) -> None:
    masks = some_masks()
    assert metric(signed(torch.ones(3, *SHAPE, dtype=torch.float64)), masks).tolist() == pytest.approx([0.0] * 3)


def test_the_mass_is_the_share_inside() -> None:
    weights = torch.tensor([[[1.0, 4.0], [2.0, 3.0]], [[0.0, 1.0], [1.0, 6.0]]], dtype=torch.float64)
    masks = torch.tensor([[[True, True], [False, False]], [[False, False], [False, True]]])
    assert relevance_mass(signed(weights), masks).tolist() == pytest.approx([0.5, 0.75])
    assert relevance_mass_corrected(signed(weights), masks).tolist() == pytest.approx([0.0, 2 / 3])


def test_the_rank_counts_as_many_pixels_as_the_mask_has() -> None:
    weights = torch.tensor(
        [[[9.0, 1.0, 7.0], [3.0, 8.0, 2.0]], [[1.0, 2.0, 3.0], [6.0, 5.0, 4.0]]], dtype=torch.float64
    )
    masks = torch.tensor([[[True, True, False], [False, True, False]], [[True, True, False], [False, False, False]]])
    assert relevance_rank(signed(weights), masks).tolist() == pytest.approx([2 / 3, 0.0])
    assert relevance_rank_corrected(signed(weights), masks).tolist() == pytest.approx([1 / 3, -0.5])


def test_pixels_that_tie_for_the_last_places_share_them() -> None:
    weights = torch.tensor([[[5.0, 1.0, 1.0, 1.0]]], dtype=torch.float64)
    for place in range(1, 4):  # wherever the second mask pixel lies, it has a third of the last place
        masks = torch.zeros(1, 1, 4, dtype=torch.bool)
        masks[0, 0, [0, place]] = True
        assert relevance_rank(signed(weights), masks).item() == pytest.approx((1 + 1 / 3) / 2)


@pytest.mark.parametrize("metric", ALL)
def test_no_mask_and_no_map_are_nan_and_their_neighbour_is_not(metric) -> None:
    maps, masks = torch.randn(3, 2, *SHAPE), some_masks()
    masks[0] = False
    maps[1] = 0
    assert metric(maps, masks).isnan().tolist() == [True, True, False]


def test_a_mask_of_the_whole_image_leaves_nothing_over_chance() -> None:
    maps, masks = torch.randn(40, 2, *SHAPE), torch.ones(40, *SHAPE, dtype=torch.bool)
    assert relevance_mass(maps, masks).tolist() == pytest.approx([1.0] * 40)
    assert relevance_rank(maps, masks).tolist() == pytest.approx([1.0] * 40)
    assert relevance_mass_corrected(maps, masks).isnan().all()
    assert relevance_rank_corrected(maps, masks).isnan().all()


def test_pointing_is_a_hit_or_a_miss() -> None:
    weights = torch.tensor([[[9.0, 1.0], [3.0, 8.0]], [[1.0, 2.0], [6.0, 5.0]]], dtype=torch.float64)
    masks = torch.tensor([[[True, True], [False, True]], [[True, True], [False, True]]])
    assert pointing_game(signed(weights), masks).tolist() == [1.0, 0.0]


def test_pixels_that_tie_for_the_heaviest_share_the_hit() -> None:
    weights = torch.tensor([[[5.0, 5.0, 1.0, 5.0]]], dtype=torch.float64)
    masks = torch.tensor([[[False, True, True, True]]])
    assert pointing_game(signed(weights), masks).item() == pytest.approx(2 / 3)


def test_pointing_is_nan_without_a_mask_or_a_map() -> None:
    maps, masks = torch.randn(3, 2, *SHAPE), some_masks()
    masks[0] = False
    maps[1] = 0
    assert pointing_game(maps, masks).isnan().tolist() == [True, True, False]


def test_the_focus_is_the_share_of_what_is_positive_in_the_cell() -> None:
    """Cells of 1 x 2 pixels, two channels; the negative pixel counts for nothing."""
    first = torch.tensor([[[1.0, 2.0, -9.0, 0.0], [0.0, 0.0, 3.0, 0.0]], [[0.0, 0.0, 0.0, 1.0], [3.0, 0.0, 0.0, 0.0]]])
    maps, cells = first.expand(4, 2, 2, 4), torch.arange(4)
    assert mosaic_focus(maps, cells).tolist() == pytest.approx([0.3, 0.1, 0.3, 0.3])


def test_each_cell_is_where_it_is() -> None:
    maps = torch.zeros(4, 1, 4, 6, dtype=torch.float64)
    for cell, (down, right) in enumerate([(0, 0), (0, 3), (2, 0), (2, 3)]):
        maps[cell, 0, down + 1, right + 2] = 1
    for cell in range(4):
        found = mosaic_focus(maps, torch.full((4,), cell))
        assert found.tolist() == [float(cell == other) for other in range(4)]


def test_nothing_positive_has_no_focus() -> None:
    maps = torch.randn(2, 3, 4, 6)
    maps[0] = -maps[0].abs()
    assert mosaic_focus(maps, torch.tensor([0, 3])).isnan().tolist() == [True, False]
