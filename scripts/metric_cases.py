"""Which picture shows which metrics, by which two maps, for scripts/metric_pictures.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from metric_panels import Panel, attribution, curves, image, points
from torch import Tensor

from epsilens.data.shapes import SHAPES
from epsilens.metrics import METRICS
from epsilens.metrics.evidence import Evidence

CLASSES = tuple(SHAPES)
NEAR = {"radius_255": 4, "samples": 4}
FAR = {"radius_255": 24, "samples": 8}
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
REMOVED = (0.3,)  # the share that the picture of road_gap shows
OPTIONS: dict[str, dict[str, Any]] = {  # by what a metric needs
    "blocks": {"block": 8},
    **dict.fromkeys(("neighbours", "inputs", "outputs"), NEAR),
    "worst": {**NEAR, "steps": 10},
    **dict.fromkeys(("removal", "deletion", "insertion"), {"fractions": SHARES}),
    "noise": {"sigma": 0.1, "samples": 32},
}

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

    outlined: the mask of the object is drawn on the input.
    """

    metrics: tuple[str, ...]
    better: Side
    worse: Side
    show: Show
    outlined: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def asked(self) -> dict[str, dict[str, Any]]:
        """The metrics with their options."""
        return {name: self.options or OPTIONS.get(METRICS[name].needs.__name__, {}) for name in self.metrics}


def using(*needs: str, but: Sequence[str] = ()) -> tuple[str, ...]:
    """The metrics that need this: a new one is drawn with those of its kind."""
    return tuple(name for name, metric in METRICS.items() if metric.needs.__name__ in needs and name not in but)


def one_map(evidence: Evidence, row: int) -> list[Panel]:
    return [attribution("map", evidence.attributions[row])]


def on_the_object(evidence: Evidence, row: int) -> list[Panel]:
    return [attribution("map, outline of the object", evidence.attributions[row], evidence.masks[row])]


def at_a_neighbour(evidence: Evidence, row: int) -> list[Panel]:
    near = evidence.neighbourhood(**NEAR)
    kept = int(near.kept[:, row].double().argmax())  # the first one
    return [*one_map(evidence, row), attribution("map of a neighbour", near.attributions[kept, row])]


def at_the_worst(evidence: Evidence, row: int) -> list[Panel]:
    found = evidence.worst(**OPTIONS["worst"])
    return [*one_map(evidence, row), attribution("map, attacked", found.attributions[row])]


def predictions(evidence: Evidence, row: int) -> list[Panel]:
    near = evidence.neighbourhood(**FAR)
    order = near.kept[:, row].double().argsort(stable=True)[:2].tolist()  # those that flip come first
    names = [CLASSES[int(near.logits[k, row].argmax())] for k in order]
    return [image(f"“{name}”", near.images[k, row]) for k, name in zip(order, names, strict=True)]


def seen(evidence: Evidence, ask: Callable[[Evidence], Any]) -> Tensor:
    """All images that the network is shown when `ask` is answered."""
    shown: list[Tensor] = []

    def predict(images: Tensor) -> Tensor:
        shown.append(images)
        return evidence.predict(images)

    ask(replace(evidence, predict=predict, _done={}))
    return torch.cat(shown)


def without_pixels(evidence: Evidence, row: int) -> list[Panel]:
    removed = seen(evidence, lambda one: one.removal(REMOVED)).unflatten(0, (2, -1))[:, row]
    names = [CLASSES[int(label)] for label in evidence.predict(removed).argmax(dim=1)]
    titles = [f"{which} {100 * REMOVED[0]:.0f} % removed:\n“{name}”" for which, name in zip(("least", "most"), names, strict=True)]
    return [image(title, pixels) for title, pixels in zip(titles, removed, strict=True)]


def paths(evidence: Evidence, row: int) -> list[Panel]:
    path, clean = evidence.removal(SHARES), evidence.probability()
    lines = {"most relevant": path.most_probability, "least relevant": path.least_probability}
    heights = {label: torch.cat([clean.new_ones(1), (p / clean)[:, row]]) for label, p in lines.items()}
    return [*one_map(evidence, row), curves("probability left", (0, *SHARES), heights)]


def foretold(evidence: Evidence, row: int) -> list[Panel]:
    products, changes = evidence.perturbation(**OPTIONS["noise"])
    return [*one_map(evidence, row), points("foretold and found", products[:, row], changes[:, row])]


def of_another_class(evidence: Evidence, row: int) -> list[Panel]:
    logits = evidence.logits()[row].topk(2).indices.tolist()
    maps = evidence.attributions[row], evidence.runner_up()[row]
    return [attribution(f"map for “{CLASSES[label]}”", found) for label, found in zip(logits, maps, strict=True)]


def of_another_network(evidence: Evidence, row: int) -> list[Panel]:
    return [*one_map(evidence, row), attribution("map, random weights", evidence.unlearned()[row])]


def in_a_mosaic(evidence: Evidence, row: int) -> list[Panel]:
    made = evidence.mosaic()
    height, width = evidence.images.shape[2:]
    cell = torch.zeros(2, 2, dtype=torch.bool).flatten()
    cell[made.cells[row]] = True
    whole = cell.view(2, 2).repeat_interleave(height, 0).repeat_interleave(width, 1)
    shown: list[Tensor] = []

    def explain(images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        shown.append(images)
        return evidence.explain(images, targets, seeds)

    replace(evidence, explain=explain, _done={}).mosaic()
    return [image("mosaic", torch.cat(shown)[row], whole), attribution("map of the mosaic", made.attributions[row], whole)]


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
NOISE = Side("ε = 4, uniform noise", 4, "random")
SOBEL = Side("ε = 4, Sobel edges", 4, "sobel")
CASES: dict[str, Case] = {
    "conciseness": Case(using("maps"), ROBUST, STANDARD, one_map),
    "regional_gini": Case(
        ("regional_gini", "gini"), Side("64 pixels in one place", 4, change=together),
        Side("64 pixels scattered", 4, change=scattered), one_map,
    ),
    "stability": Case(using("neighbours", but=["retention"]), ROBUST, STANDARD, at_a_neighbour),
    "adversarial_stability": Case(using("worst"), ROBUST, STANDARD, at_the_worst),
    "relative_stability": Case(
        using("inputs", "outputs", but=["relative_output_stability_original"]), ROBUST, STANDARD, at_a_neighbour
    ),
    "logit_scale": Case(
        ("relative_output_stability_original", "relative_output_stability"), ROBUST,
        Side("the same, logits divided by 10", 4, change=tenth), at_a_neighbour,
    ),
    "retention": Case(("retention",), ROBUST, STANDARD, predictions, options=FAR),
    "relevance": Case(using("masks"), ROBUST, STANDARD, on_the_object, outlined=True),
    "mosaic_focus": Case(using("mosaic"), ROBUST, SOBEL, in_a_mosaic),
    "road_gap": Case(using("removal"), Side("ε = 4, gradient", 4), NOISE, without_pixels),
    "deletion_insertion": Case(using("deletion", "insertion"), Side("ε = 4, gradient", 4), NOISE, paths),
    "infidelity": Case(using("noise"), Side("ε = 4, gradient", 4), NOISE, foretold),
    "class_sensitivity": Case(using("other_class"), Side("ε = 4, gradient", 4), SOBEL, of_another_class),
    "randomisation": Case(using("other_network"), Side("ε = 4, gradient", 4), SOBEL, of_another_network),
    "alignment": Case(using("images"), ROBUST, STANDARD, one_map),
}
