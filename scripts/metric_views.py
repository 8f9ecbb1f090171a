"""What scripts/metric_pictures.py draws of one row of the evidence, for each kind of metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from metric_panels import Panel, attribution, curves, image, points
from torch import Tensor

from epsilens.data.shapes import SHAPES
from epsilens.metrics.evidence import Evidence

CLASSES = tuple(SHAPES)
NEAR = {"radius_255": 4, "samples": 4}
FAR = {"radius_255": 96, "samples": 8}  # of retention: nearer, hardly a prediction flips
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
REMOVED = (0.3,)  # the share that the picture of road_gap shows
OPTIONS: dict[str, dict[str, Any]] = {  # by what a metric needs
    "other_network": {"layers": "all"},
    "blocks": {"block": 8},
    **dict.fromkeys(("neighbours", "inputs", "outputs"), NEAR),
    "worst": {**NEAR, "steps": 10},
    **{name: {"fractions": SHARES} for name in ("removal", "deletion", "insertion")},
    "noise": {"sigma": 0.1, "samples": 32},
}


def one_map(evidence: Evidence, row: int) -> list[Panel]:
    return [attribution("map", evidence.attributions[row])]


def on_the_object(evidence: Evidence, row: int) -> list[Panel]:
    return [attribution("map", evidence.attributions[row], evidence.masks[row])]


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
    titles = [f"{which} removed: “{name}”" for which, name in zip(("least", "most"), names, strict=True)]
    return [image(title, pixels) for title, pixels in zip(titles, removed, strict=True)]


def paths(evidence: Evidence, row: int) -> list[Panel]:
    path, clean = evidence.removal(SHARES), evidence.probability()
    lines = {"most relevant": path.most_probability, "least relevant": path.least_probability}
    heights = {label: torch.cat([clean.new_ones(1), (p / clean)[:, row]]) for label, p in lines.items()}
    return [*one_map(evidence, row), curves("probability left", (0, *SHARES), heights)]


def foretold(evidence: Evidence, row: int) -> list[Panel]:
    products, changes = evidence.perturbation(**OPTIONS["noise"])
    return [*one_map(evidence, row), points("foretold, found", products[:, row], changes[:, row])]


def of_another_class(evidence: Evidence, row: int) -> list[Panel]:
    logits = evidence.logits()[row].topk(2).indices.tolist()
    maps = evidence.attributions[row], evidence.runner_up()[row]
    return [attribution(f"map for “{CLASSES[label]}”", found) for label, found in zip(logits, maps, strict=True)]


def of_another_network(evidence: Evidence, row: int) -> list[Panel]:
    return [*one_map(evidence, row), attribution("map, random weights", evidence.unlearned("all")[row])]


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
    return [
        image("mosaic", torch.cat(shown)[row], whole),
        attribution("map of the mosaic", made.attributions[row], whole),
    ]
