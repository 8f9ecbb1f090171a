"""What a metric needs: each adapter takes tensors from the evidence and hands them to `compute`.

Keyword-only arguments are the metric's options in params.yaml.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field

from epsilens.metrics.evidence import Evidence, Layers
from epsilens.types import Scores

Compute = Callable[..., Scores]
Count = Annotated[int, Field(ge=1)]
Radius = Annotated[float, Field(gt=0, le=255)]
Share = Annotated[float, Field(gt=0, lt=1)]
Shares = Annotated[tuple[Share, ...], Field(min_length=1)]


def _depth(value: Any) -> Any:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError("all, or a number of layers from the output, at least 1")


Depth = Annotated[Layers, BeforeValidator(_depth)]


def maps(compute: Compute, evidence: Evidence) -> Scores:
    """compute(attributions)."""
    return compute(evidence.attributions)


def blocks(compute: Compute, evidence: Evidence, *, block: Count) -> Scores:
    """compute(attributions, block): the side of a block in pixels."""
    return compute(evidence.attributions, block)


def images(compute: Compute, evidence: Evidence) -> Scores:
    """compute(attributions, images)."""
    return compute(evidence.attributions, evidence.images)


def masks(compute: Compute, evidence: Evidence) -> Scores:
    """compute(attributions, masks)."""
    return compute(evidence.attributions, evidence.masks)


def mosaic(compute: Compute, evidence: Evidence) -> Scores:
    """compute(attributions of the mosaics, cells)."""
    made = evidence.mosaic()
    return compute(made.attributions, made.cells)


def neighbours(compute: Compute, evidence: Evidence, *, radius_255: Radius, samples: Count) -> Scores:
    """compute(attributions, perturbed, kept)."""
    near = evidence.neighbourhood(radius_255, samples)
    return compute(evidence.attributions, near.attributions, near.kept)


def inputs(compute: Compute, evidence: Evidence, *, radius_255: Radius, samples: Count) -> Scores:
    """compute(attributions, perturbed, kept, images, perturbed images)."""
    near = evidence.neighbourhood(radius_255, samples)
    return compute(evidence.attributions, near.attributions, near.kept, evidence.images, near.images)


def outputs(compute: Compute, evidence: Evidence, *, radius_255: Radius, samples: Count) -> Scores:
    """compute(attributions, perturbed, kept, logits, perturbed logits)."""
    near = evidence.neighbourhood(radius_255, samples)
    return compute(evidence.attributions, near.attributions, near.kept, evidence.logits(), near.logits)


def worst(compute: Compute, evidence: Evidence, *, radius_255: Radius, samples: Count, steps: Count) -> Scores:
    """compute(attributions, perturbed, kept), of one neighbour: the worst that an attack finds."""
    near = evidence.worst(radius_255, samples, steps)
    return compute(evidence.attributions, near.attributions[None], near.kept[None])


def removal(compute: Compute, evidence: Evidence, *, fractions: Shares) -> Scores:
    """compute(least_first, most_first)."""
    path = evidence.removal(fractions)
    return compute(path.least_first, path.most_first)


def deletion(compute: Compute, evidence: Evidence, *, fractions: Shares) -> Scores:
    """compute(fractions, probabilities, clean probability), the most relevant pixels removed."""
    path = evidence.removal(fractions)
    return compute(torch.tensor(fractions, dtype=torch.float64), path.most_probability, evidence.probability())


def insertion(compute: Compute, evidence: Evidence, *, fractions: Shares) -> Scores:
    """compute(fractions, probabilities, clean probability), the least relevant pixels removed: what is left is what was
    inserted, the most relevant first."""
    path = evidence.removal(fractions)
    return compute(torch.tensor(fractions, dtype=torch.float64), path.least_probability, evidence.probability())


def noise(
    compute: Compute, evidence: Evidence, *, sigma: Annotated[float, Field(gt=0)], samples: Annotated[int, Field(ge=2)]
) -> Scores:
    """compute(products, changes)."""
    return compute(*evidence.perturbation(sigma, samples))


def other_class(compute: Compute, evidence: Evidence) -> Scores:
    """compute(attributions, attributions of the class that the network holds for second most likely)."""
    return compute(evidence.attributions, evidence.runner_up())


def other_network(compute: Compute, evidence: Evidence, *, layers: Depth) -> Scores:
    """compute(attributions, attributions of the network whose last `layers` have random weights); NaN if there is none."""
    return compute(evidence.attributions, evidence.unlearned(layers))
