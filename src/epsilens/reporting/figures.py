"""The figures of accuracies and of training, drawn from the rows of the tables alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from epsilens.reporting.formats import DIRECTIONS, percent
from epsilens.reporting.gate import Row, is_masked
from epsilens.reporting.marks import heading, line, share_axis, share_scale
from epsilens.reporting.sheet import Sheet, Tip
from epsilens.reporting.style import (
    COLOURS,
    INK,
    PAPER,
    attack_name,
    budget_axis,
    epsilon_axis,
    method_styles,
    plain,
    unit,
)
from epsilens.reporting.tables import at_headline, select

HIGHER, LOWER = DIRECTIONS["higher"], DIRECTIONS["lower"]
ON_DARK, ON_PALE = "#fefefe", "#1b2530"  # numbers on coloured cells: no colours of the page, which change at night


def accuracy(rows: Sequence[Row], networks: Sequence[Row], *, budget: float, norm: str) -> Sheet:
    """Accuracy against training epsilon: clean, each attack at the headline budget, and each extra test split.

    `networks` holds the accuracy of each network: small dots, and crosses for those that did not pass the gate.
    """
    reached, single = (at_headline(table, norm=norm, budget=budget) for table in (rows, networks))
    return Sheet("accuracy", (4.5, 3.6), partial(_accuracy, reached, single, budget, norm))


def _accuracy(rows: Sequence[Row], networks: Sequence[Row], budget: float, norm: str, figure: Figure) -> list[Tip]:
    axes = figure.add_subplot()
    places = epsilon_axis(axes, [row["epsilon"] for row in (*rows, *networks)], norm)
    kinds = list(dict.fromkeys((row["split"], row["attack"]) for row in rows))
    names = {kind: _accuracy_name(*kind, budget) for kind in kinds}
    styles = method_styles(list(names.values()), set())
    tips: list[Tip] = []
    for (split, attack), name in names.items():
        one = select(networks, split=split, attack=attack)
        tips += _dots(axes, one, places, styles[name]["color"])
        tips += line(axes, select(rows, split=split, attack=attack), share_scale(places), plain(name), styles[name])
    share_axis(axes)
    heading(axes, HIGHER)
    marked = [Line2D([], [], color=INK, linestyle="", marker="x", markersize=5, label="did not pass the gate")]
    shown = [*axes.get_legend_handles_labels()[0], *(marked if any(map(is_masked, networks)) else [])]
    figure.legend(handles=shown, loc="outside lower center", ncols=2)
    return tips


def _dots(axes: Axes, networks: Sequence[Row], places: Mapping[float, float], colour: str) -> list[Tip]:
    """Single networks and their tips; dots of the only seed would repeat the line."""
    masked = [row for row in networks if is_masked(row)]
    sound = [row for row in networks if not is_masked(row)]
    dotted = sound if len({row["seed"] for row in sound}) > 1 else []
    if dotted:
        x, y = [places[row["epsilon"]] for row in sound], [row["accuracy"] for row in sound]
        axes.scatter(x, y, s=7, color=colour, alpha=0.75, linewidths=0, zorder=3)
    if masked:
        x, y = [places[row["epsilon"]] for row in masked], [row["accuracy"] for row in masked]
        axes.scatter(x, y, s=26, color=colour, marker="x", linewidths=1.2, zorder=4)
    return [Tip(axes, places[row["epsilon"]], row["accuracy"], _one_network(row)) for row in (*dotted, *masked)]


def _one_network(row: Row) -> str:
    gate = f"; gate: {row['gate']}" if is_masked(row) else ""
    return f"training ε = {row['epsilon']:g}, seed {row['seed']}: {percent(row['accuracy'])}{gate}"


def _accuracy_name(split: str, attack: str, budget: float) -> str:
    words = split.replace("_", " ")
    name = "clean" if attack == "clean" else f"{attack_name(attack)}, ε = {budget:g}"
    return name if split == "test" else f"{words}, {name}"


def matrix(rows: Sequence[Row], *, attack: str, norm: str, trained: str) -> Sheet | None:
    """Training epsilon by attack budget in `norm` on the test split, as numbers on a heat map.

    trained: the norm of training epsilons. None where there are fewer than two budgets.
    """
    attacked = select(rows, split="test", attack=attack, norm=norm)
    if len({row["budget"] for row in attacked}) < 2:
        return None
    cells = {(row["epsilon"], 0.0): row["accuracy"] for row in select(rows, split="test", attack="clean")}
    # An attack of budget 0 is the clean accuracy on the attacked images alone: it goes first.
    cells |= {(row["epsilon"], row["budget"]): row["accuracy"] for row in attacked}
    epsilons, budgets = (sorted(set(axis)) for axis in zip(*cells, strict=True))
    values = np.array([[cells.get((e, b), np.nan) for b in budgets] for e in epsilons])
    size = (max(3.4, 1.9 + 0.62 * len(budgets)), 1.5 + 0.42 * len(epsilons))
    across = f"attack ε of {plain(attack_name(attack))} ({unit(norm)})"
    labels = (across, f"training ε ({unit(trained)})")
    return Sheet(f"matrix-{attack}-{norm}", size, partial(_matrix, values, epsilons, budgets, labels))


def _matrix(
    values: np.ndarray, epsilons: list[float], budgets: list[float], labels: tuple[str, str], figure: Figure
) -> None:
    axes = figure.add_subplot()
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.pcolormesh(values, cmap=colormaps["Blues"], vmin=0, vmax=1.15, edgecolors=PAPER, linewidth=2)
    for (i, j), value in np.ndenumerate(values):
        text = "–" if np.isnan(value) else f"{100 * value:.1f}"
        axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=ON_DARK if value > 0.55 else ON_PALE)
    axes.set_xticks(np.arange(len(budgets)) + 0.5, ["clean" if b == 0 else f"{b:g}" for b in budgets])
    axes.set_yticks(np.arange(len(epsilons)) + 0.5, [f"{e:g}" for e in epsilons])
    axes.invert_yaxis()
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    heading(axes, "test accuracy in %", HIGHER)


def security(rows: Sequence[Row], *, norm: str, trained: str) -> Sheet | None:
    """Accuracy under PGD against the attack budget in `norm`, a line a training epsilon, on the test split.

    What a security evaluation should show (Carlini et al. 2019, arXiv:1902.06705): accuracy falls with the budget, and
    to nothing at a large one. trained: the norm of training epsilons. None where there are fewer than two budgets.
    """
    attacked = select(rows, split="test", attack="pgd", norm=norm)
    if len({row["budget"] for row in attacked}) < 2:
        return None
    return Sheet(f"security-{norm}", (4.5, 3.6), partial(_security, attacked, norm, trained))


def _security(rows: Sequence[Row], norm: str, trained: str, figure: Figure) -> list[Tip]:
    axes = figure.add_subplot()
    epsilons = sorted({row["epsilon"] for row in rows})
    styles = method_styles([f"{epsilon:g}" for epsilon in epsilons], set())
    places = {row["budget"]: row["budget"] for row in rows}
    budget_axis(axes, list(places), "pgd", norm)
    scale = share_scale(places, along="budget", noun="attack ε")
    tips: list[Tip] = []
    for epsilon in epsilons:
        curve = sorted(select(rows, epsilon=epsilon), key=lambda row: row["budget"])
        tips += line(axes, curve, scale, f"training ε = {epsilon:g}", styles[f"{epsilon:g}"])
    share_axis(axes)
    heading(axes, HIGHER, f"training ε in {unit(trained)}")
    figure.legend(loc="outside lower center", ncols=3)
    return tips


def training(rows: Sequence[Row]) -> Sheet | None:
    """Validation accuracy (clean and attacked) and loss against the epoch, a line a network; None without history."""
    return Sheet("training", (4.5, 5.2), partial(_training, rows)) if rows else None


def _training(rows: Sequence[Row], figure: Figure) -> None:
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    epsilons = sorted({row["epsilon"] for row in rows})
    for epsilon, seed in sorted({(row["epsilon"], row["seed"]) for row in rows}):
        history = select(rows, epsilon=epsilon, seed=seed)
        colour = COLOURS[epsilons.index(epsilon) % len(COLOURS)]
        _curve(top, history, "validation_accuracy", colour, "-")
        _curve(top, history, "validation_robust_accuracy", colour, (0, (4, 1.5)))
        _curve(bottom, history, "loss", colour, "-")
    heading(top, HIGHER)
    heading(bottom, LOWER)
    top.set_ylabel("validation accuracy")
    top.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    bottom.set_ylabel("training loss (nats)")
    bottom.set_xlabel("epoch")
    bottom.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(handles=_training_legend(epsilons), loc="outside lower center", ncols=3)


def _curve(axes: Axes, history: Sequence[Row], key: str, colour: str, dash: Any) -> None:
    points = [(row["epoch"], row[key], bool(row.get("kept"))) for row in history if row.get(key) is not None]
    if not points:
        return
    x, y, kept = zip(*points, strict=True)
    axes.plot(x, y, color=colour, linestyle=dash, linewidth=1.2)
    axes.scatter(
        [a for a, keep in zip(x, kept, strict=True) if keep],
        [b for b, keep in zip(y, kept, strict=True) if keep],
        s=22, color=colour, zorder=3,
    )  # fmt: skip


def _training_legend(epsilons: Sequence[float]) -> list[Line2D]:
    networks = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], label=f"training ε = {e:g}") for i, e in enumerate(epsilons)
    ]
    kinds = [
        Line2D([], [], color=INK, label="clean"),
        Line2D([], [], color=INK, linestyle=(0, (4, 1.5)), label="under attack"),
        Line2D([], [], color=INK, linestyle="", marker="o", label="weights kept"),
    ]
    return networks + kinds
