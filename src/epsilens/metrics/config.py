"""The `score` section of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from epsilens.config import Section


class ScoreConfig(Section):
    """metrics: a key of METRICS (with an optional @label) to its options. batch_size: images in one forward pass.

    seed: of the perturbations and of the imputation noise, the same for every network and method.
    """

    batch_size: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]
    metrics: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
