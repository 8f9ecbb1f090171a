"""The headlines of two or more revisions or experiments side by side, from the small tables that Git holds of each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from epsilens.errors import DataError
from epsilens.reporting import page
from epsilens.reporting.formats import DIRECTIONS, Form, number, percent, points, spread
from epsilens.reporting.gate import Row, is_masked
from epsilens.reporting.marks import Scale, heading, line, share_axis
from epsilens.reporting.sheet import Sheet, Tip
from epsilens.reporting.style import attack_name, epsilon_axis, method_styles, plain
from epsilens.reporting.tables import at_headline, select

TEMPLATE = "compare.html.j2"
NEEDED = (("threat", "norm"), ("attack", "epsilon"), ("report", "metrics"), ("report", "confidence"), ("study", "name"))


@dataclass(frozen=True)
class Snapshot:
    """What one revision says: its name as given, its commit, its params.yaml, and three of its tables."""

    name: str
    commit: str
    params: Mapping[str, Any]
    accuracy: Sequence[Row]
    networks: Sequence[Row]
    headline: Sequence[Row]

    @property
    def threat(self) -> tuple[str, float]:
        """The norm and the budget of its headline."""
        return self.params["threat"]["norm"], self.params["attack"]["epsilon"]


@dataclass(frozen=True)
class Quantity:
    """One headline: its title, its direction (higher, lower or None), and of each snapshot its rows by training epsilon.

    Each row has value, low, high and n.
    """

    title: str
    better: str | None
    share: bool
    rows: tuple[Mapping[float, Row], ...]


def check(snapshots: Sequence[Snapshot]) -> None:
    """Raises DataError for fewer than two snapshots, and for parameters that a comparison needs and one lacks."""
    if len(snapshots) < 2:
        raise DataError(f"compare: found {len(snapshots)} revision, expected at least two")
    lines = [
        f"{snapshot.name}: params.yaml has no {section}.{key}; its results cannot be compared"
        for snapshot in snapshots
        for section, key in NEEDED
        if key not in (snapshot.params.get(section) or {})
    ]
    if lines:
        raise DataError("\n".join(lines))


def quantities(snapshots: Sequence[Snapshot]) -> list[Quantity]:
    """Accuracies at each snapshot's headline budget, then its headline metrics, in the order in which they occur."""
    reached = [at_headline(s.accuracy, norm=s.threat[0], budget=s.threat[1]) for s in snapshots]
    kinds = dict.fromkeys((r["split"], r["attack"], r["norm"], r["budget"]) for rows in reached for r in rows)
    found = [_accuracy(kind, reached) for kind in kinds if kind[1] != "clean"]
    clean = dict.fromkeys(split for split, attack, *_ in kinds if attack == "clean")
    found = [_accuracy((split, "clean", None, 0.0), reached) for split in clean] + found
    shown = [[r for r in s.headline if r["metric"] in s.params["report"]["metrics"]] for s in snapshots]
    pairs = dict.fromkeys((r["metric"], r["attribution"]) for rows in shown for r in rows)
    return found + [_metric(metric, attribution, shown) for metric, attribution in pairs]


def _accuracy(kind: tuple[str, str, str | None, float], reached: Sequence[Sequence[Row]]) -> Quantity:
    split, attack, norm, budget = kind
    wanted = {"split": split, "attack": attack} | ({} if norm is None else {"norm": norm, "budget": budget})
    name = "Clean accuracy" if norm is None else f"Accuracy under {attack_name(attack)}, ε = {budget:g} ({norm})"
    title = name if split == "test" else f"{name}, {split.replace('_', ' ')}"
    rows = tuple(_by_epsilon(select(rows, **wanted), "accuracy", "n_images") for rows in reached)
    return Quantity(title, "higher", share=True, rows=rows)


def _metric(metric: str, attribution: str, shown: Sequence[Sequence[Row]]) -> Quantity:
    chosen = [select(rows, metric=metric, attribution=attribution) for rows in shown]
    better = next((row.get("better") for rows in chosen for row in rows), None)
    title = f"{metric.replace('_', ' ')}, {attribution.replace('_', ' ')}"
    return Quantity(title, better, share=False, rows=tuple(_by_epsilon(rows, "mean", "n") for rows in chosen))


def _by_epsilon(rows: Sequence[Row], value: str, size: str) -> dict[float, Row]:
    """Rows under common names; null, which stands for what is undefined, is NaN."""
    names = {"value": value, "low": "low", "high": "high"}
    return {
        row["epsilon"]: {name: math.nan if row[key] is None else row[key] for name, key in names.items()}
        | {"epsilon": row["epsilon"], "n": row[size]}
        for row in rows
    }


def difference(first: Row, second: Row) -> tuple[float, float, float]:
    """second minus first with its interval, from the intervals of the two (Zou and Donner 2008, doi:10.1002/sim.3095).

    The method of variance estimates recovery, for independent estimates. Where the two share images or networks, as
    revisions of one study do, they vary together, and the interval is too wide rather than too narrow.
    """
    change = second["value"] - first["value"]
    down = math.hypot(second["value"] - second["low"], first["high"] - first["value"])
    up = math.hypot(second["high"] - second["value"], first["value"] - first["low"])
    return change, change - down, change + up


