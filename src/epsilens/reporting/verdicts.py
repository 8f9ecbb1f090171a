"""How the claims of the study are told: a card each, with what was measured, both verdicts and what decides."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from epsilens.reporting.config import ClaimsConfig
from epsilens.reporting.formats import number, percent, points
from epsilens.reporting.gate import Row
from epsilens.reporting.tables import select

Facts = Mapping[str, Any]
Unit = Literal["", "%", "points"]

BADGES = {"supported": "✓", "contradicted": "✗", "undecided": "?"}  # words stand beside them


@dataclass(frozen=True)
class Rule:
    """What is measured of a claim, in which unit, and the bound: on its one side is support, on the other contradiction.

    measured: a phrase with {metric}, {at} and {first}, the epsilons that are compared. signed: a change, told with its sign.
    tested: the verdict needs a test besides the interval.
    """

    measured: str
    unit: Unit
    bound: Callable[[ClaimsConfig], float]
    above: bool  # supported above the bound
    signed: bool = False
    tested: bool = True
    also: str = ""  # what support needs besides
    or_else: str = ""  # what contradicts it as well

    def text(self, value: float) -> str:
        """A value of this claim as a reader sees it."""
        form = {"": number, "%": percent, "points": points}[self.unit]
        sign = "+" if self.signed and value > 0 else ""
        return f"{sign}{form(value)}"

    def decides(self, wanted: ClaimsConfig) -> str:
        """The sentence that says what decides, with the thresholds of this study."""
        bound = self.bound(wanted)
        shown = f"{100 * bound:g} {self.unit}" if self.unit else f"{bound:g}"
        shown = shown.replace("-", "−")
        test = f" and p ≤ {wanted.alpha:g}" if self.tested else ""
        one, other = ("above", "below") if self.above else ("below", "above")
        return (
            f"Supported: the whole interval is {one} {shown}{self.also}{test}. "
            f"Contradicted: it is {other}{self.or_else}{test}."
        )


GAIN = "gain in {metric} at ε = {at}, from ε = {first}"

RULES: Mapping[str, Rule] = {
    "more concise": Rule(GAIN, "", lambda _: 0.0, above=True, signed=True),
    "more stable": Rule(GAIN, "", lambda _: 0.0, above=True, signed=True),
    "not more relevant": Rule(GAIN, "", lambda wanted: wanted.relevance_margin, above=False, signed=True),
    "modest training helps": Rule(
        "share of the gain in {metric} that is there at ε = {at}",
        "%",
        lambda wanted: wanted.modest_share,
        above=True,
        also=", the gain itself is above 0,",
        or_else=", or there is a loss at both ε,",
    ),
    "costs accuracy": Rule(
        "change in clean accuracy at ε = {at}, from ε = {first}",
        "points",
        lambda wanted: -wanted.accuracy_margin,
        above=False,
        signed=True,
    ),
    "plausible maps mislead": Rule(
        "of the plausible maps at ε = {at}, those that mislead",
        "%",
        lambda wanted: wanted.misleading_rate,
        above=True,
        tested=False,
    ),
    "plausibility is blind": Rule(
        "AUROC of plausibility for right predictions at ε = {at}",
        "",
        lambda wanted: 0.5 + wanted.auroc_margin,
        above=False,
        tested=False,
    ),
}


def cards(rows: Sequence[Row], facts: Facts, wanted: ClaimsConfig, first: float) -> list[dict[str, Any]]:
    """One card a claim: the sentence, its cases (metrics) with a line a scope, what decides, and how other methods fare.

    `rows` are of claims_table; first: the smallest training epsilon.
    """
    return [_card(select(rows, claim=claim), facts, wanted, first) for claim in dict.fromkeys(r["claim"] for r in rows)]


def tally(told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Over all cards: how many claims have which verdict in each scope; one whose metrics differ is mixed."""
    verdicts: dict[str, list[str]] = {}
    for card in told:
        lines = [line for case in card["cases"] for line in case["lines"]]
        for scope in dict.fromkeys(line["scope"] for line in lines):
            verdicts.setdefault(scope, []).append(_shared([ln["verdict"] for ln in lines if ln["scope"] == scope]))
    return [f"{scope}: {_counted(found)}" for scope, found in verdicts.items()]


