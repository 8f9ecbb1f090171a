"""Mosaics: who is beside whom, and where."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from epsilens.errors import DataError, NumericError
from epsilens.metrics import score
from epsilens.metrics.evidence import Evidence
from epsilens.metrics.mosaics import cells, partners, tiled
from epsilens.randomness import noise_seeds

COUNT, HEIGHT, WIDTH = 40, 4, 6
SEEDS = noise_seeds(0, torch.arange(COUNT))
CLASSES = torch.arange(COUNT) % 5


def test_partners_are_of_three_other_classes() -> None:
    found = partners(CLASSES, SEEDS)
    classes = torch.cat([CLASSES[:, None], CLASSES[found]], dim=1)
    assert all(len(set(row)) == 4 for row in classes.tolist())
    assert found.unique().numel() > 20  # not always the same ones
    assert len({tuple(row) for row in found.tolist()}) > 20


def test_partners_do_not_depend_on_the_order() -> None:
    order = torch.randperm(COUNT)
    assert torch.equal(SEEDS[order][partners(CLASSES[order], SEEDS[order])], SEEDS[partners(CLASSES, SEEDS)][order])


def test_four_classes_are_enough() -> None:
    found = partners(CLASSES % 4, SEEDS)
    assert all(len(set(row)) == 4 for row in torch.cat([CLASSES[:, None] % 4, (CLASSES % 4)[found]], dim=1).tolist())


def test_three_classes_are_not_enough() -> None:
    assert (partners(CLASSES.clamp(max=2), SEEDS) == -1).all()
    assert partners(CLASSES[:0], SEEDS[:0]).shape == (0, 3)


def test_every_cell_is_drawn() -> None:
    assert cells(SEEDS).bincount(minlength=4).min() >= 4


def test_the_image_is_in_its_cell_and_its_partners_are_in_the_others() -> None:
    images, others = torch.rand(4, 2, HEIGHT, WIDTH), torch.rand(4, 3, 2, HEIGHT, WIDTH)
    mosaics = tiled(images, others, torch.arange(4))
    corners = [(0, 0), (0, WIDTH), (HEIGHT, 0), (HEIGHT, WIDTH)]
    for row in range(4):
        shown = [mosaics[row, :, y : y + HEIGHT, x : x + WIDTH] for y, x in corners]
        assert torch.equal(shown.pop(row), images[row])
        for other in others[row]:
            assert sum(torch.equal(picture, other) for picture in shown) == 1


def colours(images: Tensor) -> Tensor:
    """A class a channel: whichever is brightest on average. It takes any size."""
    return images.mean(dim=(2, 3))


def own_colour(images: Tensor, targets: Tensor, _seeds: Tensor) -> Tensor:
    """All of the explained class's channel that is bright: a perfect map in a mosaic."""
    wanted = nn.functional.one_hot(targets, images.shape[1])[:, :, None, None]
    return (images > 0.5).float() * wanted


def evidence(**changes) -> Evidence:
    images = 0.2 * torch.rand(COUNT, 5, HEIGHT, WIDTH)
    images[torch.arange(COUNT), CLASSES] = 0.9
    masks = torch.zeros(COUNT, HEIGHT, WIDTH, dtype=torch.bool)
    one = Evidence(images, CLASSES, torch.rand(images.shape), masks, SEEDS, colours, own_colour, 16)
    return replace(one, **changes)


def test_a_map_of_the_class_alone_has_one_and_a_map_of_everything_a_quarter() -> None:
    asked = {"mosaic_focus": {}}
    assert score(evidence(), asked)["mosaic_focus"].tolist() == [1.0] * COUNT
    flat = evidence(explain=lambda images, *_: torch.ones_like(images))
    assert score(flat, asked)["mosaic_focus"].tolist() == pytest.approx([0.25] * COUNT)


def test_a_part_takes_its_partners_from_the_whole_and_is_no_larger_than_a_batch() -> None:
    shown: list[Tensor] = []

    def watch(images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        shown.append(images)
        return own_colour(images, targets, seeds)

    for batch_size in (4, 16, 100):
        score(evidence(explain=watch, batch_size=batch_size), {"mosaic_focus": {}})
        assert {len(images) * 4 <= max(4, batch_size) for images in shown} == {True}
        shown.clear()
    one = evidence(explain=lambda x, *_: x)
    scores = [score(replace(one, batch_size=size), {"mosaic_focus": {}}) for size in (3, COUNT)]
    torch.testing.assert_close(scores[0]["mosaic_focus"], scores[1]["mosaic_focus"], rtol=0, atol=1e-12)


def test_a_network_of_a_fixed_size_has_no_focus() -> None:
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(5 * HEIGHT * WIDTH, 5))
    assert score(evidence(predict=fixed), {"mosaic_focus": {}})["mosaic_focus"].isnan().all()


def test_a_method_of_a_fixed_size_has_no_focus_and_other_errors_are_errors() -> None:
    def fixed(images: Tensor, *_: Tensor) -> Tensor:
        return images - torch.zeros(1, 5, HEIGHT, WIDTH)

    def referring(images: Tensor, *_: Tensor) -> Tensor:
        if images.shape[2:] != (HEIGHT, WIDTH):
            raise DataError("references of another shape")
        return images

    def broken(images: Tensor, *_: Tensor) -> Tensor:
        raise NumericError("NaN")

    assert score(evidence(explain=referring), {"mosaic_focus": {}})["mosaic_focus"].isnan().all()
    assert score(evidence(explain=fixed), {"mosaic_focus": {}})["mosaic_focus"].isnan().all()
    with pytest.raises(NumericError):
        score(evidence(explain=broken), {"mosaic_focus": {}})


def test_too_few_classes_have_no_focus() -> None:
    assert score(evidence(targets=CLASSES % 3), {"mosaic_focus": {}})["mosaic_focus"].isnan().all()
