"""Metrics of explanations: one score an image, float64 `[N]`; averaging is the business of `reporting`.

A new metric is one function on tensors, one entry in `METRICS`, one closed-form test. An entry says which tensors the
function gets (`needs`), and what a reader of its number must know (`facts`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from epsilens.errors import ConfigError
from epsilens.metrics import alignment, conciseness, faithfulness, mosaics, needs, relevance, sanity, stability
from epsilens.metrics.config import AuditConfig, ScoreConfig
from epsilens.metrics.confounds import Audited, Tempered, audited, changes
from epsilens.metrics.evidence import Evidence
from epsilens.metrics.facts import Facts, Metric
from epsilens.progress import Done, untold
from epsilens.registry import choose, labelled, options
from epsilens.types import Scores

ANY = (-math.inf, math.inf)
CHALASANI, GHORBANI, AGARWAL, ARRAS = "arXiv:1810.06583", "arXiv:1710.10547", "arXiv:2203.06877", "arXiv:2003.07258"

METRICS: dict[str, Metric] = {
    "gini": Metric(
        conciseness.gini,
        needs.maps,
        Facts("Gini index", "conciseness", "higher", 0, 1, None, f"{CHALASANI}; Gaussian noise has 0.24"),
    ),
    "gini_all_channels": Metric(
        conciseness.gini_all_channels,
        needs.maps,
        Facts(
            "Gini index of all channels", "conciseness", "higher", 0, 1, None, f"{CHALASANI}; Gaussian noise has 0.41"
        ),
    ),
    "gini_positive": Metric(
        conciseness.gini_positive,
        needs.maps,
        Facts(
            "Gini index of the positive part",
            "conciseness",
            "higher",
            0,
            1,
            None,
            "Duan et al. 2023, after arXiv:1810.06583; Gaussian noise has 0.71",
        ),
        frozenset({"sign"}),
    ),
    "regional_gini": Metric(
        conciseness.regional_gini,
        needs.blocks,
        Facts("Gini index of regions", "conciseness", None, 0, 1, None, f"Duan et al. 2023, after {CHALASANI}"),
    ),
    "effective_fraction": Metric(
        conciseness.effective_fraction,
        needs.maps,
        Facts("Effective fraction of pixels", "conciseness", "lower", 0, 1, None, "arXiv:2005.00631"),
    ),
    "direction_sensitivity": Metric(
        stability.direction_sensitivity,
        needs.neighbours,
        Facts("Direction sensitivity", "stability", "lower", 0, math.sqrt(2), None, "arXiv:1901.09392"),
    ),
    "direction_sensitivity_max": Metric(
        stability.direction_sensitivity_max,
        needs.neighbours,
        Facts("Direction sensitivity, maximum", "stability", "lower", 0, math.sqrt(2), None, "arXiv:1901.09392"),
    ),
    "adversarial_stability": Metric(
        stability.adversarial_stability,
        needs.worst,
        Facts("Direction sensitivity under attack", "stability", "lower", 0, math.sqrt(2), None, GHORBANI),
    ),
    "rank_stability": Metric(
        stability.rank_stability,
        needs.neighbours,
        Facts("Rank stability (Spearman)", "stability", "higher", -1, 1, 0.0, GHORBANI),
    ),
    "top_stability": Metric(
        stability.top_stability,
        needs.neighbours,
        Facts("Top-10 % stability", "stability", "higher", 0, 1, stability.TOP, GHORBANI),
    ),
    "relative_input_stability": Metric(
        stability.relative_input_stability,
        needs.inputs,
        Facts("Relative input stability (log10)", "stability", "lower", *ANY, None, AGARWAL),
        frozenset({"own scale"}),
    ),
    "relative_input_stability_elementwise": Metric(
        stability.relative_input_stability_elementwise,
        needs.inputs,
        Facts("Relative input stability, elementwise (log10)", "stability", "lower", *ANY, None, AGARWAL),
        frozenset({"own scale"}),
    ),
    "relative_output_stability": Metric(
        stability.relative_output_stability,
        needs.outputs,
        Facts("Relative output stability (log10)", "stability", "lower", *ANY, None, AGARWAL),
        frozenset({"own scale"}),
    ),
    "relative_output_stability_original": Metric(
        stability.relative_output_stability_original,
        needs.outputs,
        Facts("Relative output stability, original (log10)", "stability", "lower", *ANY, None, AGARWAL),
        frozenset({"own scale", "logit scale"}),
    ),
    "retention": Metric(
        stability.retention,
        needs.neighbours,
        Facts("Predictions retained under noise", "stability", "higher", 0, 1, None, "this project"),
    ),
    "relevance_mass": Metric(
        relevance.relevance_mass,
        needs.masks,
        Facts("Relevance mass", "relevance", "higher", 0, 1, None, ARRAS),
    ),
    "relevance_rank": Metric(
        relevance.relevance_rank,
        needs.masks,
        Facts("Relevance rank", "relevance", "higher", 0, 1, None, ARRAS),
    ),
    "relevance_mass_corrected": Metric(
        relevance.relevance_mass_corrected,
        needs.masks,
        Facts("Relevance mass over chance", "relevance", "higher", -math.inf, 1, 0.0, ARRAS),
    ),
    "relevance_rank_corrected": Metric(
        relevance.relevance_rank_corrected,
        needs.masks,
        Facts("Relevance rank over chance", "relevance", "higher", -math.inf, 1, 0.0, ARRAS),
    ),
    "pointing_game": Metric(
        relevance.pointing_game,
        needs.masks,
        Facts("Pointing game", "relevance", "higher", 0, 1, None, "arXiv:1608.00507"),
    ),
    "mosaic_focus": Metric(
        relevance.mosaic_focus,
        needs.mosaic,
        Facts("Focus in a mosaic", "relevance", "higher", 0, 1, 0.25, "arXiv:2109.15035"),
        frozenset({"sign", "other images"}),
        classes=mosaics.CELLS,
    ),
    "road_gap": Metric(
        faithfulness.road_gap,
        needs.removal,
        Facts("ROAD gap", "faithfulness", "higher", -1, 1, 0.0, "arXiv:2202.00449"),
    ),
    "deletion_auc": Metric(
        faithfulness.deletion_auc,
        needs.deletion,
        Facts("Deletion AUC (temperature 1)", "faithfulness", "lower", 0, math.inf, None, "arXiv:1806.07421"),
        frozenset({"logit scale"}),
    ),
    "insertion_auc": Metric(
        faithfulness.insertion_auc,
        needs.insertion,
        Facts("Insertion AUC (temperature 1)", "faithfulness", "higher", 0, math.inf, None, "arXiv:1806.07421"),
        frozenset({"logit scale"}),
    ),
    "infidelity": Metric(
        faithfulness.infidelity,
        needs.noise,
        Facts("Infidelity", "faithfulness", "lower", 0, 1, None, "arXiv:1901.09392"),
    ),
    "class_sensitivity": Metric(
        sanity.class_sensitivity,
        needs.other_class,
        Facts("Similarity to the map of another class", "sanity", "lower", -1, 1, 1.0, "arXiv:1912.09818"),
    ),
    "randomisation": Metric(
        sanity.randomisation,
        needs.other_network,
        Facts("Similarity to the map of random weights", "sanity", "lower", -1, 1, 1.0, "arXiv:1810.03292"),
    ),
    "gradient_alignment": Metric(
        alignment.gradient_alignment,
        needs.images,
        Facts("Alignment with the image", "alignment", None, 0, math.inf, None, "arXiv:1905.04172"),
    ),
    "image_cosine": Metric(
        alignment.image_cosine,
        needs.images,
        Facts("Cosine with the image", "alignment", None, 0, 1, None, "cf. arXiv:1905.04172"),
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


def check_classes(config: ScoreConfig, classes: int) -> None:
    """Raises one ConfigError for all metrics that need more classes than the data have."""
    needed = {name: choose(METRICS, name, f"score.metrics.{name}").classes for name in config.metrics}
    lines = [
        f"params.yaml: score.metrics.{name}: found data of {classes} classes, expected {count} or more; remove the metric"
        for name, count in needed.items()
        if classes < count
    ]
    if lines:
        raise ConfigError("\n".join(lines))


def score(evidence: Evidence, metrics: Mapping[str, Mapping[str, Any]], done: Done = untold) -> dict[str, Scores]:
    """Every metric of the mapping (name, perhaps with an @label, to options) on the evidence. done: told of maps."""
    bound = {name: _bound(name, given) for name, given in metrics.items()}
    parts = evidence.by_part(lambda part: {name: compute(part) for name, compute in bound.items()}, done)
    return {name: torch.cat([part[name] for part in parts]) for name in bound}


def audit(
    evidence: Evidence,
    metrics: Mapping[str, Mapping[str, Any]],
    config: AuditConfig,
    tempered: Tempered,
    done: Done = untold,
) -> list[Audited]:
    """The metrics on the maps that the section asks for, one entry a change; the evidence is of the network itself."""
    bound = {name: _bound(name, given) for name, given in metrics.items()}
    return audited(evidence, bound, changes(config, tempered), done)


def facts(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the report says about each metric, by its name in params.yaml."""
    found = {name: asdict(choose(METRICS, name, f"score.metrics.{name}").facts) for name in metrics}
    return {name: {**entry, "label": entry["label"] + labelled(name)} for name, entry in found.items()}


def _bound(name: str, given: Mapping[str, Any]) -> Callable[[Evidence], Scores]:
    key = f"score.metrics.{name}"
    metric = choose(METRICS, name, key)
    return partial(metric.needs, metric.compute, **options(metric.needs, given, key))
