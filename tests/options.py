"""Options with which the tests of whole registries run their members: the ones that have any without a default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epsilens.reporting.config import ClaimsConfig, PlausibleConfig, RecommendConfig, ReportConfig

METHODS: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 7, "baseline": "blur"},
    "expected_gradients": {"samples": 4},
    "smoothgrad": {"samples": 5, "sigma": 0.3},
    "smoothgrad_squared": {"samples": 5, "sigma": 0.3},
    "blurred_random": {"of": {"expected_gradients": {"samples": 2}}},
    "inverse": {"of": {"guided_backprop": {}}},
    "randomised": {"of": {"smoothgrad": {"samples": 2, "sigma": 0.1}}, "seed": 5},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "small_resnet": {"width": 4, "stem_stride": 2},
}


def of_network(name: str) -> Mapping[str, Any]:
    """Of a member of MODELS."""
    return NETWORKS.get(name, {"width": 4})


CLAIMS: dict[str, Any] = {  # of the section `report`
    "alpha": 0.05,
    "accuracy_margin": 0.02,
    "relevance_margin": 0.05,
    "modest_share": 0.5,
    "misleading_rate": 0.1,
    "auroc_margin": 0.1,
}


def report_config(**given: Any) -> ReportConfig:
    """The section `report` with what a test wants of it; `plausible` as a tuple, in the order of its keys."""
    conciseness, stability, relevance, control = given.pop("plausible")
    named = PlausibleConfig(conciseness=conciseness, stability=stability, relevance=relevance, control=control)
    recommend = RecommendConfig(metric=stability, gain=0.1, accuracy_loss=0.1)
    return ReportConfig(plausible=named, claims=ClaimsConfig(**CLAIMS), recommend=recommend, **given)
