"""The sections study, sweep and report of params.yaml."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from epsilens.config import Section

Natural = Annotated[int, Field(ge=0)]


def _epsilon(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or math.copysign(1, value) < 0:
        raise ValueError("a finite number that is 0 or above")
    return value


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("at least one entry")
    if len(set(values)) != len(values):
        raise ValueError("no entry twice (0 and 0.0 are the same)")
    return values


class StudyConfig(Section):
    """What the report is headed with."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)]  # of folders
    description: str


class SweepConfig(Section):
    """The grid of networks. Integers stay integers: the text of an epsilon is part of paths and of stage names."""

    epsilons: tuple[Annotated[int | float, BeforeValidator(_epsilon)], ...]
    seeds: tuple[Natural, ...]

    _different = field_validator("epsilons", "seeds")(_distinct)

    def grid(self) -> list[tuple[str, int]]:
        """Every (epsilon as dvc.yaml renders it, seed): 8 is "8", 0.25 is "0.25", 8.0 is "8.0"."""
        return [(str(epsilon), seed) for epsilon in self.epsilons for seed in self.seeds]


class PlausibleConfig(Section):
    """Misleading but plausible: the metrics that make a map plausible, the one that makes it misleading, and the control
    that a map must beat on the same image not to be."""

    conciseness: str
    stability: str
    relevance: str  # or faithfulness, where there are no masks
    control: str


Share = Annotated[float, Field(gt=0, lt=1)]


class ClaimsConfig(Section):
    """What decides on the claims of the study. To be written before the run; `plausible` names the metrics."""

    alpha: Annotated[float, Field(gt=0, le=0.2)]  # of each family of tests, after Holm's correction
    accuracy_margin: Share  # a loss of clean accuracy up to this counts as none
    relevance_margin: Annotated[float, Field(gt=0)]  # a gain of relevance up to this counts as none; its own unit
    modest_share: Share  # of the gain that the smallest epsilon above the first must have
    misleading_rate: Share  # of the plausible maps, beyond which they are said to mislead
    # Plausibility that tells right from wrong no better than 0.5 + this counts as blind.
    auroc_margin: Annotated[float, Field(gt=0, lt=0.5)]


class RecommendConfig(Section):
    """The smallest epsilon that gains at least `gain` in `metric` (its own unit) for at most `accuracy_loss`."""

    metric: str
    gain: Annotated[float, Field(gt=0)]
    accuracy_loss: Share


class ReportConfig(Section):
    """The headline and the intervals."""

    attribution: str
    metrics: Annotated[tuple[str, ...], Field(max_length=4)]
    bootstrap: Annotated[int, Field(ge=100, le=100_000)]
    seed: Natural
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    plausible: PlausibleConfig
    claims: ClaimsConfig
    recommend: RecommendConfig

    _different = field_validator("metrics")(_distinct)
