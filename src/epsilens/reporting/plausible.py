"""Misleading but plausible: how often a map looks good and points nowhere.

A map is plausible if it is more concise and more stable than the median map of the standard network (the smallest training
epsilon; the same method, all its images and seeds), and misleading if its relevance, or its faithfulness where there are
no masks, is at or below that of the control on the same image. The control that makes the word honest is the random one: a
map at its level says no more about where the network looks than noise does. An edge detector beats noise wherever objects
stand out, so that a map below it may well be right. The two medians are taken as given: no interval contains that they
are estimates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from epsilens.reporting.auroc import auroc_estimates
from epsilens.reporting.config import PlausibleConfig, ReportConfig
from epsilens.reporting.gate import Row
from epsilens.reporting.statistics import Cube, Estimates, Members, cube, estimate, with_width
from epsilens.reporting.tables import correctness, rounded

RATES = ("plausible", "misleading given plausible", "misleading and plausible", "misleading")
AUROC = "plausibility tells right from wrong"


@dataclass(frozen=True)
class Judged:
    """One method's maps, each array float64 [E, S, N]: 1, 0, or NaN where a score that decides is undefined.

    plausibility: mean of the shares of the same network's maps that are less concise and less stable, in (0, 1). Not of the
    standard network's: where training leaves its whole range behind, all maps would tie and tell nothing by construction.
    concise, stable: the medians that a plausible map is beyond.
    """

    plausible: np.ndarray
    misleading: np.ndarray
    plausibility: np.ndarray
    concise: float
    stable: float

    def rates(self) -> list[np.ndarray]:
        """Of each of RATES whether it holds; NaN where the map does not count."""
        both = self.plausible * self.misleading
        return [self.plausible, np.where(self.plausible == 1, self.misleading, np.nan), both, self.misleading]

    def undefined(self) -> list[np.ndarray]:
        """Of each of RATES the maps that are left out for want of a score, bool [E, S, N]."""
        no_look, no_aim = np.isnan(self.plausible), np.isnan(self.misleading)
        return [no_look, (self.plausible == 1) & no_aim, no_look | no_aim, no_aim]


def plausible_table(scores: pd.DataFrame, facts: Mapping[str, Any], config: ReportConfig) -> list[Row]:
    """One row a method, set of images, training epsilon and measure; `scores` are of the networks that passed the gate.

    Sets: all images, and those that the network itself gets right or wrong. Measures: RATES, in [0, 1], and AUROC (set all
    only): the chance that a network's map of a right prediction is more plausible than its map of a wrong one, 0.5 if
    plausibility says nothing about being right; NaN where no prediction is wrong, or none right. `mean` is over seeds, with
    the interval of `with_width`. `n` counts images, `n_seeds` the networks that have the figure, `maps` the maps
    (images of all seeds) that count, `hits` those of which it holds (of AUROC: right predictions), `nan` the maps without a
    score; `conciseness_median` and `stability_median` are what a plausible map is beyond.
    """
    wanted = config.plausible
    asked = (wanted.conciseness, wanted.stability, wanted.relevance)
    found = cube(scores.loc[scores["metric"].isin(asked)], ["attribution", "metric"], "score")
    methods = [n for n in dict(found.columns) if facts["attributions"][n]["kind"] == "method"]
    right = correctness(scores)
    return [
        {"attribution": method} | row
        for method in methods
        for row in _rows(judge(found, method, facts["metrics"], wanted), right, found, config)
    ]


def misnamed(scores: pd.DataFrame, facts: Mapping[str, Any], config: ReportConfig) -> list[str]:
    """A line for each name in report.plausible, and for report.recommend.metric, if it is not scored, has no good direction,
    or is no control."""
    scored, kinds = set(scores["metric"]), facts["attributions"]
    metrics = [name for name, known in facts["metrics"].items() if name in scored and known["better"]]
    controls = [name for name in dict.fromkeys(scores["attribution"]) if kinds[name]["kind"] == "control"]
    wanted = [(f"plausible.{key}", name, controls if key == "control" else metrics) for key, name in config.plausible]
    wanted.append(("recommend.metric", config.recommend.metric, metrics))
    return [
        f"params.yaml: report.{key}: found {name!r}, possible are {', '.join(possible) or 'none'}"
        for key, name, possible in wanted
        if name not in possible
    ]


def judge(found: Cube, method: str, metrics: Mapping[str, Any], wanted: PlausibleConfig) -> Judged:
    """Looks at the scores of a method as the directions of its metrics say; equal to the median is not beyond it, equal to
    the control is not above it."""

    def scores(attribution: str, metric: str) -> tuple[np.ndarray, float]:
        sign = {"higher": 1.0, "lower": -1.0}[metrics[metric]["better"]]
        return sign * found.values[..., found.columns.index((attribution, metric))], sign

    (concise, up), (stable, down) = scores(method, wanted.conciseness), scores(method, wanted.stability)
    (relevance, _), (control, _) = scores(method, wanted.relevance), scores(wanted.control, wanted.relevance)
    middle = [float(np.median(known)) if len(known) else np.nan for known in (_known(concise[0]), _known(stable[0]))]
    return Judged(
        plausible=_where_known((concise > middle[0]) & (stable > middle[1]), concise, stable, np.asarray(sum(middle))),
        misleading=_where_known(relevance <= control, relevance, control),
        plausibility=(shares_below(concise) + shares_below(stable)) / 2,
        concise=up * middle[0],
        stable=down * middle[1],
    )


def shares_below(values: np.ndarray) -> np.ndarray:
    """Of each value [..., N] the share of its row that is below it, equal ones and itself half, in (0, 1); NaN for NaN."""
    ranks = rankdata(values, axis=-1, nan_policy="omit")
    return (ranks - 0.5) / (~np.isnan(values)).sum(axis=-1, keepdims=True).clip(min=1)


def _known(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def _where_known(values: np.ndarray, *needed: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(sum(needed)), np.nan, values.astype(np.float64))


def _rows(judged: Judged, right: np.ndarray, found: Cube, config: ReportConfig) -> list[Row]:
    """The rows of one method; right: [E, S, N], 1, 0 or NaN."""
    sets = {"all": ~np.isnan(right), "correct": right == 1, "wrong": right == 0}
    options = {"samples": config.bootstrap, "seed": config.seed, "confidence": config.confidence}
    values, missing = np.stack(judged.rates(), axis=-1), np.stack(judged.undefined(), axis=-1)
    rows: list[Row] = []
    for name, members in sets.items():
        counted = np.where(members[..., None], values, np.nan)
        known = ~np.isnan(counted)
        estimates = replace(estimate(values, members, **options), nan=_count(missing, members))
        trained = known.any(axis=2).sum(axis=1)
        rates = with_width(estimates, estimates.n, trained, confidence=config.confidence)
        counts = {"maps": _count(known, members), "hits": _count(counted == 1, members), "n_seeds": trained}
        rows += [{"set": name} | row for row in _flat(rates, RATES, counts, judged, found.epsilons)]
    return rows + _telling(judged, right, found, config)


def _telling(judged: Judged, right: np.ndarray, found: Cube, config: ReportConfig) -> list[Row]:
    """The AUROC of plausibility for being right, of one method."""
    options = {"samples": config.bootstrap, "seed": config.seed, "confidence": config.confidence}
    looks = np.where(np.isnan(right), np.nan, judged.plausibility)
    known, seen = ~np.isnan(looks), ~np.isnan(right)
    maps, hits, lost = (_count(part[..., None], seen) for part in (known, known & (right == 1), ~known))
    estimates = auroc_estimates(looks, right == 1, lost, **options)
    rarer = np.minimum(*((known & (right == side)).sum(axis=2) for side in (0, 1)))  # [E, S]
    trained = (rarer > 0).sum(axis=1)[:, None]
    # The variance of an AUROC A is at most A (1 - A) / rarer (Birnbaum and Klose 1957, doi:10.1214/aoms/1177706794).
    told = with_width(estimates, rarer.max(axis=1)[:, None], trained, confidence=config.confidence)
    counts = {"maps": maps, "hits": hits, "n_seeds": trained}
    return [{"set": "all"} | row for row in _flat(told, (AUROC,), counts, judged, found.epsilons)]


def _count(holds: np.ndarray, members: Members) -> np.ndarray:
    """[E, S, N, K] within the set, to [E, K]."""
    return (holds & members[..., None]).sum(axis=(1, 2))


def _flat(
    estimates: Estimates,
    measures: tuple[str, ...],
    counts: Mapping[str, np.ndarray],
    judged: Judged,
    epsilons: Sequence[float],
) -> list[Row]:
    arrays = asdict(estimates) | dict(counts)
    bounds = {"conciseness_median": rounded(judged.concise), "stability_median": rounded(judged.stable)}
    return [
        {"epsilon": epsilon, "measure": measure}
        | {name: rounded(array[e, k]) for name, array in arrays.items()}
        | bounds
        for k, measure in enumerate(measures)
        for e, epsilon in enumerate(epsilons)
    ]
