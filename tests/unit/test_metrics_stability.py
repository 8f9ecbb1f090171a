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


# The relative forms. Weights 3, 4 at x: the norm is 5.

X = torch.tensor([[[[0.6, 0.8]]], [[[0.3, 0.4]]]], dtype=torch.float64)  # [2, 1, 1, 2]
A = torch.tensor([[[[3.0, -4.0]]], [[[-6.0, 8.0]]]], dtype=torch.float64)


def beside(*moves: float) -> Tensor:
    """A sample a move: the first weight grows by so much of the norm of the map."""
    step = torch.tensor([[[[1.0, 0.0]]], [[[-1.0, 0.0]]]], dtype=torch.float64)
    return torch.stack([A + move * torch.tensor([5.0, 10.0]).view(2, 1, 1, 1) * step for move in moves])


def shifted(*moves: float) -> Tensor:
    """A sample a move: the second pixel grows by so much of the norm of the image."""
    step = torch.tensor([[[[0.0, 1.0]]], [[[0.0, 0.5]]]], dtype=torch.float64)
    return torch.stack([X + move * step for move in moves])


def test_relative_input_stability_is_the_largest_quotient() -> None:
    near = shifted(0.1, 0.01, 0.5)
    found = stability.relative_input_stability(A, beside(0.1, 0.1, 3.0), all_kept(3, 2), X, near)
    assert found.tolist() == pytest.approx([1.0, 1.0])  # 1, 10 and 6
    two = stability.relative_input_stability(
        A, beside(0.1, 0.1, 3.0), torch.tensor([[1, 0], [0, 0], [1, 1]]) > 0, X, near
    )
    assert two.tolist() == pytest.approx([math.log10(6)] * 2)


def test_the_elementwise_form_divides_by_each_weight_and_takes_the_median() -> None:
    near = shifted(0.1, 0.01, 0.5)
    found = stability.relative_input_stability_elementwise(A, beside(0.1, 0.1, 3.0), all_kept(3, 2), X, near)
    quotients = [(0.1 * 5 / 3) / (0.1 / 0.8), (0.1 * 5 / 3) / (0.01 / 0.8), (3 * 5 / 3) / (0.5 / 0.8)]
    assert found.tolist() == pytest.approx([math.log10(sorted(quotients)[1])] * 2)


def test_weights_of_zero_and_black_values_are_left_out_of_the_elementwise_form() -> None:
    a, x = A.clone(), X.clone()
    a[0, 0, 0, 1] = x[1, 0, 0, 0] = 0
    perturbed, near = a[None] * torch.tensor([1.5, 9.0]), x[None] + 0.1
    perturbed[0, 0, 0, 0, 1] = 7.0
    near[0, 0, 0, 0, 0] = 0.6
    found = stability.relative_input_stability_elementwise(a, perturbed, all_kept(1, 2), x, near)
    assert found.tolist() == pytest.approx(
        [math.log10(0.5 / (0.1 / 0.8)), math.log10(math.hypot(0.5, 8) / (0.1 / 0.4))]
    )


LOGITS = torch.tensor([[1.0, 5.0], [0.0, 2.0]], dtype=torch.float64)  # the spread is sqrt(8), sqrt(2)


def test_relative_output_stability_is_the_quotient_with_the_spread_of_the_logits() -> None:
    near = LOGITS + torch.tensor([[[0.8, 0.0], [0.0, 0.1]]], dtype=torch.float64)
    found = stability.relative_output_stability(A, beside(0.2), all_kept(1, 2), LOGITS, near)
    expected = [0.2 / (0.8 / math.sqrt(8)), 0.2 / (0.1 / math.sqrt(2))]
    assert found.tolist() == pytest.approx([math.log10(e) for e in expected])
    again = stability.relative_output_stability(A, beside(0.2), all_kept(1, 2), 7 * LOGITS - 3, 7 * near - 3)
    assert again.tolist() == pytest.approx(found.tolist())


@pytest.mark.parametrize("classes", [3, 10, 49])
def test_equal_logits_have_no_spread_whatever_their_mean_is_rounded_to(classes: int) -> None:
    """In float64 the mean of three tenths is not a tenth."""
    logits = torch.full((2, classes), 0.1, dtype=torch.float64)
    near = logits + torch.rand(1, 2, classes, dtype=torch.float64)
    assert stability.relative_output_stability(A, beside(0.2), all_kept(1, 2), logits, near).isnan().all()


