"""Figures of estimates with their intervals: the claims against what decides, the confounds against all of a change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from epsilens.reporting.config import ClaimsConfig
from epsilens.reporting.formats import percent, spread
from epsilens.reporting.gate import Row
from epsilens.reporting.marks import heading
from epsilens.reporting.sheet import Sheet, Tip
from epsilens.reporting.style import COLOURS, FAINT, INK, MARKERS, SOFT, plain
from epsilens.reporting.tables import select
from epsilens.reporting.verdicts import RULES, figure_name, measured

Facts = Mapping[str, Any]

STYLES = {"training": (COLOURS[0], "o"), "these networks": (COLOURS[1], "s")}
SIDE = COLOURS[2]  # of the bound, where the claim is supported
WIDTH = 90  # letters of a title in the figure of all claims
WIDEST = (-1.0, 2.0)  # shares reproduced beyond are told by an arrow: intervals of ratios may be far wider


def claims(rows: Sequence[Row], facts: Facts, wanted: ClaimsConfig, first: float) -> dict[str, Sheet]:
    """A figure a claim for the page, and one of all claims; those of the headline method."""
    shown = select(rows, headline=True)
    cases = {
        claim: [select(its, metric=metric) for metric in dict.fromkeys(row["metric"] for row in its)]
        for claim in dict.fromkeys(row["claim"] for row in shown)
        for its in [select(shown, claim=claim)]
    }
    found = {}
    for claim, its in cases.items():
        size = (4.1, 0.95 * len(its) + (0.15 if len(its) > 1 else 0))
        heads = [plain(facts["metrics"].get(case[0]["metric"], {}).get("label", "")) for case in its]
        titles = heads if len(its) > 1 else [""]
        found[figure_name(claim)] = Sheet(figure_name(claim), size, partial(_claims, its, titles, wanted))
    every = [case for its in cases.values() for case in its]
    titles = [
        plain(f"{case[0]['claim'].capitalize()}\n{fill(measured(case[0], facts, first), WIDTH)}") for case in every
    ]
    if every:
        found["claims"] = Sheet("claims", (6.0, 1.2 * len(every)), partial(_claims, every, titles, wanted))
    return found


def _claims(cases: Sequence[Sequence[Row]], titles: Sequence[str], wanted: ClaimsConfig, figure: Figure) -> list[Tip]:
    tips: list[Tip] = []
    for axes, case, title in zip(figure.subplots(len(cases), 1, squeeze=False)[:, 0], cases, titles, strict=True):
        tips += _claim(axes, case, wanted)
        axes.set_title(title, fontsize=8, fontweight="normal", pad=3, loc="left")
    return tips


def _claim(axes: Axes, case: Sequence[Row], wanted: ClaimsConfig) -> list[Tip]:
    """One line a scope; the dashed line is the bound, and where the claim is supported is shaded."""
    rule = RULES[case[0]["claim"]]
    bound = rule.bound(wanted)
    tips = []
    for place, row in enumerate(case):
        colour, marker = STYLES[row["scope"]]
        if math.isnan(row["interval"][0]):
            across = axes.get_yaxis_transform()
            axes.text(0.01, place, plain(row["why"]), transform=across, fontsize=7, color=SOFT, va="center")
            continue
        axes.hlines(place, *row["interval"], color=colour, linewidth=2)
        axes.plot(row["estimate"], place, color=colour, marker=marker, markersize=6)
        ends = " to ".join(map(rule.text, row["interval"]))
        tips.append(
            Tip(
                axes, row["estimate"], place, f"{row['scope']}: {rule.text(row['estimate'])} ({ends}), {row['verdict']}"
            )
        )
    axes.axvline(bound, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.margins(x=0.08)
    low, high = axes.get_xlim() if tips else (bound - 0.5, bound + 0.5)
    low, high = min(low, bound - 0.06 * (high - low)), max(high, bound + 0.06 * (high - low))
    axes.axvspan(*((bound, high) if rule.above else (low, bound)), color=SIDE, alpha=0.1, linewidth=0)
    axes.set(xlim=(low, high), ylim=(len(case) - 0.4, -0.6))
    _rows(axes, [row["scope"] for row in case])
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if rule.unit:
        unit = " %" if rule.unit == "%" else ""
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}{unit}".replace("-", "−"))
    return tips


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Names at the left, one a row, and no line between them."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="both", length=0, labelsize=8)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")


def audit(rows: Sequence[Row], facts: Facts) -> Sheet | None:
    """How much of each metric's change each change of the standard network reproduces; `rows` are of one epsilon."""
    cases = [select(rows, metric=metric) for metric in dict.fromkeys(row["metric"] for row in rows)]
    if not cases:
        return None
    names = [str(facts["metrics"][case[0]["metric"]]["label"]) for case in cases]
    return Sheet("audit", (6.2, 0.9 + 0.62 * len(cases)), partial(_audit, cases, names))


def _audit(cases: Sequence[Sequence[Row]], names: Sequence[str], figure: Figure) -> list[Tip]:
    axes = figure.add_subplot()
    kinds = list(dict.fromkeys(row["kind"] for case in cases for row in case))
    looks = {kind: (COLOURS[i], MARKERS[i]) for i, kind in enumerate(kinds)}
    known = [row for case in cases for row in case if not row["reason"]]
    limits = _limits([row[key] for row in known for key in ("low", "high", "reproduced")])
    axes.set(xlim=limits, ylim=(len(cases) - 0.5, -0.5))
    for bound in (0, 1):
        axes.axvline(bound, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    tips: list[Tip] = []
    for place, case in enumerate(cases):
        axes.axhline(place + 0.5, color=FAINT, linewidth=0.6)
        if all(row["reason"] for row in case):
            axes.text(
                0.5, place, plain(f"undefined: {case[0]['reason']}"), ha="center", va="center", fontsize=8, color=SOFT
            )
        for row in case:
            if not row["reason"]:
                offset = 0.22 * (kinds.index(row["kind"]) - (len(kinds) - 1) / 2)
                tips.append(_share(axes, row, place + offset, looks[row["kind"]]))
    _rows(axes, [plain(name) for name in names])
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %".replace("-", "−"))
    axes.set_xlabel("share of the change that comes without robustness")
    heading(axes, "0 %: the change is training's own", "100 %: the confound does all of it")
    handles = [Line2D([], [], color=c, marker=m, label=kind) for kind, (c, m) in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return tips


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Room for 0, 1 and the values, as far as WIDEST."""
    low, high = min([0.0, *values]), max([1.0, *values])
    return max(low, WIDEST[0]) - 0.08, min(high, WIDEST[1]) + 0.08


def _share(axes: Axes, row: Row, place: float, look: tuple[str, str]) -> Tip:
    """A dot with its interval; arrows at the edge where the interval goes on."""
    colour, marker = look
    left, right = axes.get_xlim()
    shown = min(max(row["reproduced"], left), right)
    axes.hlines(place, max(row["low"], left), min(row["high"], right), color=colour, linewidth=2)
    axes.plot(shown, place, color=colour, marker=marker, markersize=6)
    for beyond, edge, arrow in ((row["low"] < left, left, "<"), (row["high"] > right, right, ">")):
        if beyond:
            axes.plot(edge, place, color=colour, marker=arrow, markersize=5, clip_on=False)
    match = f"{row['trait']} {row['trait_matched']:.3g}, trained {row['trait_trained']:.3g}"
    text = f"{row['kind']} by {row['amount']:g} ({match}): {spread(row, 'reproduced', percent)} reproduced"
    return Tip(axes, shown, place, text)
