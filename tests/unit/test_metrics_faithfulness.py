"""Areas under paths and infidelity, on numbers whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from epsilens.metrics.faithfulness import deletion_auc, infidelity, insertion_auc, road_gap

AREAS = pytest.mark.parametrize("area", [deletion_auc, insertion_auc])


def test_the_gap_is_the_mean_difference() -> None:
    least = torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    most = torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    assert road_gap(least, most).tolist() == [0.5, -0.5]


@AREAS
def test_a_path_that_stays_has_one_and_a_path_that_falls_at_once_little(area) -> None:
    clean = torch.tensor([0.8, 0.5], dtype=torch.float64)
    path = torch.stack([torch.tensor([0.8, 0.0]), torch.tensor([0.8, 0.0])]).double()
    assert area(torch.tensor([0.2, 0.5]), path, clean).tolist() == pytest.approx([1.0, 0.5 * 0.2 / 0.5])


@AREAS
def test_a_straight_path_has_half(area) -> None:
    q = torch.tensor([0.1, 0.3, 0.4, 0.8])
    clean = torch.tensor([0.9], dtype=torch.float64)
    path = (1 - q / 0.8).double()[:, None] * clean
    assert area(q, path, clean).item() == pytest.approx(0.5, abs=1e-6)
    order = torch.tensor([2, 0, 3, 1])
    assert area(q[order], path[order], clean).item() == pytest.approx(0.5, abs=1e-6)


@AREAS
def test_one_fraction_is_a_trapezoid_and_nan_stays(area) -> None:
    clean = torch.tensor([0.4, 0.4], dtype=torch.float64)
    found = area(torch.tensor([0.5]), torch.tensor([[0.2, math.nan]], dtype=torch.float64), clean)
    assert found[0].item() == pytest.approx(0.75)
    assert found[1].isnan()


def test_infidelity_by_hand() -> None:
    z = torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]], dtype=torch.float64)
    d = torch.tensor([[3.0, 0.0, 1.0], [6.0, 5.0, 3.0]], dtype=torch.float64)
    assert infidelity(z, d).tolist() == pytest.approx([0.0, 1.0, 1 - (4 / 2) ** 2 / (1 * 10 / 2)])


def test_infidelity_sees_neither_scale_however_small() -> None:
    z, d = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    torch.testing.assert_close(infidelity(-1e-200 * z, 1e-180 * d), infidelity(z, d))


def test_infidelity_of_a_perfect_map_is_never_below_zero() -> None:
    d = torch.randn(7, 2000, dtype=torch.float64)
    assert infidelity(d / 3, d).min() == 0


def test_infidelity_of_noise_is_near_one_less_one_over_the_samples() -> None:
    found = infidelity(torch.randn(8, 4000), torch.randn(8, 4000))
    assert found.mean().item() == pytest.approx(1 - 1 / 8, abs=0.01)


def test_infidelity_is_nan_where_map_or_network_say_nothing() -> None:
    z, d = torch.randn(5, 3), torch.randn(5, 3)
    z[:, 0] = 0
    d[:, 1] = 0
    assert infidelity(z, d).isnan().tolist() == [True, True, False]
