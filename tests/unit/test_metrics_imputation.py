"""Imputation against a dense system written out pixel by pixel, and on images whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from epsilens.metrics.imputation import impute


def weight(down: int, right: int) -> float:
    return {1: 1 / 6, 2: 1 / 12}[abs(down) + abs(right)]


def solved_densely(image: Tensor, removed: Tensor) -> Tensor:
    """One image `[C, H, W]`: every removed pixel is the weighted mean of its neighbours."""
    channels, height, width = image.shape
    matrix = torch.eye(height * width, dtype=torch.float64)
    right = image.reshape(channels, -1).T.clone()
    steps = [(d, r) for d in (-1, 0, 1) for r in (-1, 0, 1) if (d, r) != (0, 0)]
    for i, j in removed.nonzero().tolist():
        inside = [(i + d, j + r, weight(d, r)) for d, r in steps if 0 <= i + d < height and 0 <= j + r < width]
        total = sum(w for *_, w in inside)
        right[i * width + j] = 0
        for y, x, w in inside:
            matrix[i * width + j, y * width + x] = -w / total
    return torch.linalg.solve(matrix, right).T.view_as(image)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(5, 7), (7, 4), (1, 6), (6, 1)])
def test_it_solves_the_system(share: float, shape: tuple[int, int]) -> None:
    images = torch.rand(4, 3, *shape, dtype=torch.float64)
    removed = torch.rand(4, *shape) < share
    removed[:, 0, 0] = False
    expected = torch.stack([solved_densely(image, gone) for image, gone in zip(images, removed, strict=True)])
    torch.testing.assert_close(impute(images, removed), expected, rtol=0, atol=1e-10)


def test_one_removed_pixel_is_the_mean_of_its_neighbours() -> None:
    image = torch.tensor([[[[6.0, 12.0, 0.0], [18.0, 99.0, 24.0], [0.0, 30.0, 36.0]]]], dtype=torch.float64)
    middle, corner = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    middle[0, 1, 1] = corner[0, 0, 0] = True
    direct, diagonal = (12 + 18 + 24 + 30) / 6, (6 + 36) / 12
    assert impute(image, middle)[0, 0, 1, 1].item() == pytest.approx(direct + diagonal)
    assert impute(image, corner)[0, 0, 0, 0].item() == pytest.approx(((12 + 18) / 6 + 99 / 12) / (5 / 12))


def test_a_removed_interior_of_a_ramp_comes_back() -> None:
    ramp = torch.arange(7, dtype=torch.float64) - 2 * torch.arange(5, dtype=torch.float64)[:, None]
    removed = torch.zeros(1, 5, 7, dtype=torch.bool)
    removed[0, 1:-1, 1:-1] = True
    torch.testing.assert_close(impute(ramp[None, None], removed)[0, 0], ramp)


def test_kept_pixels_and_arguments_are_untouched() -> None:
    images, removed = torch.rand(3, 2, 4, 5), torch.rand(3, 4, 5) < 0.5
    before = images.clone(), removed.clone()
    filled = impute(images, removed)
    assert filled.dtype == images.dtype
    assert torch.equal(filled.masked_select(~removed[:, None]), images.masked_select(~removed[:, None]))
    assert torch.equal(images, before[0])
    assert torch.equal(removed, before[1])


@pytest.mark.parametrize("shape", [(4, 5), (1, 2), (1, 1)])
def test_an_image_without_a_known_pixel_becomes_its_mean_colour(shape: tuple[int, int]) -> None:
    images, removed = torch.rand(2, 3, *shape), torch.zeros(2, *shape, dtype=torch.bool)
    removed[0] = True
    filled = impute(images, removed)
    torch.testing.assert_close(filled[0], images[0].mean(dim=(1, 2), keepdim=True).expand(3, *shape))
    assert torch.equal(filled[1], images[1])
