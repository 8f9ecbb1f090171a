"""How every figure looks: colours, line styles, the axes of budgets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers tell apart; their yellow is left out: it is too pale on white. Their
# black is a little lighter: SVG leaves black unsaid, and a page could not change it at night.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#111111")
GREYS = ("#6b6b6b", "#8f8f8f", "#adadad")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ((0, (3, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
INK, SOFT, EDGE, FAINT, PAPER = "#1d2733", "#55606c", "#8a94a0", "#d9dee4", "#ffffff"
PATH = "#b9c1ca"  # a line that only leads the eye

# Custom properties of page.css that take the place of the colours on a page, so that figures follow its dark mode.
PROPERTIES: dict[str, str] = {
    **{colour.lower(): f"--c{i}" for i, colour in enumerate(COLOURS)},
    **{colour: f"--g{i}" for i, colour in enumerate(GREYS)},
    INK: "--ink",
    SOFT: "--soft",
    EDGE: "--edge",
    FAINT: "--faint",
    PAPER: "--card",
    PATH: "--path",
}

LOOK: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "svg.fonttype": "path",  # text as outlines: the same picture whatever fonts the reader has
}

CROWDED = 0.05  # share of the axis: budgets nearer than this would hide each other
MANY = 7  # epsilons on an axis, beyond which their labels would touch


def plain(text: str) -> str:
    """Text in which matplotlib sees no mathematics."""
    return text.replace("$", r"\$")


def method_styles(names: Sequence[str], controls: set[str]) -> dict[str, dict[str, Any]]:
    """Line style of each name: methods in colour, controls thin, grey and dashed; markers differ in both groups."""
    methods = [name for name in names if name not in controls]
    others = [name for name in names if name in controls]
    return {name: _method_style(i) for i, name in enumerate(methods)} | {
        name: _control_style(i) for i, name in enumerate(others)
    }


def _method_style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "linestyle": "-"}


def _control_style(i: int) -> dict[str, Any]:
    dash = DASHES[i % len(DASHES)]
    thin = {"linewidth": 1.1, "markersize": 3.5, "zorder": 1.5}
    return {
        "color": GREYS[i // len(DASHES) % len(GREYS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": dash,
    } | thin


ATTACKS = {"pgd": "PGD", "autoattack": "AutoAttack", "ensemble": "the ensemble", "square": "Square"}


def attack_name(attack: str) -> str:
    """An attack as the literature writes it; one that is not known here in capitals."""
    return ATTACKS.get(attack, attack.upper())


def unit(norm: str) -> str:
    """The unit of an epsilon in the literature's convention."""
    return {"linf": "1/255, L∞", "l2": "L2"}.get(norm.lower(), norm)


def crowded(values: Sequence[float]) -> bool:
    """Whether two of the values would hide each other on an axis that is to scale."""
    ordered = sorted(set(values))
    gaps = [after - before for before, after in pairwise(ordered)]
    return bool(gaps) and min(gaps) < CROWDED * (ordered[-1] - ordered[0])


def positions(epsilons: Sequence[float]) -> dict[float, float]:
    """Where each epsilon lies: at its own value, or equally spaced where the values are too uneven to be told apart."""
    ordered = sorted(set(epsilons))
    if crowded(ordered):
        return {epsilon: float(i) for i, epsilon in enumerate(ordered)}
    return {epsilon: epsilon for epsilon in ordered}


def epsilon_axis(axes: Axes, epsilons: Sequence[float], norm: str) -> dict[float, float]:
    """Ticks and label of a training epsilon axis; returns `positions`."""
    places = positions(epsilons)
    uneven = any(place != epsilon for epsilon, place in places.items())
    axes.set_xticks(
        list(places.values()), [f"{epsilon:g}" for epsilon in places], rotation=45 if len(places) > MANY else 0
    )
    axes.set_xlabel(f"training ε ({unit(norm)})" + (", not to scale" if uneven else ""))
    if len(places) > 1:
        axes.margins(x=0.06)
    else:
        axes.set_xlim(next(iter(places.values())) - 1, next(iter(places.values())) + 1)
    return places


def budget_axis(axes: Axes, budgets: Sequence[float], attack: str, norm: str) -> None:
    """Ticks and label of an attack budget axis; linear below the smallest budget and a step for each doubling above it
    where the budgets would hide each other, as 1 to 8 and 128 would."""
    ordered = sorted(set(budgets))
    smallest = next(budget for budget in ordered if budget > 0)
    remark = ""
    if crowded(ordered):
        axes.set_xscale("symlog", base=2, linthresh=smallest, linscale=0.5)  # as wide as a doubling
        remark = f", logarithmic above {smallest:g}"
    axes.set_xticks(ordered, [f"{budget:g}" for budget in ordered])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(f"attack ε of {plain(attack_name(attack))} ({unit(norm)}){remark}")
