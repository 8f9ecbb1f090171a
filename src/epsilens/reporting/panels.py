"""The figures of metrics, drawn from the rows of the tables alone: against training epsilon, and against accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from epsilens.reporting.formats import better, number, percent, spread
from epsilens.reporting.gate import Row
from epsilens.reporting.marks import Scale, heading, line
from epsilens.reporting.sheet import Sheet, Tip
from epsilens.reporting.style import COLOURS, EDGE, INK, PAPER, PATH, epsilon_axis, method_styles, plain, unit
from epsilens.reporting.tables import select

Facts = Mapping[str, Any]


def metric(rows: Sequence[Row], name: str, facts: Facts, *, norm: str) -> Sheet:
    """One metric against training epsilon, a line an attribution with its interval; `rows` are those of one set."""
    draw = partial(_metric, select(rows, metric=name), facts["metrics"][name], styles(rows, facts), norm)
    return Sheet(f"metric-{name}", (4.1, 4.1), draw)


def styles(rows: Sequence[Row], facts: Facts) -> dict[str, dict[str, Any]]:
    """For each attribution of the rows its label, the style of its line, and whether it is a control."""
    found = list(dict.fromkeys(row["attribution"] for row in rows))
    known = {name: facts["attributions"].get(name, {}) for name in found}
    controls = {name for name in found if known[name].get("kind") == "control"}
    return {
        name: {"label": str(known[name].get("label", name)), "style": style, "control": name in controls}
        for name, style in method_styles(found, controls).items()
    }


def swatch(name: str, style: Mapping[str, Any]) -> Sheet:
    """The line of an attribution alone, for a legend."""
    return Sheet(f"swatch-{name}", (0.42, 0.16), partial(_swatch, style))


def _swatch(style: Mapping[str, Any], figure: Figure) -> None:
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    line_alone: dict[str, Any] = {**style, "marker": ""}
    mark_alone: dict[str, Any] = {**style, "linestyle": ""}
    axes.plot([0.04, 0.96], [0.5, 0.5], **line_alone)
    axes.plot([0.5], [0.5], **mark_alone)


def _metric(rows: Sequence[Row], described: Facts, drawn: Facts, norm: str, figure: Figure) -> list[Tip]:
    axes = figure.add_subplot()
    places = epsilon_axis(axes, [row["epsilon"] for row in rows], norm)
    tips: list[Tip] = []
    for i, (method, entry) in enumerate(drawn.items()):
        its, label = select(rows, attribution=method), plain(entry["label"])
        if its:
            tips += line(axes, its, Scale(places), label, entry["style"], key=f"series-{i}")
    if described.get("chance") is not None:
        axes.axhline(described["chance"], color=INK, linewidth=0.9, linestyle=(0, (1, 2)), label="chance level")
    heading(axes, better(described), _range(described), title=plain(str(described["label"])))
    axes.set_ylabel("mean score")
    if all(np.isnan(row["mean"]) for row in rows):
        axes.text(0.5, 0.5, "undefined on all images", transform=axes.transAxes, ha="center")
    figure.legend(loc="outside lower center", ncols=2)
    return tips


def _range(described: Facts) -> str:
    """Where the scores of a metric can lie, as far as that is bounded."""
    low, high = (None if described.get(end) is None else f"{described[end]:.3g}" for end in ("low", "high"))
    if low is not None and high is not None:
        return f"range {low} to {high}".replace("-", "−")
    return f"at least {low}" if low is not None else f"at most {high}" if high is not None else ""


def trade_off(
    accuracies: Sequence[Row],
    rows: Sequence[Row],
    name: str,
    method: str,
    facts: Facts,
    *,
    norm: str,
    choice: Sequence[Row] = (),
) -> Sheet | None:
    """Clean accuracy against one metric of one attribution, a point an epsilon; None where none is defined.

    choice: rows of choice_table, by which the Pareto front, its knee and the recommended epsilon are marked.
    """
    clean = {row["epsilon"]: row for row in select(accuracies, split="test", attack="clean")}
    chosen = [row for row in select(rows, metric=name, attribution=method) if not np.isnan(row["mean"])]
    marked = {row["epsilon"]: row for row in select(choice, metric=name)}
    points = [
        Point(clean[row["epsilon"]], row, marked.get(row["epsilon"])) for row in chosen if row["epsilon"] in clean
    ]
    if not points:
        return None
    label = facts["attributions"].get(method, {}).get("label", method)
    return Sheet(f"trade-off-{name}", (4.1, 3.7), partial(_trade_off, points, facts["metrics"][name], str(label), norm))


@dataclass(frozen=True)
class Point:
    """One training epsilon: its row of clean accuracy, of the metric, and of the choice, if there is one."""

    clean: Row
    quality: Row
    choice: Row | None

    @property
    def epsilon(self) -> float:
        return self.quality["epsilon"]

    @property
    def place(self) -> tuple[float, float]:
        return self.clean["accuracy"], self.quality["mean"]

    def marked(self, key: str) -> bool:
        """Whether it is on the `front`, the `knee`, `recommended`."""
        return bool(self.choice and self.choice[key])

    def told(self) -> str:
        accuracy = spread(self.clean, "accuracy", percent)
        marks = [word for key, word in MARKED.items() if self.marked(key)]
        text = f"training ε = {self.epsilon:g}: {spread(self.quality, 'mean', number)}, clean accuracy {accuracy}"
        return "; ".join([text, *marks])


MARKED = {"front": "on the Pareto front", "knee": "knee of the front", "recommended": "recommended"}


def _trade_off(points: Sequence[Point], described: Facts, method: str, norm: str, figure: Figure) -> list[Tip]:
    axes = figure.add_subplot()
    axes.plot(*zip(*(point.place for point in points), strict=True), color=PATH, linewidth=1, zorder=1)
    front = sorted(point.place for point in points if point.marked("front"))
    if len(front) > 1:
        axes.plot(*zip(*front, strict=True), color=EDGE, linewidth=5, alpha=0.35, zorder=0.5, solid_capstyle="round")
    for i, point in enumerate(points):
        _cross(axes, point, i)
    axes.margins(0.16)
    axes.set_xlim(right=min(axes.get_xlim()[1], 1.03))
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
    axes.set_xlabel("clean accuracy (%; → higher is better)")
    axes.set_ylabel(plain(f"{described['label']}, {method}"))
    heading(axes, better(described), f"training ε in {unit(norm)}", title=plain(str(described["label"])))
    handles = _marks_legend(points)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return [Tip(axes, *point.place, point.told()) for point in points]


def _cross(axes: Axes, point: Point, i: int) -> None:
    """A point with both intervals and its marks; hollow where another epsilon is better in both."""
    colour, (x, y) = COLOURS[i % len(COLOURS)], point.place
    axes.hlines(y, point.clean["low"], point.clean["high"], color=colour, linewidth=1.2)
    axes.vlines(x, point.quality["low"], point.quality["high"], color=colour, linewidth=1.2)
    dominated = point.choice is not None and not point.marked("front")
    axes.plot(x, y, color=colour, marker="o", markersize=6, markerfacecolor=PAPER if dominated else colour)
    if point.marked("knee"):
        axes.plot(x, y, **KNEE)
    if point.marked("recommended"):
        axes.plot(x, y, **RECOMMENDED)
    # Alternately above and below, so that neighbours do not hide each other's label
    offset, side = ((7, 7), "left") if i % 2 == 0 else ((-7, -13), "right")
    text = axes.annotate(f"ε = {point.epsilon:g}", (x, y), offset, textcoords="offset points", ha=side, fontsize=8)
    text.set_path_effects([withStroke(linewidth=2.5, foreground=PAPER)])  # readable across the bars


KNEE: dict[str, Any] = {
    "color": INK,
    "marker": "o",
    "markersize": 12,
    "fillstyle": "none",
    "linestyle": "",
    "zorder": 4,
}
RECOMMENDED: dict[str, Any] = {**KNEE, "marker": "s", "markersize": 15}


def _marks_legend(points: Sequence[Point]) -> list[Line2D]:
    """What the marks mean, those that occur."""
    handles = []
    if any(point.marked("front") for point in points):
        handles.append(Line2D([], [], color=EDGE, linewidth=5, alpha=0.35, label="Pareto front"))
    if any(point.choice is not None and not point.marked("front") for point in points):
        handles.append(Line2D([], [], color=INK, marker="o", markerfacecolor=PAPER, linestyle="", label="dominated"))
    if any(point.marked("knee") for point in points):
        handles.append(Line2D([], [], **_small(KNEE), label="knee"))
    if any(point.marked("recommended") for point in points):
        handles.append(Line2D([], [], **_small(RECOMMENDED), label="recommended"))
    return handles


def _small(look: Mapping[str, Any]) -> dict[str, Any]:
    return {**look, "markersize": 9}
