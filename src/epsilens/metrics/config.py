"""The `score` section of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from epsilens.config import Section

Amounts = tuple[Annotated[float, Field(gt=0)], ...]


class AuditConfig(Section):
    """The confound audit: the metrics again, on maps that no training has changed, of the networks trained at `epsilon`.

    attribution: the method whose maps are changed. scale: factors on the maps; powers of two are exact in floating point.
    blur: standard deviations of a Gaussian, in pixels. temperature: what the logits are divided by. A list may be empty.
    """

    attribution: str
    epsilon: Annotated[float, Field(ge=0)]
    scale: Amounts
    blur: Amounts
    temperature: Amounts

    @property
    def count(self) -> int:
        """How many changes there are."""
        return len(self.scale) + len(self.blur) + len(self.temperature)

    @field_validator("scale", "blur", "temperature")
    @classmethod
    def _distinct(cls, values: Amounts) -> Amounts:
        if len(set(values)) != len(values):
            raise ValueError("no entry twice")
        return values


class ScoreConfig(Section):
    """metrics: a key of METRICS (with an optional @label) to its options. batch_size: images in one forward pass.

    seed: of the perturbations and of the imputation noise, the same for every network and method.
    """

    batch_size: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]
    metrics: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    audit: AuditConfig
