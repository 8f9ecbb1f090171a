"""The embedded data set: what it promises about shapes, masks and the cue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from epsilens import data
from epsilens.data import shapes
from epsilens.data.config import DataConfig
from epsilens.data.source import Source
from epsilens.errors import ConfigError

OPTIONS: dict[str, Any] = {
    "train": 400,
    "test": 200,
    "size": 32,
    "shape_reliability": 0.8,
    "cue_reliability": 1.0,
    "cue_amplitude_255": 4.0,
    "cue_period": 3.0,
    "noise_255": 1.0,
    "seed": 0,
}


def make(**changes: Any) -> Source:
    return shapes.load(Path(), **{**OPTIONS, **changes})


@pytest.fixture(scope="module")
def source() -> Source:
    return make()


def test_shapes_and_types(source: Source) -> None:
    assert source.test is not None
    assert source.train.images.shape == (400, 3, 32, 32)
    assert source.train.images.dtype == torch.uint8
    assert source.test.masks.shape == (200, 32, 32)
    assert torch.bincount(source.train.labels).tolist() == [40] * 10
    assert len(source.class_names) == 10


def test_the_seed_decides_every_byte(source: Source) -> None:
    again, other = make(), make(seed=1)
    assert torch.equal(source.train.images, again.train.images)
    assert not torch.equal(source.train.images, other.train.images)
    assert not torch.equal(source.train.images[:200], source.test.images)


def test_masks_hold_one_visible_object_inside_the_image(source: Source) -> None:
    area = source.train.masks.flatten(1).double().mean(dim=1)
    assert area.min() > 0.02
    assert area.max() < 0.45
    edge = source.train.masks.clone()
    edge[:, 1:-1, 1:-1] = False
    assert edge.flatten(1).any(dim=1).double().mean() < 0.05
    images = make(noise_255=0.0, cue_amplitude_255=0.0).train.pixels()
    masks = source.train.masks[:, None]
    inside = (images * masks).sum((2, 3)) / masks.sum((2, 3))
    outside = (images * ~masks).sum((2, 3)) / (~masks).sum((2, 3))
    assert ((inside - outside).abs().amax(dim=1) > 16 / 255).double().mean() > 0.99


def test_without_cue_differs_by_the_cue_alone(source: Source) -> None:
    assert source.test is not None
    plain = source.extras["test_without_cue"]
    assert torch.equal(plain.labels, source.test.labels)
    assert torch.equal(plain.masks, source.test.masks)
    change = (source.test.images.int() - plain.images.int()).abs()
    assert change.max() == 4
    assert change.double().mean() == pytest.approx(4 * 2 / torch.pi, rel=0.1)  # mean of |sin|


def grating_labels(difference: torch.Tensor) -> torch.Tensor:
    """The class whose orientation explains most of each difference [N, H, W]."""
    axis = torch.arange(32.0)
    energies = []
    for label in range(10):
        angle = torch.tensor(torch.pi * label / 10)
        along = 2 * torch.pi / 3 * (angle.cos() * axis[None, :] + angle.sin() * axis[:, None])
        energies.append(sum((difference * wave(along)).sum((1, 2)) ** 2 for wave in (torch.sin, torch.cos)))
    return torch.stack(energies).argmax(dim=0)


@pytest.mark.parametrize(("reliability", "expected"), [(1.0, 1.0), (0.5, 0.55), (0.0, 0.1)])
def test_the_cue_names_the_class_as_often_as_it_should(reliability: float, expected: float) -> None:
    source = make(test=500, cue_reliability=reliability)
    assert source.test is not None
    difference = (source.test.pixels() - source.extras["test_without_cue"].pixels()).mean(dim=1)
    agreement = (grating_labels(difference) == source.test.labels).double().mean()
    assert agreement == pytest.approx(expected, abs=0.07)


def test_the_shape_names_the_class_as_often_as_it_should() -> None:
    """The mask's area in squared scale tells bars from disks: with reliability 1 every bar is small, with 0 it is not."""
    sure, blind = make(train=500, shape_reliability=1.0).train, make(train=500, shape_reliability=0.0).train
    bar, disk = shapes_named("bar"), shapes_named("disk")
    area = [part.masks.flatten(1).sum(dim=1).double() for part in (sure, blind)]
    gaps = [
        float(a[p.labels == disk].mean() / a[p.labels == bar].mean()) for a, p in zip(area, (sure, blind), strict=True)
    ]
    assert gaps[0] > 1.7
    assert gaps[1] == pytest.approx(1, abs=0.35)


def shapes_named(name: str) -> int:
    return list(shapes.SHAPES).index(name)


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_every_shape_has_area_and_stays_near_the_unit_disk(name: str) -> None:
    axis = torch.linspace(-1.5, 1.5, 301)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    inside = shapes.SHAPES[name](u, v)
    assert 0.3 < inside.double().sum() * 0.01**2 < 3.2
    assert torch.hypot(u, v)[inside].max() < 1.2


def test_bad_options_are_all_named() -> None:
    config = DataConfig(
        name="shapes",
        options={**OPTIONS, "cue_period": 1.5, "size": "32", "colour": 3},
        holdout=0,
        holdout_by="last",
        validation=10,
        evaluation=10,
        evaluation_masked=False,
        duplicates="report",
        seed=0,
    )
    with pytest.raises(ConfigError) as caught:
        data.check(config)
    for key in ("data.options.cue_period", "data.options.size", "data.options.colour"):
        assert key in str(caught.value)