def verdict(change: tuple[float, float, float], better: str | None) -> str:
    """`better`, `worse` (or `higher`, `lower` where neither is better), `the same`, or `not told apart`."""
    value, low, high = change
    if math.isnan(low) or math.isnan(high):
        return "undefined"
    if value == 0:
        return "the same"
    if low <= 0 <= high:
        return "not told apart"
    up = "higher" if value > 0 else "lower"
    return up if better is None else "better" if up == better else "worse"


def table(snapshots: Sequence[Snapshot]) -> list[Row]:
    """A row a quantity and training epsilon: what each snapshot has, and how each differs from the first."""
    rows = []
    for quantity in quantities(snapshots):
        form, step = (percent, points) if quantity.share else (number, number)
        for epsilon in sorted({epsilon for its in quantity.rows for epsilon in its}):
            found = [its.get(epsilon) for its in quantity.rows]
            cells = [_cell(row, form) for row in found]
            against = [_against(found[0], row, quantity.better, step) for row in found[1:]]
            rows.append({"what": quantity.title, "better": quantity.better, "epsilon": epsilon, "cells": cells,
                         "against": against})  # fmt: skip
    return rows


def _cell(row: Row | None, form: Form) -> str:
    return "–" if row is None else spread(row, "value", form)


def _against(first: Row | None, row: Row | None, better: str | None, step: Form) -> dict[str, str]:
    if first is None or row is None:
        return {"difference": "–", "verdict": ""}
    change = difference(first, row)
    value, low, high = change
    return {"difference": spread({"value": value, "low": low, "high": high}, "value", step),
            "verdict": verdict(change, better)}  # fmt: skip


def parameters(snapshots: Sequence[Snapshot]) -> list[Row]:
    """The parameters that are not the same in all snapshots, by their dotted names; None where one has no such."""
    leaves = [_flat(snapshot.params) for snapshot in snapshots]
    names = sorted({name for found in leaves for name in found})
    rows = [{"name": name, "values": [found.get(name) for found in leaves]} for name in names]
    return [row for row in rows if len(set(row["values"])) > 1]


def _flat(tree: Any, above: str = "") -> dict[str, str]:
    if isinstance(tree, Mapping) and tree:
        nested = [_flat(value, f"{above}.{name}".strip(".")) for name, value in tree.items()]
        return {name: value for leaves in nested for name, value in leaves.items()}
    return {above: json.dumps(tree, ensure_ascii=False, default=str)}


def cautions(snapshots: Sequence[Snapshot]) -> list[str]:
    """What a reader must not conclude from the table."""
    lines = [
        "Intervals of differences take the revisions for independent. Where they share images or networks, they are "
        "wider than they need be: what is not told apart here may still differ."
    ]
    for what, keys in {"data": ("data",), "images under attack": ("attack", "images")}.items():
        if len({json.dumps(_at(s.params, keys), sort_keys=True, default=str) for s in snapshots}) > 1:
            lines.append(f"The revisions differ in their {what}: differences mix that with all else.")
    if len({s.params["report"]["confidence"] for s in snapshots}) > 1:
        lines.append("The revisions state intervals of different confidence.")
    lines.append(
        "The set of images that every network gets right is each revision's own: a metric may differ because the images do."
    )
    level = min(s.params["report"]["confidence"] for s in snapshots)
    lines.append(
        f"Each difference stands for itself: where nothing differs, about {100 * (1 - level):.2g} in 100 would still be "
        "told apart by chance."
    )
    for snapshot in snapshots:
        out = {(row["epsilon"], row["seed"]) for row in snapshot.networks if is_masked(row)}
        if out:
            which = "; ".join(f"training ε = {epsilon:g}, seed {seed}" for epsilon, seed in sorted(out))
            lines.append(f"{snapshot.name}: did not pass the gate against masked gradients: {which}.")
    return lines


def _at(tree: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def figures(snapshots: Sequence[Snapshot]) -> dict[str, Sheet]:
    """A panel a quantity, a line a snapshot."""
    names = [snapshot.name for snapshot in snapshots]
    norm = snapshots[0].threat[0]
    return {
        f"compare-{i}": Sheet(f"compare-{i}", (4.1, 3.6), partial(_draw, quantity, names, norm))
        for i, quantity in enumerate(quantities(snapshots))
    }


def _draw(quantity: Quantity, names: Sequence[str], norm: str, figure: Figure) -> list[Tip]:
    axes = figure.add_subplot()
    places = epsilon_axis(axes, [epsilon for its in quantity.rows for epsilon in its], norm)
    scale = Scale(places, value="value", form=percent if quantity.share else number)
    styles = method_styles([str(i) for i in range(len(names))], set())
    tips: list[Tip] = []
    for i, (name, its) in enumerate(zip(names, quantity.rows, strict=True)):
        if its:
            tips += line(axes, [its[epsilon] for epsilon in sorted(its)], scale, plain(name), styles[str(i)])
    if quantity.share:
        share_axis(axes)
    heading(axes, DIRECTIONS[quantity.better], title=plain(quantity.title))
    figure.legend(loc="outside lower center", ncols=2)
    return tips


def render(snapshots: Sequence[Snapshot]) -> bytes:
    """The page that shows them side by side."""
    check(snapshots)
    drawn = {name: page.inline(sheet.svg()) for name, sheet in figures(snapshots).items()}
    content = {
        "snapshots": snapshots,
        "level": f"{100 * snapshots[0].params['report']['confidence']:g}",
        "rows": table(snapshots),
        "parameters": parameters(snapshots),
        "cautions": cautions(snapshots),
        "figures": drawn,
    }
    return page.fill(TEMPLATE, content)
