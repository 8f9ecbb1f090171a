"""The confound audit: how much of a metric's change over epsilon comes with smaller, smoother or less confident maps alone.

The standard network's maps were rescaled, blurred and taken at other temperatures, by several amounts (`score`). For each
training epsilon the amount is taken at which the changed standard network has most nearly the trait of the robust ones: the
norm of the map for scale, its mean spatial frequency for blur, the confidence for temperature; no change is one of the
amounts. What the metric does at that amount is reproduced without any robustness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from epsilens.reporting.config import ReportConfig
from epsilens.reporting.gate import Row
from epsilens.reporting.resampling import grand_means, interval, network_means, resampled_means
from epsilens.reporting.statistics import cube, image_sets
from epsilens.reporting.tables import correctness, rounded

NONE = ("none", 0.0)  # kind and amount of the network itself
TRAITS = {"scale": "norm", "blur": "frequency", "temperature": "confidence"}  # what a kind of change changes
IDENTITY = {"scale": 1.0, "blur": 0.0, "temperature": 1.0}  # the amount of a kind that changes nothing
NO_CHANGE = "the change is not distinguishable from 0"
NO_INTERVAL, NO_TRAIT = "the change has no interval", "the trait is undefined"


@dataclass(frozen=True)
class Means:
    """Means over seeds of means over the common images; entry 0 along T is of the data, the others are resamples.

    values: [T, E, K]; columns: K names (kind, amount, metric or trait); n: [E, K], images with a defined score.
    """

    values: np.ndarray
    columns: list[tuple[str, float, str]]
    epsilons: list[float]
    n: np.ndarray
    standard: int  # the place of the standard network's epsilon

    def of(self, name: str, place: int, kind: str = NONE[0], amount: float = NONE[1]) -> np.ndarray:
        """One column at one epsilon, [T]."""
        return self.values[:, place, self.columns.index((kind, amount, name))]

    def amounts(self, kind: str) -> list[float]:
        """What was tried, and no change before it."""
        tried = sorted({amount for its, amount, _ in self.columns if its == kind})
        return [IDENTITY[kind], *(amount for amount in tried if amount != IDENTITY[kind])]

    def changed(self, name: str, kind: str) -> np.ndarray:
        """The standard network's value at each of `amounts`, [T, A]."""
        each = [
            self.of(name, self.standard, *(NONE if amount == IDENTITY[kind] else (kind, amount)))
            for amount in self.amounts(kind)
        ]
        return np.stack(each, axis=1)


def audit_table(scores: pd.DataFrame, audited: pd.DataFrame, traits: pd.DataFrame, config: ReportConfig) -> list[Row]:
    """One row a training epsilon other than the audited one, metric and kind of change; none where nothing was audited.

    On the images that every network gets right. `standard`, `mean`: of the standard and of the trained networks; `change`:
    their difference, with its interval. `amount`: the matching one, and `trait_*` how well it matches. `transformed`: the
    standard networks' mean at that amount; `reproduced`: (transformed - standard) / change, 1 if the change of the standard
    networks does all that training did, 0 if nothing, below 0 if the opposite; `low`, `high` its bootstrap interval, with
    the match made anew in each resample. NaN with a `reason` where the change is not distinguishable from 0. `scores`,
    `audited`, `traits` are of the networks that passed the gate.
    """
    if audited.empty:
        return []
    means = _means(scores, audited, traits, config)
    metrics = dict.fromkeys(audited["metric"])
    kinds = [kind for kind in TRAITS if kind in set(audited["kind"])]
    shared = {"attribution": audited["attribution"].iloc[0]}
    return [
        {"epsilon": epsilon} | shared | {"metric": metric, "kind": kind} | _row(means, place, metric, kind, config)
        for metric in metrics
        for kind in kinds
        for place, epsilon in enumerate(means.epsilons)
        if place != means.standard
    ]


