"""Figures of misleading but plausible maps: how many look good, how many of those mislead, whether looks tell anything."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.figure import Figure

from epsilens.reporting.formats import DIRECTIONS, number, percent
from epsilens.reporting.gate import Row
from epsilens.reporting.marks import Scale, heading, line
from epsilens.reporting.plausible import AUROC, RATES
from epsilens.reporting.sheet import Sheet, Tip
from epsilens.reporting.style import INK, epsilon_axis, method_styles
from epsilens.reporting.tables import select

SETS = ("all", "correct", "wrong")
DODGE = 0.012  # of the width of the axis: intervals of the three sets stand beside each other
NEUTRAL = DIRECTIONS[None]


def plausible(rows: Sequence[Row], attribution: str, *, norm: str, margin: float, rate: float) -> dict[str, Sheet]:
    """Three figures of one method: `plausible-rate`, `plausible-misleading`, `plausible-auroc`; none without rows.

    rate, margin: the thresholds of the claims: of the misleading rate, and of the AUROC above 0.5.
    """
    found = select(rows, attribution=attribution)
    drawn = {
        "plausible-rate": partial(_rates, select(found, measure=RATES[0]), "plausible maps", NEUTRAL, norm, None),
        "plausible-misleading": partial(
            _rates,
            select(found, measure=RATES[1]),
            "misleading maps among the plausible",
            DIRECTIONS["lower"],
            norm,
            rate,
        ),
        "plausible-auroc": partial(_auroc, select(found, measure=AUROC), norm, margin),
    }
    return {name: Sheet(name, (4.1, 3.5), draw) for name, draw in drawn.items()} if found else {}


def _rates(
    rows: Sequence[Row], title: str, direction: str, norm: str, threshold: float | None, figure: Figure
) -> list[Tip]:
    axes = figure.add_subplot()
    places = epsilon_axis(axes, [row["epsilon"] for row in rows], norm)
    span = max(places.values()) - min(places.values()) or 1.0
    styles = method_styles(SETS, set())
    tips: list[Tip] = []
    for i, name in enumerate(SETS):
        its = select(rows, set=name)
        beside = {epsilon: place + (i - 1) * DODGE * span for epsilon, place in places.items()}
        if its:
            tips += line(axes, its, Scale(beside, form=percent, shade=0), f"{name} predictions", styles[name])
    if threshold is not None:
        axes.axhline(
            threshold, color=INK, linewidth=0.9, linestyle=(0, (3, 2)), label=f"claim: above {100 * threshold:g} %"
        )
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.set_ylabel("share of maps")
    heading(axes, direction, title=title[0].upper() + title[1:])
    figure.legend(loc="outside lower center", ncols=2)
    return tips


def _auroc(rows: Sequence[Row], norm: str, margin: float, figure: Figure) -> list[Tip]:
    axes = figure.add_subplot()
    places = epsilon_axis(axes, [row["epsilon"] for row in rows], norm)
    style = method_styles(("AUROC",), set())["AUROC"]
    tips = line(axes, rows, Scale(places, form=number), "AUROC", style)
    axes.axhline(0.5, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), label="chance level")
    axes.axhline(0.5 + margin, color=INK, linewidth=0.9, linestyle=(0, (3, 2)), label=f"blind: below {0.5 + margin:g}")
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("AUROC of plausibility")
    heading(axes, DIRECTIONS["higher"], "range 0 to 1", title="Do plausible maps mean right predictions?")
    figure.legend(loc="outside lower center", ncols=2)
    return tips