def _card(rows: Sequence[Row], facts: Facts, wanted: ClaimsConfig, first: float) -> dict[str, Any]:
    name, shown = rows[0]["claim"], select(rows, headline=True)
    return {
        "claim": name,
        "figure": figure_name(name),
        "statement": rows[0]["statement"],
        "decides": RULES[name].decides(wanted),
        "cases": [
            {"measured": measured(case[0], facts, first), "lines": [_line(row) for row in case]}
            for case in _by_metric(shown)
        ],
        "methods": [_methods(select(rows, scope=scope), scope) for scope in dict.fromkeys(r["scope"] for r in rows)]
        if any(row["attribution"] for row in rows)
        else [],
    }


def figure_name(claim: str) -> str:
    return f"claim-{claim.replace(' ', '-')}"


def measured(row: Row, facts: Facts, first: float) -> str:
    """The phrase that says what the estimate of a row is; a metric that should fall is told with its direction."""
    known = facts["metrics"].get(row["metric"], {})
    metric = str(known.get("label", row["metric"]))
    metric += " (a fall: lower is better)" if known.get("better") == "lower" else ""
    return RULES[row["claim"]].measured.format(metric=metric, at=f"{row['epsilon']:g}", first=f"{first:g}")


def _by_metric(rows: Sequence[Row]) -> list[list[Row]]:
    return [select(rows, metric=metric) for metric in dict.fromkeys(row["metric"] for row in rows)]


def _line(row: Row) -> dict[str, str]:
    """What stands beside a verdict."""
    rule, (low, high) = RULES[row["claim"]], row["interval"]
    known = not math.isnan(low)
    return {
        "scope": row["scope"],
        "n": _units(row),
        "verdict": row["verdict"],
        "badge": BADGES[row["verdict"]],
        "estimate": f"{rule.text(row['estimate'])}{' points' if rule.unit == 'points' else ''}",
        "interval": f"{100 * row['confidence']:g} %: {rule.text(low)} to {rule.text(high)}" if known else "no interval",
        "p": p_text(row["p"]),
        "why": row["why"] or _besides(row),
    }


def _besides(row: Row) -> str:
    """What a verdict on one bound does not say."""
    blind = row["claim"] == "plausibility is blind" and row["interval"][1] < 0.5
    return "the interval is below 0.5: rather a sign of a wrong prediction" if blind else ""


def _units(row: Row) -> str:
    """What was replicated how often: seeds, or images; both where both count."""
    counts = {"seeds": row["n_seeds"]} if row["scope"] == "training" else {}
    counts |= {row["unit"]: row["n"]}
    return ", ".join(f"{n} {unit if n != 1 else unit.removesuffix('s')}" for unit, n in counts.items())


def p_text(p: float) -> str:
    """p as papers write it; where there is no test the interval alone decides."""
    if math.isnan(p):
        return "no test"
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _methods(rows: Sequence[Row], scope: str) -> str:
    """How many of the methods have which verdict."""
    methods: dict[str, list[str]] = {}
    for row in rows:
        methods.setdefault(row["attribution"], []).append(row["verdict"])
    return f"{scope}: {_counted([_shared(verdicts) for verdicts in methods.values()])}"


def _counted(verdicts: Sequence[str]) -> str:
    counts = Counter(verdicts)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in (*BADGES, "mixed") if counts[verdict])


def _shared(verdicts: Sequence[str]) -> str:
    """The verdict on all metrics of a method, or that they differ."""
    return verdicts[0] if len(set(verdicts)) == 1 else "mixed"


def table(rows: Sequence[Row], facts: Facts) -> list[Row]:
    """Every claim, scope, method and metric: the long table."""
    metrics, methods = facts["metrics"], facts["attributions"]
    return [
        {
            "claim": row["claim"],
            "of": row["scope"],
            "attribution": methods.get(row["attribution"], {}).get("label", row["attribution"] or "–"),
            "metric": metrics.get(row["metric"], {}).get("label", row["metric"]),
            "verdict": row["verdict"],
            "estimate": row["estimate"],
            "interval": row["interval"],
            "p": row["p"],
            "p alone": row["p_single"],
            "effect (d_z)": row["standardised"],
            "images that gain": row["improved"],
            "trend": row["trend"],
            "trend p": row["trend_p"],
            "n": row["n"],
            "unit": row["unit"],
            "what is open": row["why"],
        }
        for row in rows
    ]
