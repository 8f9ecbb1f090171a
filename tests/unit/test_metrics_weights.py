"""Pixel weights, ranks and top sets, on mixed signs and ties."""

from __future__ import annotations

import math

import pytest
import torch

from epsilens.metrics.weights import ascending, directions, pixel_weights, ranks, shares, top


def test_a_pixel_weighs_the_sum_of_its_channels_magnitudes() -> None:
    maps = torch.tensor([[[[1.0, -2.0, 0.0]], [[-3.0, 0.5, 0.0]]]])  # [1, 2, 1, 3]
    weights = pixel_weights(maps)
    assert weights.dtype == torch.float64
    assert weights.tolist() == [[[4.0, 2.5, 0.0]]]


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_a_map_of_nothing_or_of_no_number_is_nan_throughout_and_alone(value: float) -> None:
    maps = torch.randn(3, 2, 3, 4)
    maps[1] = 0
    maps[1, 0, 0, 0] = value
    weights = pixel_weights(maps)
    assert weights[1].isnan().all()
    assert weights[[0, 2]].isfinite().all()


def test_directions_have_length_one_and_shares_sum_one() -> None:
    weights = torch.rand(4, 3, 5, dtype=torch.float64)
    assert directions(weights).square().sum(dim=1).tolist() == pytest.approx([1.0] * 4)
    assert shares(weights).sum(dim=1).tolist() == pytest.approx([1.0] * 4)


def test_ties_share_their_average_rank() -> None:
    values = torch.tensor([[3.0, -1.0, 3.0, 7.0, 3.0], [2.0, 1.0, 0.0, 0.0, 5.0]])
    assert ranks(values).tolist() == [[3.0, 1.0, 3.0, 5.0, 3.0], [4.0, 3.0, 1.5, 1.5, 5.0]]


def test_ranks_and_top_of_nan_are_nan() -> None:
    values = torch.stack([torch.full((4,), math.nan), torch.arange(4.0)])
    assert ranks(values).isnan().all(dim=1).tolist() == [True, False]
    assert top(values, torch.tensor([2, 2])).isnan().all(dim=1).tolist() == [True, False]


def test_values_that_tie_for_the_last_places_share_them() -> None:
    values = torch.tensor([[5.0, 1.0, 3.0, 3.0, 3.0], [1.0, 4.0, 2.0, 3.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    members = top(values, torch.tensor([2, 3, 2]))
    third = 1 / 3
    expected = [[1, 0, third, third, third], [0, 1, 1, 1, 0], [0.4] * 5]
    assert members.dtype == torch.float64
    torch.testing.assert_close(members, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("count", [0, 1, 6])
def test_top_sums_to_its_count(count: int) -> None:
    values = torch.tensor([[0.0, 2.0, 2.0, 1.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    assert top(values, torch.tensor([count, count])).sum(dim=1).tolist() == pytest.approx([count, count])


def test_ascending_is_torchs_order_and_leaves_its_argument() -> None:
    values = torch.randn(3, 2, 7, dtype=torch.float64)
    values[1, 0, 3] = torch.nan
    before = values.clone()
    torch.testing.assert_close(ascending(values), values.sort(dim=-1).values, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(values, before, rtol=0, atol=0, equal_nan=True)
