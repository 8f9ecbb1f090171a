"""What the numbers say, in sentences, and what they cannot say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epsilens.reporting.config import ReportConfig
from epsilens.reporting.formats import Form, better, counted, number, percent, points
from epsilens.reporting.gate import Row
from epsilens.reporting.style import attack_name
from epsilens.reporting.tables import at_headline, select

Facts = Mapping[str, Any]

FEW_IMAGES = 30  # below, a percentile interval of a mean is rough
FEW_SEEDS = 5  # below, the spread over training runs is hardly known


@dataclass(frozen=True)
class Headline:
    """One answer: a title, the values at the smallest and the largest epsilon, and the sentence that says how sure."""

    title: str
    values: str
    sentence: str
    note: str


def headlines(
    accuracy: Sequence[Row], quality: Sequence[Row], facts: Facts, config: ReportConfig, *, norm: str, budget: float
) -> list[Headline]:
    """Clean accuracy, accuracy under each attack at the headline budget, each extra split, each headline metric."""
    reached = at_headline(accuracy, norm=norm, budget=budget)
    kinds = dict.fromkeys((row["split"], row["attack"]) for row in reached)
    found = [_accuracy(select(reached, split=split, attack=attack), config.confidence) for split, attack in kinds]
    return found + [_metric(quality, metric, facts, config) for metric in config.metrics]


def _accuracy(rows: Sequence[Row], confidence: float) -> Headline:
    row = rows[0]
    title = (
        "Clean accuracy"
        if row["attack"] == "clean"
        else f"Accuracy under {attack_name(row['attack'])}, ε = {row['budget']:g}"
    )
    title += "" if row["split"] == "test" else f", {row['split'].replace('_', ' ')}"
    values, sentence = _compare([(row, row["accuracy"]) for row in rows], percent, points, confidence)
    return Headline(title, values, sentence, counted(row["n_images"], "image"))


def _metric(quality: Sequence[Row], metric: str, facts: Facts, config: ReportConfig) -> Headline:
    common = select(quality, metric=metric, set="common")
    rows = select(common, attribution=config.attribution)
    described = facts["metrics"][metric]
    values, sentence = _compare([(row, row["mean"]) for row in rows], number, number, config.confidence)
    notes = [better(described), _chance(described), _best_control(common, described, facts)]
    notes.append(counted(rows[-1]["n"], "image"))
    title = f"{described['label']}, {facts['attributions'][config.attribution]['label']}"
    return Headline(title, values, sentence, " · ".join(filter(None, notes)))


def _chance(described: Facts) -> str:
    return "" if described.get("chance") is None else f"chance {number(described['chance'])}"


def _best_control(rows: Sequence[Row], described: Facts, facts: Facts) -> str:
    """The control that does best at the largest epsilon: what a method must beat to say anything of the network."""
    last = [row for row in rows if row["epsilon"] == max(r["epsilon"] for r in rows) and not math.isnan(row["mean"])]
    controls = [row for row in last if facts["attributions"][row["attribution"]]["kind"] == "control"]
    pick = {"higher": max, "lower": min}.get(described.get("better") or "")
    if not controls or pick is None:
        return ""
    best = pick(controls, key=lambda row: row["mean"])
    label = facts["attributions"][best["attribution"]]["label"]
    return f"best control at {_epsilon(best)}: {number(best['mean'])} ({label})"


def _compare(rows: Sequence[tuple[Row, float]], form: Form, step: Form, confidence: float) -> tuple[str, str]:
    """The values at the two ends of the sweep and the sentence about their difference."""
    (first, start), (last, end) = rows[0], rows[-1]
    if math.isnan(start) or math.isnan(end):
        return "–", "Undefined: no image of the headline set has a score."
    if len(rows) == 1:
        spread = f"{_level(confidence)} interval {form(first['low'])} to {form(first['high'])}"
        return form(start), f"{spread}; one training ε, so nothing to compare."
    return f"{form(start)} → {form(end)}", _change(first, last, step, confidence, " points" if form is percent else "")


def _change(first: Row, last: Row, step: Form, confidence: float, unit: str) -> str:
    low, high, difference = last["difference_low"], last["difference_high"], last["difference"]
    where = f"from training {_epsilon(first)} to {_epsilon(last)}"
    level = f"{_level(confidence)} interval"
    if math.isnan(low):
        return f"Differs by {step(difference)}{unit} {where}; no interval, because the two share no seed."
    if low > 0:
        return f"Rises by {step(difference)}{unit} {where} ({level} {step(low)} to {step(high)})."
    if high < 0:
        return f"Falls by {step(-difference)}{unit} {where} ({level} {step(-high)} to {step(-low)})."
    change = f"{step(difference)}{unit} ({level} {step(low)} to {step(high)})"
    return f"No clear change {where}: {change}. That does not prove that nothing changes."


def _epsilon(row: Row) -> str:
    return f"ε\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{row['epsilon']:g}"


def _level(confidence: float) -> str:
    return f"{100 * confidence:g}\N{NO-BREAK SPACE}%"


def sizes(quality: Sequence[Row]) -> dict[str, int]:
    """How many images each set has (those with at least one defined score)."""
    return {name: max(row["n"] for row in select(quality, set=name)) for name in ("common", "all", "own")}


def cautions(quality: Sequence[Row], facts: Facts, config: ReportConfig) -> list[str]:
    """What a reader must not conclude from this study."""
    n, counts = max(row["n_seeds"] for row in quality), sizes(quality)
    lines = [_seeds(n), *_images(counts["common"], counts["all"]), *_epsilons({row["epsilon"] for row in quality})]
    lines += _undefined(quality, facts)
    comparisons = len({(row["metric"], row["attribution"]) for row in quality})
    lines.append(
        f"Intervals stand each for itself. Among {comparisons} pairs of metric and attribution, about "
        f"{100 * (1 - config.confidence):.2g} in 100 differences would exclude 0 by chance alone."
    )
    return lines


def _seeds(n: int) -> str:
    if n == 1:
        return (
            "One seed: the intervals hold for these very networks and say how much depends on the choice of images. "
            "Trained again, the networks may score differently; nothing here says by how much."
        )
    if n < FEW_SEEDS:
        return (
            f"{n} seeds: the intervals include the spread over training runs. {n} runs show it only roughly, so they are "
            f"wide (Student's t with {n - 1} degree{'s' * (n > 2)} of freedom)."
        )
    return f"{n} seeds: the intervals include the spread over training runs."


def _images(common: int, scored: int) -> list[str]:
    if common == 0:
        return [
            "No image with a defined score is classified correctly by every network: the headline set is empty, and "
            "its numbers are missing. The tables give all images, and each network's own correct ones."
        ]
    if scored == 1:
        return ["One image was scored: nothing here tells how others would score."]
    if common < FEW_IMAGES:
        return [f"Only {common} of {scored} scored images are in the headline set: intervals of so few are rough."]
    return []


def _epsilons(found: set[float]) -> list[str]:
    lines = []
    if len(found) == 1:
        lines.append("One training ε: the study has nothing to compare it with.")
    if min(found) > 0:
        lines.append(
            f"No network was trained without an adversary: what that changes cannot be concluded. ε = {min(found):g} stands "
            "where the standard network should; without a network at score.audit.epsilon there is no confound audit either."
        )
    return lines


def _undefined(quality: Sequence[Row], facts: Facts) -> list[str]:
    everywhere = select(quality, set="all")
    totals = {name: sum(row["n"] for row in select(everywhere, metric=name)) for name in facts["metrics"]}
    empty = [
        str(facts["metrics"][name]["label"]) for name, n in totals.items() if n == 0 and select(everywhere, metric=name)
    ]
    partly = sum(row["nan"] for row in everywhere if totals[row["metric"]])
    lines = []
    if empty:
        lines.append(f"Undefined on every image (relevance needs masks): {', '.join(empty)}.")
    if partly:
        which = " of other metrics" if empty else ""
        lines.append(f"{partly} single scores{which} are undefined; they are left out and counted (nan).")
    return lines
