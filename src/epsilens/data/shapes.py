"""`shapes`: images whose relevant pixels, and whose shortcut, are known by construction.

Each image shows one of ten shapes at a random place, size, rotation and colour on a smooth random background, with the
mask of the shape. A *non-robust cue* lies over the whole image: a grating of low amplitude and high frequency whose
orientation names the class. A shape names the class only in a share of the images, the cue (by default) always: a
standard network uses the cue, a network trained against perturbations larger than the cue must look at the object
(the construction follows Tsipras et al. 2019, arXiv:1805.12152).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from epsilens.data.source import Known, Source
from epsilens.randomness import generator
from epsilens.types import Samples

SUPERSAMPLING = 2  # shapes are drawn at twice the size and averaged: smooth edges

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=10)]
Amplitude = Annotated[float, Field(ge=0, le=255)]


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    return (v < 0.5) & (math.sqrt(3) * u - v < 1) & (-math.sqrt(3) * u - v < 1)


def _star(u: Tensor, v: Tensor) -> Tensor:
    fifth = 2 * math.pi / 5
    angle = (torch.atan2(v, u) % fifth - fifth / 2).abs() / (fifth / 2)  # 1 at a tip, 0 between two
    return torch.hypot(u, v) < 0.4 + 0.6 * angle**2


def _bar(u: Tensor, v: Tensor) -> Tensor:
    return (u.abs() < 1) & (v.abs() < 0.3)


def _square(u: Tensor, v: Tensor) -> Tensor:
    return (u.abs() < 0.8) & (v.abs() < 0.8)


# name -> is the point (u, v) inside? The shape lies in the unit disk or a little over.
SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "disk": lambda u, v: torch.hypot(u, v) < 0.9,
    "ring": lambda u, v: (torch.hypot(u, v) < 1) & (torch.hypot(u, v) > 0.55),
    "half_disk": lambda u, v: (torch.hypot(u, v - 0.4) < 1) & (v < 0.4),
    "crescent": lambda u, v: (torch.hypot(u, v) < 1) & (torch.hypot(u - 0.5, v) > 0.8),
    "square": _square,
    "triangle": _triangle,
    "bar": _bar,
    "cross": lambda u, v: _bar(u, v) | _bar(v, u),
    "ell": lambda u, v: _square(u, v) & ((u < -0.2) | (v > 0.2)),
    "star": _star,
}


def load(
    root: Path,
    *,
    train: Count,
    test: Count,
    size: Annotated[int, Field(ge=16, le=256)],
    shape_reliability: Share,
    cue_reliability: Share,
    cue_amplitude_255: Amplitude,
    cue_period: Annotated[float, Field(gt=2)],
    noise_255: Amplitude,
    seed: Annotated[int, Field(ge=0)],
) -> Source:
    """Generate the data set; `test_without_cue` repeats the test images with everything the same but the cue.

    train, test: number of images. size: pixels a side. shape_reliability, cue_reliability: share of images in which the
    shape (the cue) is the label's; in the others it is drawn from all ten. cue_amplitude_255, noise_255: amplitude of the
    grating and standard deviation of the pixel noise, in 1/255. cue_period: of the grating, in pixels (above 2, Nyquist).
    """

    def draw(split: str, count: int, amplitude: float) -> Samples:
        g = generator(seed, "shapes", split)
        labels = torch.randperm(count, generator=g) % len(SHAPES)
        drawn = _mostly(labels, shape_reliability, g)
        hinted = _mostly(labels, cue_reliability, g)
        images, masks = _scenes(drawn, size, g)
        images = images + amplitude / 255 * _gratings(hinted, size, cue_period, g)[:, None]
        images = images + noise_255 / 255 * torch.randn(images.shape, generator=g)
        return Samples((images.clamp(0, 1) * 255).round().to(torch.uint8), labels, masks, torch.arange(count))

    return Source(
        train=draw("train", train, cue_amplitude_255),
        test=draw("test", test, cue_amplitude_255),
        extras={"test_without_cue": draw("test", test, 0.0)},
        class_names=tuple(SHAPES),
        files={},
    )


def known(options: Mapping[str, Any]) -> Known:
    """What the options of `load` tell."""
    return Known(options["size"], len(SHAPES), options["train"], options["test"])


def _mostly(labels: Tensor, reliability: float, g: torch.Generator) -> Tensor:
    """The labels, each replaced with probability 1 - reliability by one of all classes."""
    keep = torch.rand(len(labels), generator=g) < reliability
    return torch.where(keep, labels, torch.randint(len(SHAPES), labels.shape, generator=g))


def _scenes(drawn: Tensor, size: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shapes on smooth backgrounds [N, 3, H, W], and the masks [N, H, W] of the pixels at least half covered."""
    count = len(drawn)
    scale = size * (0.2 + 0.12 * torch.rand(count, generator=g))
    place = (torch.rand(count, 2, generator=g) - 0.5) * (size - 2.2 * scale)[:, None]
    turn = 2 * math.pi * torch.rand(count, generator=g)
    inside = torch.cat([_coverage(drawn[i : i + 500], size, scale[i : i + 500], place[i : i + 500], turn[i : i + 500])
                        for i in range(0, count, 500)])  # fmt: skip
    # The colour is away from the background's own range, in a random direction, so that the shape is visible.
    background = 0.35 + 0.3 * F.interpolate(torch.rand(count, 3, 4, 4, generator=g), size=(size, size), mode="bicubic")
    colour = (torch.rand(count, 3, generator=g) < 0.5).float() * 0.7 + 0.15
    colour = colour + 0.1 * (torch.rand(count, 3, generator=g) - 0.5)
    alpha = inside[:, None]
    return background * (1 - alpha) + colour[:, :, None, None] * alpha, inside >= 0.5


def _coverage(drawn: Tensor, size: int, scale: Tensor, place: Tensor, turn: Tensor) -> Tensor:
    """The share of each pixel that lies in its shape, [N, H, W] in [0, 1]."""
    fine = size * SUPERSAMPLING
    axis = (torch.arange(fine) + 0.5) / SUPERSAMPLING - size / 2
    x, y = axis[None, None, :] - place[:, 0, None, None], axis[None, :, None] - place[:, 1, None, None]
    cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None]
    u, v = (x * cos + y * sin) / scale[:, None, None], (y * cos - x * sin) / scale[:, None, None]
    inside = torch.empty(u.shape)
    for label, shape in enumerate(SHAPES.values()):
        chosen = drawn == label
        inside[chosen] = shape(u[chosen], v[chosen]).float()
    return F.avg_pool2d(inside, SUPERSAMPLING)


def _gratings(hinted: Tensor, size: int, period: float, g: torch.Generator) -> Tensor:
    """Sinusoidal gratings in [-1, 1], [N, H, W]: orientation by class, phase at random."""
    angle = math.pi * hinted / len(SHAPES)
    phase = 2 * math.pi * torch.rand(len(hinted), generator=g)
    axis = torch.arange(size, dtype=torch.float32)
    along = angle.cos()[:, None, None] * axis[None, None, :] + angle.sin()[:, None, None] * axis[None, :, None]
    return torch.sin(2 * math.pi / period * along + phase[:, None, None])
