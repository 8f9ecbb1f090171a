"""Which picture shows which metrics, by which two maps, for scripts/metric_pictures.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from metric_panels import Panel
from metric_views import (
    FAR,
    OPTIONS,
    at_a_neighbour,
    at_the_worst,
    foretold,
    in_a_mosaic,
    of_another_class,
    of_another_network,
    on_the_object,
    one_map,
    paths,
    predictions,
    without_pixels,
)
from torch import Tensor

from epsilens.metrics import METRICS
from epsilens.metrics.evidence import Evidence

Show = Callable[[Evidence, int], list[Panel]]  # the panels of one row of the evidence


@dataclass(frozen=True)
class Side:
    """A network (by its training epsilon) and a method, and what is made of the evidence of both."""

    label: str
    epsilon: float
    method: str = "gradient"
    change: Callable[[Evidence], Evidence] = lambda evidence: evidence


@dataclass(frozen=True)
class Case:
    """The metrics of one picture, the side that should score better, the other one, and what is drawn of them.

    given: how the input is drawn, outlined with the mask of the object.
    """

    metrics: tuple[str, ...]
    better: Side
    worse: Side
    show: Show
    given: Literal["plain", "outlined", "nothing"] = "plain"
    options: dict[str, Any] = field(default_factory=dict)

    def asked(self) -> dict[str, dict[str, Any]]:
        """The metrics with their options."""
        return {name: self.options or OPTIONS.get(METRICS[name].needs.__name__, {}) for name in self.metrics}


def using(*needs: str, but: Sequence[str] = ()) -> tuple[str, ...]:
    """The metrics that need this: a new one is drawn with those of its kind."""
    return tuple(name for name, metric in METRICS.items() if metric.needs.__name__ in needs and name not in but)


def placed(evidence: Evidence, places: Tensor) -> Evidence:
    """A map of ones at the places [H, W], zero elsewhere."""
    return replace(evidence, attributions=places.to(evidence.images).expand_as(evidence.images), _done={})


def together(evidence: Evidence) -> Evidence:
    """64 pixels in one block."""
    places = torch.zeros(evidence.images.shape[2:])
    places[8:16, 16:24] = 1
    return placed(evidence, places)


def scattered(evidence: Evidence) -> Evidence:
    """64 pixels on a grid, one in every 4 x 4."""
    places = torch.zeros(evidence.images.shape[2:])
    places[1::4, 1::4] = 1
    return placed(evidence, places)


def tenth(evidence: Evidence) -> Evidence:
    """The same network with all logits, and so all gradients, divided by ten."""

    def predict(images: Tensor) -> Tensor:
        return evidence.predict(images) / 10

    def explain(images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        return evidence.explain(images, targets, seeds) / 10

    return replace(evidence, attributions=evidence.attributions / 10, predict=predict, explain=explain, _done={})


ROBUST, STANDARD = Side("trained at ε = 4", 4), Side("trained at ε = 0", 0)
SLOPE = Side("gradient, ε = 4", 4)
NOISE, SOBEL = Side("uniform noise", 4, "random"), Side("Sobel edges, of the image alone", 0, "sobel")
ELEMENTWISE, ORIGINAL = "relative_input_stability_elementwise", "relative_output_stability_original"
CASES: dict[str, Case] = {
    "conciseness": Case(using("maps"), ROBUST, STANDARD, one_map),
    "regional_gini": Case(
        ("regional_gini", "gini"),
        Side("64 pixels in one place", 4, change=together),
        Side("64 pixels scattered", 4, change=scattered),
        one_map,
        given="nothing",
    ),
    "stability": Case(using("neighbours", but=["retention"]), ROBUST, STANDARD, at_a_neighbour),
    "adversarial_stability": Case(using("worst"), ROBUST, STANDARD, at_the_worst),
    "relative_stability": Case(
        using("inputs", "outputs", but=[ELEMENTWISE, ORIGINAL]), ROBUST, STANDARD, at_a_neighbour
    ),
    ELEMENTWISE: Case((ELEMENTWISE,), ROBUST, STANDARD, at_a_neighbour),
    ORIGINAL: Case(
        (ORIGINAL, "relative_output_stability"),
        ROBUST,
        Side("the same, logits divided by 10", 4, change=tenth),
        at_a_neighbour,
    ),
    "retention": Case(("retention",), ROBUST, STANDARD, predictions, options=FAR),
    "relevance": Case(using("masks"), ROBUST, STANDARD, on_the_object, given="outlined"),
    "mosaic_focus": Case(using("mosaic"), Side("Grad-CAM, ε = 4", 4, "grad_cam"), SOBEL, in_a_mosaic),
    "road_gap": Case(using("removal"), SLOPE, NOISE, without_pixels),
    "deletion_insertion": Case(using("deletion", "insertion"), SLOPE, NOISE, paths),
    "infidelity": Case(using("noise"), SLOPE, NOISE, foretold),
    "class_sensitivity": Case(using("other_class"), Side("gradient, ε = 0", 0), SOBEL, of_another_class),
    "randomisation": Case(using("other_network"), SLOPE, SOBEL, of_another_network),
    "alignment": Case(using("images"), ROBUST, STANDARD, one_map),
}
