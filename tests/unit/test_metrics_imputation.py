"""Imputation, by both of its solvers: against a sparse system written out pixel by pixel and solved by scipy, and on images
whose answer is known."""

from __future__ import annotations

import pytest
import torch
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor

from epsilens.metrics import imputation
from epsilens.metrics.imputation import impute


@pytest.fixture(params=["by_band", "by_elimination"], autouse=True)
def solver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test is run with either solver where a CPU has the first."""
    monkeypatch.setattr(imputation, "by_band", getattr(imputation, request.param))
    return request.param


def weight(down: int, right: int) -> float:
    return {1: 1 / 6, 2: 1 / 12}[abs(down) + abs(right)]


def solved(image: Tensor, removed: Tensor) -> Tensor:
    """One image `[C, H, W]`: every removed pixel is the weighted mean of its neighbours, every other one is itself."""
    channels, height, width = image.shape
    entries = [(k, k, 1.0) for k in range(height * width)]  # row, column, value
    right = image.reshape(channels, -1).T.clone()
    steps = [(d, r) for d in (-1, 0, 1) for r in (-1, 0, 1) if (d, r) != (0, 0)]
    for i, j in removed.nonzero().tolist():
        inside = [(i + d, j + r, weight(d, r)) for d, r in steps if 0 <= i + d < height and 0 <= j + r < width]
        total = sum(w for *_, w in inside)
        right[i * width + j] = 0
        entries += [(i * width + j, y * width + x, -w / total) for y, x, w in inside]
    rows, columns, values = zip(*entries, strict=True)
    found = spsolve(csc_matrix((values, (rows, columns))), right.numpy())
    return torch.from_numpy(found.reshape(height, width, channels)).permute(2, 0, 1)


def expected(images: Tensor, removed: Tensor) -> Tensor:
    return torch.stack([solved(image, gone) for image, gone in zip(images, removed, strict=True)])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(5, 7), (7, 4), (1, 6), (6, 1), (9, 16)])
def test_it_solves_the_system(share: float, channels: int, shape: tuple[int, int]) -> None:
    images = torch.rand(4, channels, *shape, dtype=torch.float64)
    removed = torch.rand(4, *shape) < share
    removed[:, 0, 0] = False
    removed[3] = False  # beside others of which something is removed
    torch.testing.assert_close(impute(images, removed), expected(images, removed), rtol=0, atol=1e-10)


def blob(side: int, share: float) -> Tensor:
    """The pixels about the middle, as a map removes them: the farthest from what is known are far from it."""
    place = torch.arange(side, dtype=torch.float64) - side / 2
    far = (place[:, None].square() + place.square()).flatten()
    return (far.argsort().argsort() < share * side * side).view(side, side)


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_it_solves_the_system_of_a_large_image_in_one_piece(share: float) -> None:
    images, removed = torch.rand(1, 3, 128, 128), blob(128, share)[None]
    torch.testing.assert_close(impute(images, removed).double(), expected(images.double(), removed), rtol=0, atol=1e-7)


def test_an_image_does_not_depend_on_those_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    images, removed = torch.rand(7, 3, 6, 5), torch.rand(7, 6, 5) < torch.linspace(0.2, 1, 7).view(-1, 1, 1)
    together = impute(images, removed)
    for factors in (8 * 6 * 5 * 5 * 2, 1):  # two images at a time; fewer bytes than one needs
        monkeypatch.setattr(imputation, "FACTORS", factors)
        assert torch.equal(impute(images, removed), together)
    alone = [impute(images[i : i + 1], removed[i : i + 1]) for i in range(7)]
    assert torch.equal(torch.cat(alone), together)
    assert impute(images[:0], removed[:0]).shape == (0, 3, 6, 5)


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


def test_a_cpu_solves_by_band(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(imputation, "by_elimination")
    removed = torch.eye(4, dtype=torch.bool)[None]
    torch.testing.assert_close(impute(torch.ones(1, 1, 4, 4), removed), torch.ones(1, 1, 4, 4))
