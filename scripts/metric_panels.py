"""How scripts/metric_pictures.py draws: an input, the panels of two maps, and their scores in a table below."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from epsilens.attributions.pictures import image_picture, map_picture
from epsilens.metrics import METRICS
from epsilens.reporting.formats import better
from epsilens.reporting.style import COLOURS, INK, LOOK

Panel = tuple[str, Callable[[Axes], None]]  # a title, and what draws the rest
Scores = Mapping[str, Sequence[float]]  # of each metric: of the better and of the worse map

SIDE, SPACE, NAMES, LINE, HEAD = (
    1.3,
    0.12,
    2.6,
    0.2,
    0.58,
)  # inches: a panel, beside it, the names, a line, the headings
DPI = 130
DIRECTIONS = {"higher": ("better", "worse"), "lower": ("better", "worse"), None: ("high", "low")}


def raster(picture: np.ndarray, outline: Tensor | None = None) -> Callable[[Axes], None]:
    """A picture [H, W, 3], pixel by pixel, with the border of a mask [H, W] where one is given."""

    def draw(axes: Axes) -> None:
        axes.imshow(picture, interpolation="nearest")
        axes.set_axis_off()
        if outline is not None:
            axes.contour(outline.double().numpy(), levels=[0.5], colors=INK, linewidths=1.2)

    return draw


def image(title: str, pixels: Tensor, outline: Tensor | None = None) -> Panel:
    """An image [C, H, W] in [0, 1]."""
    return title, raster(image_picture((pixels.clamp(0, 1) * 255).round().to(torch.uint8)), outline)


def attribution(title: str, values: Tensor, outline: Tensor | None = None) -> Panel:
    """A map [C, H, W]: blue is negative, red positive."""
    return title, raster(map_picture(values), outline)


def _charted(axes: Axes) -> None:
    """Room for the numbers at the axes within the square of the panel."""
    x, y, width, height = axes.get_position().bounds
    axes.set_position((x + 0.17 * width, y + 0.1 * height, 0.83 * width, 0.9 * height))
    axes.tick_params(labelsize=6, pad=1.5, length=2)


def curves(title: str, x: Sequence[float], lines: Mapping[str, Tensor]) -> Panel:
    """Lines over shares of removed pixels, each named at its end by its marker in the legend."""

    def draw(axes: Axes) -> None:
        for (label, values), colour, marker in zip(lines.items(), COLOURS, "os", strict=False):
            axes.plot(x, values, label=label, color=colour, marker=marker, markersize=3)
        _charted(axes)
        axes.set_ylim(0, 1.4)
        axes.legend(fontsize=5.5, loc="best", handlelength=1.2, borderpad=0)

    return title, draw


def points(title: str, x: Tensor, y: Tensor) -> Panel:
    """What the map foretells (across) against what happens (up)."""

    def draw(axes: Axes) -> None:
        axes.scatter(x, y, s=7, color=COLOURS[0])
        _charted(axes)
        axes.set_xticks([0], ["0"])
        axes.set_yticks([0], ["0"])

    return title, draw


def picture(left: Panel | None, sides: Mapping[str, Sequence[Panel]], scores: Scores) -> bytes:
    """PNG: the input, where there is one, the panels of the two sides (the better first), the scores below."""
    with matplotlib.style.context(
        ["default", LOOK | {"font.size": 8, "axes.titlesize": 8, "axes.titleweight": "normal"}]
    ):
        return _png(_figure(left, sides, scores), scores)


def _figure(left: Panel | None, sides: Mapping[str, Sequence[Panel]], scores: Scores) -> Figure:
    (first, ones), (second, others) = sides.items()
    wide = max(len(ones), len(others)) * (SIDE + SPACE) + 0.2
    width, height = NAMES + 2 * wide, HEAD + SIDE + 0.16 + LINE * len(scores)
    figure = Figure(figsize=(width, height), dpi=DPI)
    words = DIRECTIONS[METRICS[next(iter(scores))].facts.better]
    if left:
        _panel(figure, left, (NAMES - SIDE) / 2, height)
    for place, (label, panels, word, colour) in enumerate(
        zip((first, second), (ones, others), words, COLOURS, strict=False)
    ):
        start = NAMES + place * wide
        figure.text((start + 0.06) / width, 1 - 0.2 / height, word, weight="bold", color=colour, fontsize=9)
        figure.text((start + 0.06) / width, 1 - 0.36 / height, label)
        for number, panel in enumerate(panels):
            _panel(figure, panel, start + 0.06 + number * (SIDE + SPACE), height)
        for row, (name, values) in enumerate(scores.items()):
            at = (LINE * (len(scores) - row) - 0.1) / height
            figure.text(
                (start + 0.06) / width, at, f"{values[place]:.2f}".replace("-", "−"), color=colour, weight="bold"
            )
            if place == 0:
                figure.text(0.08 / width, at, f"{name}", color=INK)
                figure.text(
                    (NAMES - 0.12) / width, at, better(vars(METRICS[name].facts))[:1], ha="right", weight="bold"
                )
    return figure


def _panel(figure: Figure, panel: Panel, x: float, height: float) -> None:
    """At `x` inches from the left, under the headings."""
    width = figure.get_figwidth()
    title, draw = panel
    axes = figure.add_axes((x / width, 1 - (HEAD + SIDE) / height, SIDE / width, SIDE / height))
    draw(axes)
    axes.set_title(title, loc="center", pad=3, fontsize=7.5)


def _png(figure: Figure, scores: Scores) -> bytes:
    """With the scores, for whoever checks them; the same bytes for the same picture."""
    buffer = io.BytesIO()
    facts = {name: [round(value, 6) for value in pair] for name, pair in scores.items()}
    figure.savefig(
        buffer, format="png", metadata={"Software": None, "scores": json.dumps(facts)}, pil_kwargs={"optimize": True}
    )
    return buffer.getvalue()
