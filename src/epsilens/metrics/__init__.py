"""Metrics of explanations: one score an image, float64 `[N]`; averaging is the business of `reporting`.

A new metric is one function on tensors, one entry in `METRICS`, one closed-form test. An entry says which tensors the
function gets (`needs`), and what a reader of its number must know (`facts`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from epsilens.errors import ConfigError
from epsilens.metrics import conciseness, faithfulness, relevance, stability
from epsilens.metrics.config import ScoreConfig
from epsilens.metrics.evidence import Evidence
from epsilens.registry import choose, labelled, options
from epsilens.types import Scores

Compute = Callable[..., Scores]
Share = Annotated[float, Field(gt=0, lt=1)]


# What a metric needs. Keyword-only arguments are its options in params.yaml.


def maps(compute: Compute, evidence: Evidence) -> Scores:
    """compute(attributions)."""
    return compute(evidence.attributions)


def masks(compute: Compute, evidence: Evidence) -> Scores:
    """compute(attributions, masks)."""
    return compute(evidence.attributions, evidence.masks)


def neighbours(
    compute: Compute,
    evidence: Evidence,
    *,
    radius_255: Annotated[float, Field(gt=0, le=255)],
    samples: Annotated[int, Field(ge=1)],
) -> Scores:
    """compute(attributions, perturbed, kept)."""
    near = evidence.neighbourhood(radius_255, samples)
    return compute(evidence.attributions, near.attributions, near.kept)


def removal(
    compute: Compute, evidence: Evidence, *, fractions: Annotated[tuple[Share, ...], Field(min_length=1)]
) -> Scores:
    """compute(least_first, most_first)."""
    path = evidence.removal(fractions)
    return compute(path.least_first, path.most_first)


@dataclass(frozen=True)
class Facts:
    """What a reader of the number must know. chance: the score of a map that knows nothing, where there is one."""

    label: str
    family: Literal["conciseness", "stability", "relevance", "faithfulness", "sanity"]
    better: Literal["higher", "lower"]
    low: float
    high: float
    chance: float | None
    source: str


@dataclass(frozen=True)
class Metric:
    """needs: the adapter that hands `compute` its tensors."""

    compute: Compute
    needs: Callable[..., Scores]
    facts: Facts


METRICS: dict[str, Metric] = {
    "gini": Metric(
        conciseness.gini,
        maps,
        Facts("Gini index", "conciseness", "higher", 0, 1, None, "arXiv:1810.06583; Gaussian noise has 0.24"),
    ),
    "effective_fraction": Metric(
        conciseness.effective_fraction,
        maps,
        Facts("Effective fraction of pixels", "conciseness", "lower", 0, 1, None, "arXiv:2005.00631"),
    ),
    "direction_sensitivity": Metric(
        stability.direction_sensitivity,
        neighbours,
        Facts("Direction sensitivity", "stability", "lower", 0, math.sqrt(2), None, "arXiv:1901.09392"),
    ),
    "direction_sensitivity_max": Metric(
        stability.direction_sensitivity_max,
        neighbours,
        Facts("Direction sensitivity, maximum", "stability", "lower", 0, math.sqrt(2), None, "arXiv:1901.09392"),
    ),
    "rank_stability": Metric(
        stability.rank_stability,
        neighbours,
        Facts("Rank stability (Spearman)", "stability", "higher", -1, 1, 0.0, "arXiv:1710.10547"),
    ),
    "top_stability": Metric(
        stability.top_stability,
        neighbours,
        Facts("Top-10 % stability", "stability", "higher", 0, 1, stability.TOP, "arXiv:1710.10547"),
    ),
    "retention": Metric(
        stability.retention,
        neighbours,
        Facts("Predictions retained under noise", "stability", "higher", 0, 1, None, "this project"),
    ),
    "relevance_mass": Metric(
        relevance.relevance_mass,
        masks,
        Facts("Relevance mass", "relevance", "higher", 0, 1, None, "arXiv:2003.07258"),
    ),
    "relevance_rank": Metric(
        relevance.relevance_rank,
        masks,
        Facts("Relevance rank", "relevance", "higher", 0, 1, None, "arXiv:2003.07258"),
    ),
    "relevance_mass_corrected": Metric(
        relevance.relevance_mass_corrected,
        masks,
        Facts("Relevance mass over chance", "relevance", "higher", -math.inf, 1, 0.0, "arXiv:2003.07258"),
    ),
    "relevance_rank_corrected": Metric(
        relevance.relevance_rank_corrected,
        masks,
        Facts("Relevance rank over chance", "relevance", "higher", -math.inf, 1, 0.0, "arXiv:2003.07258"),
    ),
    "road_gap": Metric(
        faithfulness.road_gap,
        removal,
        Facts("ROAD gap", "faithfulness", "higher", -1, 1, 0.0, "arXiv:2202.00449"),
    ),
}


def check(config: ScoreConfig) -> None:
    """Raises one ConfigError for all unknown metrics and wrong options."""
    lines = []
    for name, given in config.metrics.items():
        try:
            _bound(name, given)
        except ConfigError as error:
            lines.append(str(error))
    if lines:
        raise ConfigError("\n".join(lines))


def score(evidence: Evidence, metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Scores]:
    """Every metric of the mapping (name, perhaps with an @label, to options) on the evidence."""
    bound = {name: _bound(name, given) for name, given in metrics.items()}
    parts = [{name: compute(part) for name, compute in bound.items()} for part in evidence.parts()]
    return {name: torch.cat([part[name] for part in parts]) for name in bound}


def facts(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the report says about each metric, by its name in params.yaml."""
    found = {name: asdict(choose(METRICS, name, f"score.metrics.{name}").facts) for name in metrics}
    return {name: {**entry, "label": entry["label"] + labelled(name)} for name, entry in found.items()}


def _bound(name: str, given: Mapping[str, Any]) -> Callable[[Evidence], Scores]:
    key = f"score.metrics.{name}"
    metric = choose(METRICS, name, key)
    return partial(metric.needs, metric.compute, **options(metric.needs, given, key))
