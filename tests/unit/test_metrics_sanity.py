"""Sanity and alignment, on maps whose likeness is known."""

from __future__ import annotations

import pytest
import torch

from epsilens.metrics.alignment import gradient_alignment, image_cosine
from epsilens.metrics.sanity import class_sensitivity, randomisation

SANITY = pytest.mark.parametrize("metric", [class_sensitivity, randomisation])


@SANITY
def test_the_same_order_has_one_and_the_reverse_minus_one(metric) -> None:
    a = torch.rand(2, 2, 3, 4, dtype=torch.float64)
    weights = a.sum(dim=1, keepdim=True)
    assert metric(a, -torch.cat([weights, weights**3], dim=1)).tolist() == pytest.approx([1.0, 1.0])
    assert metric(a, 1 / weights).tolist() == pytest.approx([-1.0, -1.0])


@SANITY
def test_unrelated_maps_have_zero(metric) -> None:
    assert metric(torch.randn(200, 3, 8, 9), torch.randn(200, 3, 8, 9)).mean().item() == pytest.approx(0, abs=0.03)


@SANITY
def test_nothing_and_a_constant_have_no_order_on_either_side(metric) -> None:
    a, b = torch.randn(5, 1, 3, 4), torch.randn(5, 1, 3, 4)
    a[0] = b[1] = 0
    a[2] = b[3] = -1
    assert metric(a, b).isnan().tolist() == [True, True, True, True, False]


def test_alignment_is_the_length_of_the_image_along_the_map() -> None:
    images = torch.tensor([[[[3.0, 0.0]], [[0.0, 4.0]]], [[[3.0, 0.0]], [[0.0, 4.0]]]]) / 5
    maps = torch.tensor([[[[-6.0, 0.0]], [[0.0, -8.0]]], [[[2.0, 1.0]], [[0.0, 2.0]]]])
    assert gradient_alignment(maps, images).tolist() == pytest.approx([1.0, (6 + 8) / 5 / 3])


def test_alignment_of_an_orthogonal_map_is_zero() -> None:
    images = torch.tensor([[[[0.5, 0.25]]]])
    assert gradient_alignment(torch.tensor([[[[-1.0, 2.0]]]]), images).item() == pytest.approx(0)


def test_the_cosine_does_not_see_brightness_and_contrast_of_each_channel() -> None:
    images = torch.rand(3, 2, 4, 5, dtype=torch.float64)
    middle = images - images.mean(dim=(2, 3), keepdim=True)
    assert image_cosine(-3 * middle, 0.5 * images).tolist() == pytest.approx([1.0] * 3)
    brighter = images + torch.tensor([0.3, -0.1], dtype=torch.float64).view(1, 2, 1, 1)
    maps = torch.randn(3, 2, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(image_cosine(maps, brighter), image_cosine(maps, images))
    assert (gradient_alignment(maps, brighter) - gradient_alignment(maps, images)).abs().min() > 1e-6


def test_the_cosine_by_hand() -> None:
    images = torch.tensor([[[[0.0, 1.0]]]], dtype=torch.float64)  # -1/2, 1/2
    assert image_cosine(torch.tensor([[[[3.0, -4.0]]]]), images).item() == pytest.approx(3.5 / 5 / 0.5**0.5)


def test_what_has_no_direction_is_nan() -> None:
    maps, images = torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    maps[0] = 0
    assert gradient_alignment(maps, images).isnan().tolist() == [True, False]
    assert image_cosine(maps, images).isnan().tolist() == [True, False]
    assert image_cosine(maps, torch.full((2, 3, 4, 5), 0.1)).isnan().all()
