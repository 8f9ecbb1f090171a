"""What the tables of the trade-off, of plausible maps and of the confounds say, in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from epsilens.reporting.config import PlausibleConfig, RecommendConfig
from epsilens.reporting.formats import counted, number, percent, points, spread
from epsilens.reporting.gate import Row
from epsilens.reporting.plausible import AUROC, RATES
from epsilens.reporting.tables import select

Facts = Mapping[str, Any]


def choice(rows: Sequence[Row], facts: Facts, wanted: RecommendConfig) -> dict[str, str]:
    """Which training epsilon to take: `answer`, `why`, and `knees`; empty without rows to compare."""
    deciding = select(rows, metric=wanted.metric)
    if len(deciding) < 2:
        return {}
    metric = _label(wanted.metric, facts)
    rule = f"at least {wanted.gain:g} in {metric} for at most {100 * wanted.accuracy_loss:g} points of clean accuracy"
    taken = next((row for row in deciding if row["recommended"]), None)
    if taken is None:
        share = deciding[0]["none_share"]
        tried = "; ".join(_bargain(row, wanted) for row in deciding[1:])
        reason = deciding[0]["reason"]
        why = (
            f"{reason[:1].upper()}{reason[1:]}."
            if reason
            else f"No ε above the first gains {rule} ({_agree(share)}): {tried}."
        )
        return {"answer": "No ε is recommended", "why": why, "knees": _knees(rows, facts)}
    share = taken["recommended_share"]
    why = f"The smallest ε that gains {rule}: it {_bargain(taken, wanted, named=False)} ({_agree(share)})."
    return {"answer": f"Recommended: ε = {taken['epsilon']:g}", "why": why, "knees": _knees(rows, facts)}


def _bargain(row: Row, wanted: RecommendConfig, *, named: bool = True) -> str:
    """What an epsilon gains and costs, and which of the two is not as it should be."""
    little = " (too little)" if row["gain"] < wanted.gain else ""
    much = " (too much)" if row["loss"] > wanted.accuracy_loss else ""
    start = f"ε = {row['epsilon']:g} " if named else ""
    return f"{start}gains {number(row['gain'])}{little} and costs {points(row['loss'])} points{much}"


def _agree(share: float) -> str:
    return f"{100 * share:.0f} % of resamples agree"


def _knees(rows: Sequence[Row], facts: Facts) -> str:
    """The knee of each metric's front, where there is one."""
    metrics = dict.fromkeys(row["metric"] for row in rows)
    knees = [
        f"ε = {row['epsilon']:g} for {_label(row['metric'], facts)} ({100 * row['knee_share']:.0f} % of resamples)"
        for row in rows
        if row["knee"]
    ]
    without = [_label(name, facts) for name in metrics if not any(row["knee"] for row in select(rows, metric=name))]
    told = [f"Knee of the front: {'; '.join(knees)}."] if knees else []
    told += [f"No knee (a front of one or two points, straight or sagging): {', '.join(without)}."] if without else []
    return " ".join(told)


def plausible(rows: Sequence[Row], attribution: str, wanted: PlausibleConfig, facts: Facts) -> list[str]:
    """What a plausible and a misleading map are here, and how many there are at both ends of the sweep."""
    own = select(rows, attribution=attribution, set="all")
    if not own:
        return []
    concise, stable, relevance = (
        _label(name, facts) for name in (wanted.conciseness, wanted.stability, wanted.relevance)
    )
    first = own[0]
    reference = f"at ε = {first['epsilon']:g}" if first["epsilon"] else "of the standard network"
    control = facts["attributions"][wanted.control]["label"]
    meaning = (
        f"Plausible: {concise} and {stable} both better than the median map {reference} "
        f"({number(first['conciseness_median'])} and {number(first['stability_median'])}). "
        f"Misleading: {relevance} no better than that of the control “{control}” on the same image."
    )
    told = [_ends(select(own, measure=measure)) for measure in RATES[:2]]
    return [meaning, *filter(None, told), _auroc(select(own, measure=AUROC))]


def _ends(rows: Sequence[Row]) -> str:
    """A rate at the smallest and the largest epsilon."""
    known = [row for row in rows if row["maps"] and not math.isnan(row["mean"])]
    if not known:
        return ""
    noun = {RATES[0]: "Plausible", RATES[1]: "Misleading among the plausible"}[rows[0]["measure"]]
    ends = [known[0]] if len(known) == 1 else [known[0], known[-1]]
    return (
        f"{noun}: "
        + ", ".join(
            f"{spread(r, 'mean', percent)} of {counted(r['maps'], 'map')} at ε = {r['epsilon']:g}" for r in ends
        )
        + "."
    )


def _auroc(rows: Sequence[Row]) -> str:
    """How well plausibility tells right from wrong predictions at the largest epsilon where both occur."""
    known = [row for row in rows if not math.isnan(row["mean"])]
    if not known:
        return "AUROC undefined: no network has both right and wrong predictions with a score."
    last = known[-1]
    return (
        f"That the map of a right prediction is more plausible than that of a wrong one has a chance (AUROC) of "
        f"{spread(last, 'mean', number)} at ε = {last['epsilon']:g}; 0.5 says nothing."
    )


def headlined(rows: Sequence[Row], metrics: Sequence[str]) -> list[Row]:
    """Of the confound audit what is shown first: the headline metrics (all if none was audited) at the largest epsilon."""
    largest = max((row["epsilon"] for row in rows), default=0.0)
    wanted = [row for row in rows if row["metric"] in metrics] or list(rows)
    return select(wanted, epsilon=largest)


def audit(rows: Sequence[Row], facts: Facts) -> list[str]:
    """A sentence a metric of `headlined`: which change of the standard network reproduces most of its change."""
    metrics = dict.fromkeys(row["metric"] for row in rows)
    return [_confound(select(rows, metric=metric), _label(metric, facts)) for metric in metrics]


def _confound(case: Sequence[Row], label: str) -> str:
    known = [row for row in case if not row["reason"]]
    missing = [f"{row['kind']}: {row['reason']}" for row in case if row["reason"]]
    if not known:
        return f"{label}: nothing to explain away: {case[0]['reason']}."
    most = max(known, key=lambda row: row["reproduced"])
    rest = f" Undefined: {'; '.join(missing)}." if missing else ""
    if most["reproduced"] <= 0:
        return f"{label}: none of the changes reproduces any of it.{rest}"
    return f"{label}: {most['kind']} reproduces most of the change, {spread(most, 'reproduced', percent)}.{rest}"


def _label(name: str, facts: Facts) -> str:
    return str(facts["metrics"][name]["label"]) if name in facts["metrics"] else name