def test_a_map_that_does_not_move_counts_as_moved_by_what_float32_resolves() -> None:
    found = stability.relative_input_stability(A, beside(1e-12), all_kept(1, 2), X, shifted(0.1))
    moved = stability.relative_input_stability(A, beside(0.2), all_kept(1, 2), X, shifted(0.1))
    expected = [value + math.log10(torch.finfo(torch.float32).eps / 0.2) for value in moved.tolist()]
    assert found.tolist() == pytest.approx(expected)


def test_the_original_rises_by_one_when_the_logits_shrink_tenfold() -> None:
    near = LOGITS + torch.tensor([[[0.8, 0.0], [0.0, 0.1]]], dtype=torch.float64)
    found = stability.relative_output_stability_original(A, beside(0.2), all_kept(1, 2), LOGITS, near)
    assert found.tolist() == pytest.approx([math.log10(0.2 * 5 / 3 / 0.8), math.log10(0.2 * 5 / 3 / 0.1)])
    small = stability.relative_output_stability_original(A, beside(0.2), all_kept(1, 2), LOGITS / 10, near / 10)
    assert small.tolist() == pytest.approx([value + 1 for value in found.tolist()])


def test_logits_that_stay_count_as_moved_by_tau_and_in_the_original_not_at_all() -> None:
    near = LOGITS[None]
    found = stability.relative_output_stability(A, beside(0.2), all_kept(1, 2), LOGITS, near)
    assert found.tolist() == pytest.approx([math.log10(0.2 / stability.SAME_OUTPUT)] * 2)
    assert stability.relative_output_stability_original(A, beside(0.2), all_kept(1, 2), LOGITS, near).isnan().all()
    assert torch.finfo(torch.float16).eps == stability.SAME_OUTPUT  # TensorFloat-32 has as many digits
    flat = torch.full_like(LOGITS, 3.0)
    assert stability.relative_output_stability(A, beside(0.2), all_kept(1, 2), flat, near).isnan().all()


RELATIVE = [
    (stability.relative_input_stability, (X, shifted(0.1, 0.1))),
    (stability.relative_input_stability_elementwise, (X, shifted(0.1, 0.1))),
    (stability.relative_output_stability, (LOGITS, LOGITS + torch.rand(2, 2, 2))),
    (stability.relative_output_stability_original, (LOGITS, LOGITS + torch.rand(2, 2, 2))),
]


@pytest.mark.parametrize(("metric", "rest"), RELATIVE)
def test_a_map_that_stays_has_a_finite_floor(metric, rest: tuple[Tensor, Tensor]) -> None:
    found = metric(A, A.expand(2, *A.shape), all_kept(2, 2), *rest)
    assert found.isfinite().all()
    assert (found < -3).all()


@pytest.mark.parametrize(("metric", "rest"), RELATIVE)
def test_relative_forms_leave_out_what_flipped_and_are_nan_for_nothing(metric, rest: tuple[Tensor, Tensor]) -> None:
    perturbed = beside(0.3, 0.4)
    perturbed[1, 0] = math.nan
    kept = torch.tensor([[True, False], [False, False]])
    found = metric(A, perturbed, kept, *rest)
    assert found.isnan().tolist() == [False, True]
    assert metric(A, perturbed, all_kept(2, 2), *rest).isnan().tolist() == [True, False]
    assert metric(0 * A, beside(0.3, 0.4), all_kept(2, 2), *rest).isnan().all()


def test_a_black_image_has_no_relative_input_stability() -> None:
    for metric in (stability.relative_input_stability, stability.relative_input_stability_elementwise):
        assert metric(A, beside(0.3), all_kept(1, 2), 0 * X, shifted(0.1)).isnan().all()


def test_under_attack_it_is_the_direction_sensitivity_of_one_neighbour() -> None:
    a, perturbed = torch.randn(3, 2, 4, 5), torch.randn(1, 3, 2, 4, 5)
    kept = torch.tensor([[True, False, True]])
    found = stability.adversarial_stability(a, perturbed, kept)
    expected = stability.direction_sensitivity(a, perturbed, kept)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found.isnan().tolist() == [False, True, False]
