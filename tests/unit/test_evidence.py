"""Removal paths of maps whose pixels tie: no position in the image is preferred."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from epsilens.metrics import score
from epsilens.metrics.evidence import Evidence

COUNT, HEIGHT, WIDTH = 60, 8, 6
ROAD = {"road_gap": {"fractions": [0.1, 0.3, 0.5, 0.7, 0.9]}}


def first_row(images: Tensor) -> Tensor:
    """Two classes, by the tilt of the first row: whatever goes there, the prediction goes."""
    tilt = images[:, 0, 0] @ torch.linspace(-1, 1, WIDTH)
    return torch.stack([tilt, -tilt], dim=1)


def last_row(images: Tensor) -> Tensor:
    return first_row(images.flip(2))


def gaps(maps: Tensor, predict: Callable[[Tensor], Tensor], batch_size: int = COUNT) -> Tensor:
    images = torch.rand(COUNT, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5))
    masks = torch.zeros(COUNT, HEIGHT, WIDTH, dtype=torch.bool)
    targets = predict(images).argmax(dim=1)
    one = Evidence(images, targets, maps, masks, torch.arange(COUNT), predict, lambda x, *_: x, batch_size)
    return score(one, ROAD)["road_gap"]


@pytest.mark.parametrize("predict", [first_row, last_row])
def test_a_constant_map_ranks_nothing_wherever_the_network_looks(predict: Callable[[Tensor], Tensor]) -> None:
    """In the order of the pixels it would have a mean gap of -0.5 for the first row and of 0.5 for the last."""
    found = gaps(torch.ones(COUNT, 1, HEIGHT, WIDTH), predict)
    assert found.mean().item() == pytest.approx(0, abs=0.2)  # more than three standard errors


def test_ties_are_drawn_for_each_image_and_do_not_depend_on_its_batch() -> None:
    maps = torch.ones(COUNT, 1, HEIGHT, WIDTH)
    maps[:, :, 3, 2] = 2
    found = gaps(maps, first_row)
    assert torch.equal(gaps(maps, first_row, batch_size=7), found)
    assert found.unique().numel() > 3


def test_pixels_that_differ_are_removed_in_their_order_whatever_is_drawn_for_the_ties_beside_them() -> None:
    first = torch.zeros(COUNT, 1, HEIGHT, WIDTH)
    first[:, :, 0] = 1 + torch.rand(COUNT, 1, WIDTH)
    assert gaps(first, first_row).mean() > 0.3
    assert gaps(1 + (first == 0).float(), first_row).mean() < -0.3
