"""The claims of the study (P. H. Weng, 2025), each with its test, its estimate and a verdict in words.

What decides is in params.yaml (`report.claims`), written before the run. Claims are judged of training, with seeds as the
units, and of these very networks, with images as the units. docs/claims.md has the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from epsilens.reporting.config import ReportConfig
from epsilens.reporting.effects import difference, improved, p_value, share_of_gain, standardised
from epsilens.reporting.equivalence import equivalence
from epsilens.reporting.findings import ALIKE, ONE_SEED, Finding, Sample, Scope
from epsilens.reporting.gate import Row
from epsilens.reporting.multiplicity import holm, reachable
from epsilens.reporting.plausible import AUROC, RATES
from epsilens.reporting.samples import Samples
from epsilens.reporting.tables import rounded, select
from epsilens.reporting.trend import Trend, trend, trend_of_these_networks

SCOPES: tuple[Scope, Scope] = ("training", "these networks")
FREE = (math.nan, math.nan)  # no test: the interval alone decides

# Of the difference: in standard deviations between images (d_z), and the share of images that gain, ties half.
EFFECTS = {"standardised": standardised, "improved": improved}

TOO_FEW = "no scores could be significant with so few resamples: their smallest p is {:.2g}; raise report.bootstrap"
TWO_EPSILONS = "two epsilons: the smallest above the first is the largest"
OPEN = "the interval and the test leave both possible"


@dataclass(frozen=True)
class Case:
    """What speaks for a claim and what against it, of one method and metric.

    `interval`: whether the interval of `found` is wholly on the side (for, against); `p`: of the test for each side.
    """

    attribution: str  # empty where the claim is about the networks
    metric: str
    epsilon: float  # that is compared with the smallest one
    found: Finding
    interval: tuple[bool, bool]
    p: tuple[float, float] = FREE
    trend: Trend | None = None  # over all epsilons; it is told beside the verdict and does not decide
    effects: Mapping[str, Finding] = field(default_factory=dict)  # how large the difference is, likewise


@dataclass(frozen=True)
class Claim:
    """A claim by name, the sentence that is judged, and how the cases of one scope are made."""

    statement: str
    cases: Callable[[Samples, Sequence[Row], ReportConfig, Scope], list[Case]]


def claims_table(found: Samples, plausible: Sequence[Row], config: ReportConfig) -> list[Row]:
    """One row a claim, scope, method and metric; none where there is one training epsilon.

    `estimate` and `interval` are in the direction in which more is better. `p` is after Holm's correction over all claims
    and metrics of a method (the accuracy counts among those of the headline method), `p_single` before. `trend` in [-1, 1]
    is Page's mean rank correlation with epsilon and `trend_p` its p, corrected likewise; NaN where the claim is of no
    direction. `standardised` and `improved` are effect sizes of the difference: Hedges' d_z over images, and the share of
    the pairs of image and seed that gain, 0.5 for none. `verdict` is supported, contradicted or undecided, and `why` says
    what an undecided one lacks. `epsilon` is compared with `reference`, the smallest of those of which a network passed the
    gate; `n` and `n_seeds` are of the epsilons that are compared, `trend` is over all. `headline` marks the method that the
    study is headed with.
    """
    if len(found.epsilons) < 2:
        return []
    rows = {scope: _judged(found, plausible, config, scope) for scope in SCOPES}
    order = [row for name in CLAIMS for scope in SCOPES for row in rows[scope] if row["claim"] == name]
    return [row | {"reference": found.epsilons[0]} for row in order]


def _judged(found: Samples, plausible: Sequence[Row], config: ReportConfig, scope: Scope) -> list[Row]:
    """The rows of one scope. A method's claims are a family, whose p-values are corrected together: which other methods are
    looked at besides changes nothing."""
    told = _told if scope == "training" else lambda case: case
    named = [(name, told(c)) for name, claim in CLAIMS.items() for c in claim.cases(found, plausible, config, scope)]
    families: dict[str, list[tuple[str, Case]]] = {}
    for name, case in named:
        families.setdefault(case.attribution or config.attribution, []).append((name, case))
    return [row for family in families.values() for row in _rows(family, config, scope)]


def _told(case: Case) -> Case:
    """What a case says of training: with one seed nothing but its estimate, and it is no test among those of its family."""
    if case.found.n_seeds > 1:
        return case
    nothing = dict.fromkeys(("low", "high", "p", "smallest_p"), math.nan)
    found = replace(case.found, **nothing, reason=case.found.reason or ONE_SEED)
    return replace(case, found=found, interval=(False, False), p=FREE)


def _rows(family: Sequence[tuple[str, Case]], config: ReportConfig, scope: Scope) -> list[Row]:
    cases = [case for _, case in family]
    sides = [holm([case.p[side] for case in cases]) for side in (0, 1)]
    within = reachable([case.found.smallest_p for case in cases], config.claims.alpha)
    trends = holm([case.trend.p if case.trend else math.nan for case in cases])
    rows = []
    for k, (name, case) in enumerate(family):
        p = (float(sides[0][k]), float(sides[1][k]))
        verdict, why = _verdict(case, p, bool(within[k]), config.claims.alpha)
        smaller = 0 if not p[1] < p[0] else 1
        known = {"claim": name, "statement": CLAIMS[name].statement, "scope": scope, "verdict": verdict, "why": why}
        known |= {"headline": case.attribution in ("", config.attribution), "attribution": case.attribution}
        numbers = {"estimate": case.found.estimate, "p": p[smaller], "p_single": case.p[smaller]}
        numbers |= {"trend": case.trend.rho if case.trend else math.nan, "trend_p": float(trends[k])}
        numbers |= {name: case.effects[name].estimate if case.effects else math.nan for name in EFFECTS}
        rows.append(known | {n: rounded(v) for n, v in numbers.items()} | _details(case))
    return rows


def _details(case: Case) -> dict[str, Any]:
    found = case.found
    return {
        "metric": case.metric,
        "epsilon": case.epsilon,
        "interval": [rounded(found.low), rounded(found.high)],
        "confidence": rounded(found.confidence),
        "test": found.test,
        "smallest_p": rounded(found.smallest_p),
        "n": found.n,
        "unit": found.unit,
        "n_seeds": found.n_seeds,
    }


def _verdict(
    case: Case, p: tuple[float, float], within: bool, alpha: float
) -> tuple[Literal["supported", "contradicted", "undecided"], str]:
    if case.found.reason:
        return "undecided", case.found.reason
    tested = [math.isnan(single) or corrected <= alpha for single, corrected in zip(case.p, p, strict=True)]
    if case.interval[0] and tested[0]:
        return "supported", ""
    if case.interval[1] and tested[1]:
        return "contradicted", ""
    few = not math.isnan(case.found.smallest_p) and not within
    return "undecided", TOO_FEW.format(case.found.smallest_p) if few else OPEN


def _at(sample: Sample, scope: Scope, *indices: int) -> Sample:
    """The sample at the epsilons that are compared, in their order: what seeds others lack does not count against them."""
    return sample.of(sample.values[list(indices)], scope=scope)


def _beyond(found: Finding, bound: float) -> tuple[bool, bool]:
    """Whether the interval is wholly above the bound, wholly below it."""
    return found.low > bound, found.high < bound


def direction(part: str) -> Callable[..., list[Case]]:
    """Of a metric that should get better: the difference at the largest epsilon. A gain that is all there at the first step
    is no trend, and a trend may go with no gain: the trend over all epsilons is told beside it."""

    def cases(found: Samples, plausible: Sequence[Row], config: ReportConfig, scope: Scope) -> list[Case]:
        metric = getattr(config.plausible, part)
        return [_better(found, method, metric, scope) for method in found.methods]

    return cases


def _better(found: Samples, method: str, metric: str, scope: Scope) -> Case:
    sample = found.of(method, metric)
    gain = difference(_at(sample, scope, 0, -1), 1)
    p = (gain.p, 1.0) if gain.estimate > 0 else (1.0, gain.p)
    rising = (trend if scope == "training" else trend_of_these_networks)(sample)
    p = FREE if gain.reason else p
    return Case(method, metric, found.epsilons[-1], gain, _beyond(gain, 0.0), p, rising, _effects(sample))


def _effects(sample: Sample) -> dict[str, Finding]:
    """Between the largest and the smallest epsilon: they are of the scores, and the same in both scopes."""
    return {name: measure(sample, len(sample.means) - 1) for name, measure in EFFECTS.items()}


def no_gain(found: Samples, plausible: Sequence[Row], config: ReportConfig, scope: Scope) -> list[Case]:
    """Of the relevance: its gain at the largest epsilon is below the margin, by one of the two one-sided tests."""
    metric, margin, cases = config.plausible.relevance, config.claims.relevance_margin, []
    for method in found.methods:
        sample = _at(found.of(method, metric), scope, 0, -1)
        tested = equivalence(sample, 1, margin=(-margin, margin), alpha=config.claims.alpha)
        more, less = _beyond(tested, margin)
        gains = sample.replicates[:, -1] - sample.replicates[:, 0] - margin
        p = (tested.p_below, math.nan if tested.reason else p_value(gains, "rises"))
        cases.append(
            Case(
                method, metric, found.epsilons[-1], tested, (less, more), p, effects=_effects(found.of(method, metric))
            )
        )
    return cases


def early(found: Samples, plausible: Sequence[Row], config: ReportConfig, scope: Scope) -> list[Case]:
    """Of conciseness and stability: how much of the gain at the largest epsilon is there at the second one."""
    wanted = config.plausible
    return [
        _early(found, method, metric, config.claims.modest_share, scope)
        for metric in (wanted.conciseness, wanted.stability)
        for method in found.methods
    ]


def _early(found: Samples, method: str, metric: str, wanted: float, scope: Scope) -> Case:
    """For: a gain at the second epsilon, more than `wanted` of that at the largest. Against: less than that of a gain, or a
    loss at both. The share is tested by first - wanted * whole, which needs no ratio."""
    sample = _at(found.of(method, metric), scope, 0, 1, -1)
    first, part = difference(sample, 1), share_of_gain(sample)
    if len(found.epsilons) == 2:
        part = replace(part, estimate=math.nan, low=math.nan, high=math.nan, reason=TWO_EPSILONS)
    if part.reason:
        return Case(method, metric, found.epsilons[1], part, (False, False))
    gains = sample.replicates - sample.replicates[:, :1]
    beyond, gained = gains[:, 1] - wanted * gains[:, -1], sample.means[-1] > sample.means[0]
    enough, little = _beyond(part, wanted)
    interval = (gained and enough and first.low > 0, little if gained else first.high < 0)
    p = (max(first.p, p_value(beyond, "rises")), p_value(beyond, "falls") if gained else first.p)
    shown = replace(part, p=min(p), smallest_p=first.smallest_p)
    return Case(method, metric, found.epsilons[1], shown, interval, p)


def cost(found: Samples, plausible: Sequence[Row], config: ReportConfig, scope: Scope) -> list[Case]:
    """Of the clean accuracy: its loss at the largest epsilon is above the margin."""
    sample, margin = _at(found.accuracy, scope, 0, -1), config.claims.accuracy_margin
    loss = difference(sample, 1)
    kept, lost = _beyond(loss, -margin)
    beyond = sample.replicates[:, -1] - sample.replicates[:, 0] + margin
    p = FREE if loss.reason else (p_value(beyond, "falls"), p_value(beyond, "rises"))
    shown = replace(loss, p=min(p), smallest_p=1 / (len(beyond) + 1))
    return [Case("", "accuracy", found.epsilons[-1], shown, (lost, kept), p)]


def misleading(found: Samples, plausible: Sequence[Row], config: ReportConfig, scope: Scope) -> list[Case]:
    """Of the plausible maps at the largest epsilon: the share that is misleading, on all predictions."""
    return [
        Case(method, RATES[1], row["epsilon"], shown, _beyond(shown, config.claims.misleading_rate))
        for method, row, shown in _measured(found, plausible, RATES[1], config, scope)
    ]


def blind(found: Samples, plausible: Sequence[Row], config: ReportConfig, scope: Scope) -> list[Case]:
    """Of plausibility at the largest epsilon: how well it tells right from wrong predictions."""
    cases = []
    for method, row, shown in _measured(found, plausible, AUROC, config, scope):
        tells, blind = _beyond(shown, 0.5 + config.claims.auroc_margin)
        cases.append(Case(method, AUROC, row["epsilon"], shown, (blind, tells)))
    return cases


def _measured(
    found: Samples, plausible: Sequence[Row], measure: str, config: ReportConfig, scope: Scope
) -> list[tuple[str, Row, Finding]]:
    """The rows of the largest epsilon as findings. Intervals are over seeds and images, of training; but where there is one
    seed, or all networks are at 0 or at 1, and so show no spread, they are over images, of these networks."""
    shown = []
    for row in select(plausible, set="all", measure=measure, epsilon=found.epsilons[-1]):
        alike = row["n_seeds"] > 1 and row["mean"] in (0, 1)
        of_training = row["n_seeds"] > 1 and not alike
        if scope == "these networks" and of_training:
            continue
        reason = "" if row["n"] and not math.isnan(row["mean"]) else "no map counts"
        low, high = row["low"], row["high"]
        if scope == "training" and alike:
            reason, low, high = reason or ALIKE, math.nan, math.nan
        n, unit = (row["n_seeds"], "seeds") if of_training else (row["n"], "images")
        known: dict[str, Any] = {"confidence": config.confidence, "p": math.nan, "smallest_p": math.nan, "n": n}
        known |= {"unit": unit, "n_seeds": row["n_seeds"], "scope": scope, "reason": reason}
        finding = Finding("bootstrap over seeds and images", row["mean"], low, high, **known)
        shown.append((row["attribution"], row, finding))
    return shown


CLAIMS: Mapping[str, Claim] = {
    "more concise": Claim("Adversarial training makes the maps more concise.", direction("conciseness")),
    "more stable": Claim("Adversarial training makes the maps more stable.", direction("stability")),
    "not more relevant": Claim("Adversarial training does not make the maps more relevant.", no_gain),
    "modest training helps": Claim(
        "Most of the gain is there at the smallest budget of training above the first.", early
    ),
    "costs accuracy": Claim("Adversarial training costs standard accuracy.", cost),
    "plausible maps mislead": Claim("Maps that look plausible often point at nothing relevant.", misleading),
    "plausibility is blind": Claim("A plausible map is no sign of a right prediction.", blind),
}
