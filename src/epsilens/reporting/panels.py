"""The figures of metrics, drawn from the rows of the tables alone: against training epsilon, and against accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from epsilens.reporting.formats import better, number, percent, spread
from epsilens.reporting.gate import Row
from epsilens.reporting.marks import Scale, heading, line
from epsilens.reporting.sheet import Sheet, Tip
from epsilens.reporting.style import COLOURS, INK, PAPER, PATH, epsilon_axis, method_styles, plain, unit
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
    accuracies: Sequence[Row], rows: Sequence[Row], name: str, method: str, facts: Facts, *, norm: str
) -> Sheet | None:
    """Clean accuracy against one metric of one attribution, a point an epsilon; None where none is defined."""
    clean = {row["epsilon"]: row for row in select(accuracies, split="test", attack="clean")}
    chosen = [row for row in select(rows, metric=name, attribution=method) if not np.isnan(row["mean"])]
    points = [(row["epsilon"], clean[row["epsilon"]], row) for row in chosen if row["epsilon"] in clean]
    if not points:
        return None
    label = facts["attributions"].get(method, {}).get("label", method)
    return Sheet(f"trade-off-{name}", (4.1, 3.4), partial(_trade_off, points, facts["metrics"][name], str(label), norm))


def _trade_off(
    points: Sequence[tuple[float, Row, Row]], described: Facts, method: str, norm: str, figure: Figure
) -> list[Tip]:
    axes = figure.add_subplot()
    x, y = [clean["accuracy"] for _, clean, _ in points], [row["mean"] for *_, row in points]
    axes.plot(x, y, color=PATH, linewidth=1, zorder=1)
    for i, (epsilon, clean, row) in enumerate(points):
        colour = COLOURS[i % len(COLOURS)]
        axes.hlines(y[i], clean["low"], clean["high"], color=colour, linewidth=1.2)
        axes.vlines(x[i], row["low"], row["high"], color=colour, linewidth=1.2)
        axes.plot(x[i], y[i], color=colour, marker="o", markersize=6)
        # Alternately above and below, so that neighbours do not hide each other's label
        offset, side = ((6, 6), "left") if i % 2 == 0 else ((-6, -12), "right")
        text = axes.annotate(f"ε = {epsilon:g}", (x[i], y[i]), offset, textcoords="offset points", ha=side, fontsize=8)
        text.set_path_effects([withStroke(linewidth=2.5, foreground=PAPER)])  # readable across the bars
    axes.margins(0.16)
    axes.set_xlim(right=min(axes.get_xlim()[1], 1.03))
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
    axes.set_xlabel("clean accuracy (%; → higher is better)")
    axes.set_ylabel(plain(f"{described['label']}, {method}"))
    heading(axes, better(described), f"training ε in {unit(norm)}", title=plain(str(described["label"])))
    return [Tip(axes, clean["accuracy"], row["mean"], _told(*point)) for point in points for _, clean, row in [point]]


def _told(epsilon: float, clean: Row, row: Row) -> str:
    accuracy = spread(clean, "accuracy", percent)
    return f"training ε = {epsilon:g}: {spread(row, 'mean', number)}, clean accuracy {accuracy}"
