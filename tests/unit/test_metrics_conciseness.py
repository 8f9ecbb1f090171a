"""Conciseness on maps whose concentration is known."""

from __future__ import annotations

import math

import pytest
import torch

from epsilens.metrics.conciseness import effective_fraction, gini, gini_all_channels, gini_positive, regional_gini

SIZE = 3 * 5


def spread(*counts: int) -> torch.Tensor:
    """One map `[2, 3, 5]` a count: that many pixels, in random places and with random signs, weigh the same."""
    maps = torch.zeros(len(counts), 2, SIZE, dtype=torch.float64)
    for row, count in enumerate(counts):
        places = torch.randperm(SIZE)[:count]
        maps[row, row % 2, places] = (-1.0) ** torch.arange(count, dtype=torch.float64)
    return maps.view(-1, 2, 3, 5)


def test_equal_weights_on_m_of_n_pixels() -> None:
    counts = (1, 4, 15, 9)
    maps = spread(*counts)
    assert gini(maps).tolist() == pytest.approx([1 - m / SIZE for m in counts])
    assert effective_fraction(maps).tolist() == pytest.approx([m / SIZE for m in counts])


def test_gini_of_unsorted_values_is_half_the_relative_mean_difference() -> None:
    maps = torch.randn(3, 2, 4, 3, dtype=torch.float64)
    weights = maps.abs().sum(dim=1).flatten(1)
    differences = (weights[:, :, None] - weights[:, None, :]).abs().mean(dim=(1, 2))
    torch.testing.assert_close(gini(maps), differences / (2 * weights.mean(dim=1)))


def test_effective_fraction_of_two_unequal_pixels() -> None:
    maps = torch.tensor([[[[-3.0, 0.0], [0.0, 1.0]]], [[[0.0, 1.0], [-1.0, 0.0]]]], dtype=torch.float64)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_fraction(maps).tolist() == pytest.approx([math.exp(entropy) / 4, 0.5])


def test_the_floor_of_gini_is_that_of_gaussian_noise_in_three_channels() -> None:
    assert gini(torch.randn(20, 3, 32, 32)).mean().item() == pytest.approx(0.24, abs=0.005)


def test_the_modes_of_gini_on_four_values() -> None:
    """Two channels, two pixels: |g| is 1, 3, 0, 4; the positive part 1, 0, 0, 4; pixels weigh 1 and 7."""
    maps = torch.tensor([[[[1.0, -3.0]], [[0.0, 4.0]]], [[[0.0, 0.0]], [[0.0, 2.0]]]], dtype=torch.float64)
    assert gini_all_channels(maps).tolist() == pytest.approx([(-3 * 0 - 1 + 3 + 3 * 4) / (4 * 8), 3 / 4])
    assert gini_positive(maps).tolist() == pytest.approx([(-3 * 0 - 0 + 1 + 3 * 4) / (4 * 5), 3 / 4])
    assert gini(maps).tolist() == pytest.approx([(7 - 1) / (2 * 8), 1 / 2])


@pytest.mark.parametrize(("metric", "floor"), [(gini_all_channels, 0.414), (gini_positive, 0.707)])
def test_the_floors_of_the_modes(metric, floor: float) -> None:
    assert metric(torch.randn(20, 3, 32, 32)).mean().item() == pytest.approx(floor, abs=0.005)


def test_the_floor_of_regions_of_4_x_4() -> None:
    assert regional_gini(torch.randn(50, 3, 32, 32), 4).mean().item() == pytest.approx(0.061, abs=0.004)


def test_a_map_without_a_positive_value_has_no_positive_part() -> None:
    maps = torch.randn(2, 3, 4, 5)
    maps[0] = -maps[0].abs()
    assert gini_positive(maps).isnan().tolist() == [True, False]


def test_regions_of_one_pixel_are_pixels_and_one_region_is_everything() -> None:
    maps = torch.randn(3, 2, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(regional_gini(maps, 1), gini(maps))
    assert regional_gini(maps, 6).tolist() == pytest.approx([0.0] * 3)


def test_regions_are_summed() -> None:
    """Blocks of 2 x 2 that weigh 10, 0, 2, 0, 0, 4, whatever lies where in them."""
    maps = torch.zeros(1, 1, 4, 6, dtype=torch.float64)
    maps[0, 0, 0, 0], maps[0, 0, 1, 1], maps[0, 0, 0, 5], maps[0, 0, 3, 4] = 4, -6, 2, -4
    ordered, place = [0, 0, 0, 2, 4, 10], [-5, -3, -1, 1, 3, 5]
    expected = sum(p * v for p, v in zip(place, ordered, strict=True)) / (6 * 16)
    assert regional_gini(maps, 2).item() == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(5, 7), (4, 5), (3, 3)])
def test_a_block_that_the_border_cuts_is_no_lighter(shape: tuple[int, int]) -> None:
    assert regional_gini(torch.full((1, 2, *shape), -3.0), 2).item() == pytest.approx(0, abs=1e-12)


def by_fours(attributions: torch.Tensor) -> torch.Tensor:
    return regional_gini(attributions, 4)


@pytest.mark.parametrize("metric", [gini, effective_fraction, gini_all_channels, gini_positive, by_fours])
def test_an_all_zero_map_is_nan_and_its_neighbour_is_not(metric) -> None:
    maps = torch.randn(2, 3, 4, 5)
    maps[0] = 0
    assert metric(maps).isnan().tolist() == [True, False]
