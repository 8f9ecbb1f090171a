"""Stability on maps whose distance is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from epsilens.metrics import stability

COMPARING = (
    stability.direction_sensitivity,
    stability.direction_sensitivity_max,
    stability.rank_stability,
    stability.top_stability,
)
SAME = {
    stability.direction_sensitivity: 0.0,
    stability.direction_sensitivity_max: 0.0,
    stability.rank_stability: 1.0,
    stability.top_stability: 1.0,
}


def maps(*rows: list[float]) -> Tensor:
    """Maps `[N, 2, 2, n / 2]` of mixed signs with these pixel weights."""
    weights = torch.tensor(rows, dtype=torch.float64).view(len(rows), 1, 2, -1)
    return torch.cat([-0.5 * weights, 0.5 * weights], dim=1)


def all_kept(samples: int, images: int) -> Tensor:
    return torch.ones(samples, images, dtype=torch.bool)


@pytest.mark.parametrize("metric", COMPARING)
def test_multiples_of_a_map_are_the_same_map(metric) -> None:
    a = torch.randn(3, 2, 4, 5, dtype=torch.float64)
    perturbed = torch.stack([4 * a, -0.5 * a])
    assert metric(a, perturbed, all_kept(2, 3)).tolist() == pytest.approx([SAME[metric]] * 3, abs=1e-12)


def test_maps_without_a_common_pixel_are_sqrt_two_apart() -> None:
    a, b = maps([3, 0, 1, 0], [0, 0, 0, 2]), maps([0, 1, 0, 5], [1, 1, 1, 0])
    far = stability.direction_sensitivity(a, b[None], all_kept(1, 2))
    assert far.tolist() == pytest.approx([math.sqrt(2)] * 2)


def test_the_distance_is_that_of_the_angle() -> None:
    a, near, far = maps([1, 0, 0, 0]), maps([4, 0, 0, 3]), maps([0, 0, 2, 0])
    perturbed = torch.stack([near, far, a])
    chord = math.sqrt(2 - 2 * 0.8)
    mean = stability.direction_sensitivity(a, perturbed, all_kept(3, 1))
    largest = stability.direction_sensitivity_max(a, perturbed[[0, 2]], all_kept(2, 1))
    assert mean.item() == pytest.approx((chord + math.sqrt(2)) / 3)
    assert largest.item() == pytest.approx(chord)


def test_a_reversed_order_has_minus_one_and_ties_average() -> None:
    a = maps([4, 1, 3, 2], [1, 2, 2, 3])
    perturbed = maps([1, 4, 2, 3], [5, 6, 7, 8])[None]
    tied = 4.5 / math.sqrt(4.5 * 5)  # ranks 1, 2.5, 2.5, 4 with 1, 2, 3, 4
    scores = stability.rank_stability(a, perturbed, all_kept(1, 2))
    assert scores.tolist() == pytest.approx([-1.0, tied])


def test_ranks_do_not_see_a_monotone_change_and_directions_do() -> None:
    a = torch.randn(2, 1, 3, 4, dtype=torch.float64)
    assert stability.rank_stability(a, a[None] ** 3, all_kept(1, 2)).tolist() == pytest.approx([1.0, 1.0])
    assert (stability.direction_sensitivity(a, a[None] ** 3, all_kept(1, 2)) > 0.1).all()


def test_a_constant_map_has_no_order() -> None:
    a = maps([1, 1, 1, 1], [1, 2, 3, 4])
    assert stability.rank_stability(a, a[None], all_kept(1, 2)).isnan().tolist() == [True, False]


def test_the_top_tenth_of_twenty_pixels_is_two() -> None:
    a, half, none = torch.zeros(3, 1, 1, 4, 5, dtype=torch.float64)
    a[0, 0, 0, :3] = torch.tensor([7.0, 9.0, 1.0])
    half[0, 0, 0, 1:4] = torch.tensor([5.0, 3.0, 1.0])
    none[0, 0, 3, :3] = torch.tensor([5.0, 3.0, 1.0])
    scores = [stability.top_stability(a, b[None], all_kept(1, 1)).item() for b in (half, none)]
    assert scores == pytest.approx([0.5, 0.0])


def test_the_top_tenth_of_few_pixels_is_one() -> None:
    a, b = maps([1, 9, 3, 2]), maps([1, 4, 2, 3])
    assert stability.top_stability(a, b[None], all_kept(1, 1)).item() == 1.0


def test_random_maps_share_a_tenth_of_their_top() -> None:
    a, perturbed = torch.rand(50, 1, 20, 20), torch.rand(20, 50, 1, 20, 20)
    scores = stability.top_stability(a, perturbed, all_kept(20, 50))
    assert scores.mean().item() == pytest.approx(stability.TOP, abs=0.01)


@pytest.mark.parametrize("metric", COMPARING)
def test_a_flipped_sample_is_left_out_singly(metric) -> None:
    a = torch.randn(3, 2, 4, 5, dtype=torch.float64)
    perturbed = torch.randn(3, 3, 2, 4, 5, dtype=torch.float64)
    perturbed[1, 0] = math.nan  # whatever a flipped sample holds, it is not looked at
    kept = torch.tensor([[True, False, True], [False, False, True], [True, False, True]])
    scores = metric(a, perturbed, kept)
    first = metric(a[:1], perturbed[[0, 2], :1], all_kept(2, 1))
    last = metric(a[2:], perturbed[:, 2:], all_kept(3, 1))
    torch.testing.assert_close(scores[[0, 2]], torch.cat([first, last]))
    assert scores[1].isnan()


@pytest.mark.parametrize("metric", COMPARING)
def test_an_all_zero_map_is_nan_on_either_side(metric) -> None:
    a, perturbed = torch.randn(3, 2, 4, 5), torch.randn(2, 3, 2, 4, 5)
    a[0] = 0
    perturbed[1, 1] = 0
    assert metric(a, perturbed, all_kept(2, 3)).isnan().tolist() == [True, True, False]


def test_retention_is_the_share_of_samples_that_did_not_flip() -> None:
    kept = torch.tensor([[True, False, True], [True, False, False], [True, False, True], [True, False, False]])
    a = torch.randn(3, 1, 2, 3)
    assert stability.retention(a, a.expand(4, *a.shape), kept).tolist() == [1.0, 0.0, 0.5]
