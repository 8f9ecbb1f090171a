"""What figures are composed of: a line with its intervals and tips, a heading that says which way is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from epsilens.reporting.formats import Form, number, percent, spread
from epsilens.reporting.gate import Row
from epsilens.reporting.sheet import Tip
from epsilens.reporting.style import COLOURS, SOFT


@dataclass(frozen=True)
class Scale:
    """Where values lie along the horizontal axis: `places` of the column `along`; `value` is drawn, written by `form`."""

    places: Mapping[float, float]
    value: str = "mean"
    along: str = "epsilon"
    form: Form = number
    noun: str = "training ε"
    shade: float = 0.13  # opacity of the bands: 0 where many lines lie on each other


def line(
    axes: Axes, rows: Sequence[Row], scale: Scale, label: str, style: Mapping[str, Any], *, key: str = ""
) -> list[Tip]:
    """A line through the rows with a band and bars for their intervals; its tips.

    key: makes the ids `<key>.line`, `<key>.band` and `<key>.bars`, by which a page can pick the line out.
    """
    ids = {part: f"{key}.{part}" if key else None for part in ("line", "band", "bars")}
    x, y, low, high = np.array(
        [[scale.places[row[scale.along]], row[scale.value], row["low"], row["high"]] for row in rows]
    ).T
    axes.plot(x, y, label=label, gid=ids["line"], **style)
    if style["color"] in COLOURS:  # the intervals of the controls would cover those of the methods
        axes.fill_between(x, low, high, color=style["color"], alpha=scale.shade, linewidth=0, gid=ids["band"])
        axes.vlines(x, low, high, color=style["color"], linewidth=1, gid=ids["bars"])
    found = zip(x, y, rows, strict=True)
    return [Tip(axes, a, b, _told(row, scale, label)) for a, b, row in found if not np.isnan(b)]


def _told(row: Row, scale: Scale, label: str) -> str:
    images = row.get("n", row.get("n_images"))
    size = "" if images is None else f", {images} images"
    name = label.replace(r"\$", "$")
    return f"{name}, {scale.noun} = {row[scale.along]:g}: {spread(row, scale.value, scale.form)}{size}"


def heading(axes: Axes, *remarks: str, title: str = "") -> None:
    """A title and, below it, small and grey, what a reader must know: first of all which way is better."""
    if title:
        axes.set_title(title, pad=20)
    below = "     ".join(filter(None, remarks))
    axes.text(0, 1.03, below, transform=axes.transAxes, fontsize=8, color=SOFT)


def share_axis(axes: Axes) -> None:
    """A vertical axis for accuracies in [0, 1], written in per cent."""
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.set_ylabel("accuracy")


def share_scale(places: Mapping[float, float], **more: Any) -> Scale:
    """The scale of a line of accuracies."""
    return Scale(places, value="accuracy", form=percent, **more)
