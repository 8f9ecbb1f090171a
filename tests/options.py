"""Options with which the tests of whole registries run their members: the ones that have any without a default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
