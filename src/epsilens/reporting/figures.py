"""The figures of the report, each as SVG bytes, drawn from the rows of the tables alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from epsilens.reporting.gate import Row, is_masked
from epsilens.reporting.style import (
    COLOURS,
    INK,
    attack_name,
    budget_axis,
    epsilon_axis,
    method_styles,
    plain,
    render,
    unit,
)
from epsilens.reporting.tables import at_headline, select

Facts = Mapping[str, Any]


def accuracy(rows: Sequence[Row], networks: Sequence[Row], *, budget: float, norm: str) -> bytes:
    """Accuracy against training epsilon: clean, each attack at the headline budget, and each extra test split.

    `networks` holds the accuracy of each network: small dots, and crosses for those that did not pass the gate.
    """
    reached, single = (at_headline(table, norm=norm, budget=budget) for table in (rows, networks))
    return render("accuracy", (5.2, 3.9), partial(_accuracy, reached, single, budget, norm))


def _accuracy(rows: Sequence[Row], networks: Sequence[Row], budget: float, norm: str, figure: Figure) -> None:
    axes = figure.add_subplot()
    places = epsilon_axis(axes, [row["epsilon"] for row in (*rows, *networks)], norm)
    kinds = list(dict.fromkeys((row["split"], row["attack"]) for row in rows))
    names = {kind: _accuracy_name(*kind, budget) for kind in kinds}
    styles = method_styles(list(names.values()), set())
    for (split, attack), name in names.items():
        _line(axes, select(rows, split=split, attack=attack), "accuracy", places, plain(name), styles[name])
        _dots(axes, select(networks, split=split, attack=attack), places, styles[name]["color"])
    _share_axis(axes)
    marked = [Line2D([], [], color=INK, linestyle="", marker="x", markersize=5, label="did not pass the gate")]
    shown = [*axes.get_legend_handles_labels()[0], *(marked if any(map(is_masked, networks)) else [])]
    figure.legend(handles=shown, loc="outside lower center", ncols=2)


def _dots(axes: Axes, networks: Sequence[Row], places: Mapping[float, float], colour: str) -> None:
    """Single networks; dots of the only seed would repeat the line."""
    masked = [row for row in networks if is_masked(row)]
    sound = [row for row in networks if not is_masked(row)]
    if len({row["seed"] for row in sound}) > 1:
        x, y = [places[row["epsilon"]] for row in sound], [row["accuracy"] for row in sound]
        axes.scatter(x, y, s=7, color=colour, alpha=0.75, linewidths=0, zorder=3)
    if masked:
        x, y = [places[row["epsilon"]] for row in masked], [row["accuracy"] for row in masked]
        axes.scatter(x, y, s=26, color=colour, marker="x", linewidths=1.2, zorder=4)


def _share_axis(axes: Axes) -> None:
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.set_ylabel("accuracy")


def _accuracy_name(split: str, attack: str, budget: float) -> str:
    words = split.replace("_", " ")
    name = "clean" if attack == "clean" else f"{attack_name(attack)}, ε = {budget:g}"
    return name if split == "test" else f"{words}, {name}"


def matrix(rows: Sequence[Row], *, attack: str, norm: str, trained: str) -> bytes | None:
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
    size = (1.9 + 0.62 * len(budgets), 1.3 + 0.42 * len(epsilons))
    across = f"attack ε of {plain(attack_name(attack))} ({unit(norm)})"
    labels = (across, f"training ε ({unit(trained)})")
    return render(f"matrix-{attack}-{norm}", size, partial(_matrix, values, epsilons, budgets, labels))


def _matrix(
    values: np.ndarray, epsilons: list[float], budgets: list[float], labels: tuple[str, str], figure: Figure
) -> None:
    axes = figure.add_subplot()
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.pcolormesh(values, cmap=colormaps["Blues"], vmin=0, vmax=1.15, edgecolors="white", linewidth=2)
    for (i, j), value in np.ndenumerate(values):
        text = "–" if np.isnan(value) else f"{100 * value:.1f}"
        axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", color="white" if value > 0.55 else INK)
    axes.set_xticks(np.arange(len(budgets)) + 0.5, ["clean" if b == 0 else f"{b:g}" for b in budgets])
    axes.set_yticks(np.arange(len(epsilons)) + 0.5, [f"{e:g}" for e in epsilons])
    axes.invert_yaxis()
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])


def security(rows: Sequence[Row], *, norm: str, trained: str) -> bytes | None:
    """Accuracy under PGD against the attack budget in `norm`, a line a training epsilon, on the test split.

    What a security evaluation should show (Carlini et al. 2019, arXiv:1902.06705): accuracy falls with the budget, and
    to nothing at a large one. trained: the norm of training epsilons. None where there are fewer than two budgets.
    """
    attacked = select(rows, split="test", attack="pgd", norm=norm)
    if len({row["budget"] for row in attacked}) < 2:
        return None
    return render(f"security-{norm}", (5.2, 3.9), partial(_security, attacked, norm, trained))


def _security(rows: Sequence[Row], norm: str, trained: str, figure: Figure) -> None:
    axes = figure.add_subplot()
    epsilons = sorted({row["epsilon"] for row in rows})
    styles = method_styles([f"{epsilon:g}" for epsilon in epsilons], set())
    places = {row["budget"]: row["budget"] for row in rows}
    budget_axis(axes, list(places), "pgd", norm)
    for epsilon in epsilons:
        line = sorted(select(rows, epsilon=epsilon), key=lambda row: row["budget"])
        _line(axes, line, "accuracy", places, f"training ε = {epsilon:g}", styles[f"{epsilon:g}"], along="budget")
    _share_axis(axes)
    axes.set_title(f"training ε in {unit(trained)}", loc="left", fontsize=8, fontweight="normal")
    figure.legend(loc="outside lower center", ncols=3)


def metric(rows: Sequence[Row], name: str, facts: Facts, *, norm: str) -> bytes:
    """One metric against training epsilon, a line an attribution with its interval; `rows` are those of one set."""
    return render(f"metric-{name}", (4.6, 4.1), partial(_metric, select(rows, metric=name), name, facts, norm))


def _metric(rows: Sequence[Row], name: str, facts: Facts, norm: str, figure: Figure) -> None:
    axes = figure.add_subplot()
    places = epsilon_axis(axes, [row["epsilon"] for row in rows], norm)
    described, attributions = facts["metrics"][name], facts["attributions"]
    methods = list(dict.fromkeys(row["attribution"] for row in rows))
    controls = {method for method in methods if attributions.get(method, {}).get("kind") == "control"}
    for method, style in method_styles(methods, controls).items():
        label = plain(str(attributions.get(method, {}).get("label", method)))
        _line(axes, select(rows, attribution=method), "mean", places, label, style)
    if described.get("chance") is not None:
        axes.axhline(described["chance"], color=INK, linewidth=0.9, linestyle=(0, (1, 2)), label="chance level")
    _heading(axes, described)
    if all(np.isnan(row["mean"]) for row in rows):
        axes.text(0.5, 0.5, "undefined on all images", transform=axes.transAxes, ha="center")
    figure.legend(loc="outside lower center", ncols=2)


def _heading(axes: Axes, described: Facts, remark: str = "") -> None:
    axes.set_title(plain(str(described["label"])), pad=20)
    below = "     ".join(filter(None, [better(described), remark]))
    axes.text(0, 1.03, below, transform=axes.transAxes, fontsize=8, color="#55606c")


def better(described: Facts) -> str:
    """Which way is better, in words."""
    return {"higher": "↑ higher is better", "lower": "↓ lower is better"}.get(described.get("better") or "", "")


def _line(
    axes: Axes,
    rows: Sequence[Row],
    value: str,
    places: Mapping[float, float],
    label: str,
    style: dict[str, Any],
    *,
    along: str = "epsilon",
) -> None:
    x, y, low, high = np.array([[places[row[along]], row[value], row["low"], row["high"]] for row in rows]).T
    axes.plot(x, y, label=label, **style)
    if style["color"] in COLOURS:  # the intervals of the controls would cover those of the methods
        axes.fill_between(x, low, high, color=style["color"], alpha=0.13, linewidth=0)
        axes.vlines(x, low, high, color=style["color"], linewidth=1)


def trade_off(
    accuracies: Sequence[Row], rows: Sequence[Row], name: str, method: str, facts: Facts, *, norm: str
) -> bytes | None:
    """Clean accuracy against one metric of one attribution, a point an epsilon; None where none is defined."""
    clean = {row["epsilon"]: row for row in select(accuracies, split="test", attack="clean")}
    chosen = [row for row in select(rows, metric=name, attribution=method) if not np.isnan(row["mean"])]
    points = [(row["epsilon"], clean[row["epsilon"]], row) for row in chosen if row["epsilon"] in clean]
    if not points:
        return None
    label = facts["attributions"].get(method, {}).get("label", method)
    return render(
        f"trade-off-{name}", (4.6, 3.7), partial(_trade_off, points, facts["metrics"][name], str(label), norm)
    )


def _trade_off(
    points: Sequence[tuple[float, Row, Row]], described: Facts, method: str, norm: str, figure: Figure
) -> None:
    axes = figure.add_subplot()
    x, y = [clean["accuracy"] for _, clean, _ in points], [row["mean"] for *_, row in points]
    axes.plot(x, y, color="#b9c1ca", linewidth=1, zorder=1)
    for i, (epsilon, clean, row) in enumerate(points):
        colour = COLOURS[i % len(COLOURS)]
        axes.hlines(y[i], clean["low"], clean["high"], color=colour, linewidth=1.2)
        axes.vlines(x[i], row["low"], row["high"], color=colour, linewidth=1.2)
        axes.plot(x[i], y[i], color=colour, marker="o", markersize=6)
        # Alternately above and below, so that neighbours do not hide each other's label
        offset, side = ((6, 6), "left") if i % 2 == 0 else ((-6, -12), "right")
        axes.annotate(f"ε = {epsilon:g}", (x[i], y[i]), offset, textcoords="offset points", ha=side, fontsize=8)
    axes.margins(0.16)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.set_xlabel("clean accuracy")
    axes.set_ylabel(plain(f"{described['label']}, {method}"))
    _heading(axes, described, f"training ε in {unit(norm)}")


def training(rows: Sequence[Row]) -> bytes | None:
    """Validation accuracy (clean and attacked) and loss against the epoch, a line a network; None without history."""
    return render("training", (5.2, 5.6), partial(_training, rows)) if rows else None


def _training(rows: Sequence[Row], figure: Figure) -> None:
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    epsilons = sorted({row["epsilon"] for row in rows})
    for epsilon, seed in sorted({(row["epsilon"], row["seed"]) for row in rows}):
        history = select(rows, epsilon=epsilon, seed=seed)
        colour = COLOURS[epsilons.index(epsilon) % len(COLOURS)]
        _curve(top, history, "validation_accuracy", colour, "-")
        _curve(top, history, "validation_robust_accuracy", colour, (0, (4, 1.5)))
        _curve(bottom, history, "loss", colour, "-")
    top.set_ylabel("validation accuracy")
    top.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    bottom.set_ylabel("training loss")
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
