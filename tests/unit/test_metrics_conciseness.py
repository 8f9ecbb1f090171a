"""Conciseness on maps whose concentration is known."""

from __future__ import annotations

import math

import pytest
import torch

from epsilens.metrics.conciseness import effective_fraction, gini

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


@pytest.mark.parametrize("metric", [gini, effective_fraction])
def test_an_all_zero_map_is_nan_and_its_neighbour_is_not(metric) -> None:
    maps = torch.randn(2, 3, 4, 5)
    maps[0] = 0
    assert metric(maps).isnan().tolist() == [True, False]