def _means(scores: pd.DataFrame, audited: pd.DataFrame, traits: pd.DataFrame, config: ReportConfig) -> Means:
    """One array of all, so that one draw of seeds and images serves the scores, the changed scores and the traits."""
    keys = ["kind", "amount", "name"]
    plain = scores.loc[scores["attribution"] == audited["attribution"].iloc[0]].assign(kind=NONE[0], amount=NONE[1])
    parts = [(plain, "metric", "score"), (audited, "metric", "score"), (traits, "trait", "value")]
    tables = [table.rename(columns={name: "name", value: "value"}) for table, name, value in parts]
    found = cube(pd.concat(tables, ignore_index=True), keys, "value")
    common = image_sets(correctness(scores))["common"]
    chosen = np.where(common[..., None], found.values, np.nan)
    mean = grand_means(network_means(chosen))
    resampled = resampled_means(chosen, samples=config.bootstrap, seed=config.seed)
    return Means(
        np.concatenate([mean[None], resampled]),
        [(str(kind), float(amount), str(name)) for kind, amount, name in found.columns],
        found.epsilons,
        (~np.isnan(chosen)).any(axis=1).sum(axis=1),
        found.epsilons.index(float(audited["epsilon"].iloc[0])),
    )


def _row(means: Means, place: int, metric: str, kind: str, config: ReportConfig) -> Row:
    standard, mean = means.of(metric, means.standard), means.of(metric, place)
    change, best = mean - standard, matched(means, place, kind)
    transformed = np.take_along_axis(means.changed(metric, kind), best[:, None].clip(min=0), axis=1)[:, 0]
    share = np.divide(
        transformed - standard, change, out=np.full(len(change), np.nan), where=(change != 0) & (best >= 0)
    )
    low, high = _ends(change, config)
    reason = NO_INTERVAL if np.isnan(low) else NO_CHANGE if low <= 0 <= high else NO_TRAIT if best[0] < 0 else ""
    numbers: dict[str, Any] = {
        "amount": means.amounts(kind)[best[0]] if best[0] >= 0 else np.nan,
        **_traits(means, place, kind, best[0]),
        "standard": standard[0],
        "mean": mean[0],
        "change": change[0],
        "change_low": low,
        "change_high": high,
        "transformed": transformed[0] if best[0] >= 0 else np.nan,
        "reproduced": np.nan if reason else share[0],
        **dict(zip(("low", "high"), (np.nan, np.nan) if reason else _ends(share, config), strict=True)),
    }
    column = means.columns.index((*NONE, metric))
    counts = {"n": int(min(means.n[place, column], means.n[means.standard, column]))}
    return (
        {name: rounded(value) + 0.0 for name, value in numbers.items()}
        | {"reason": reason, "trait": TRAITS[kind]}
        | counts
    )


def matched(means: Means, place: int, kind: str) -> np.ndarray:
    """Of the data and of each resample the place, among `amounts`, of the amount whose trait is nearest to the robust one,
    [T]: norms by their ratio, frequencies and confidences by their difference. -1 where a trait is undefined."""
    form = _log if TRAITS[kind] == "norm" else np.asarray
    away = np.abs(form(means.changed(TRAITS[kind], kind)) - form(means.of(TRAITS[kind], place))[:, None])
    unknown = np.isnan(away).any(axis=1)
    return np.where(unknown, -1, np.nan_to_num(away, nan=np.inf).argmin(axis=1))


def _log(norms: np.ndarray) -> np.ndarray:
    """Of a mean norm; resamples of two seeds, and maps that are all zero, may have none above 0."""
    return np.log(np.maximum(norms, np.finfo(np.float64).tiny))


def _traits(means: Means, place: int, kind: str, best: np.integer[Any]) -> Row:
    tried = means.changed(TRAITS[kind], kind)[0]
    found = {"standard": tried[0], "trained": means.of(TRAITS[kind], place)[0], "matched": tried[best]}
    return {f"trait_{name}": value for name, value in found.items()}


def _ends(values: np.ndarray, config: ReportConfig) -> tuple[float, float]:
    low, high = interval(values[1:, None], config.confidence)
    return float(low[0]), float(high[0])
