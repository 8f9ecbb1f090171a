"""The `threat` and `attack` sections of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from epsilens.config import Section

Norm = Literal["linf", "l2"]
Natural = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class ThreatConfig(Section):
    """norm: of the study's budgets; Linf budgets are written in 1/255, L2 budgets in [0, 1]-pixel norm."""

    norm: Norm


class Member(Section):
    """One attack of the ensemble. name: a key of ATTACKS, with an @label where it occurs twice; options: its arguments."""

    name: str
    options: dict[str, Any]


class EnsembleConfig(Section):
    """The strongest attack, at the headline budget: a sequence of attacks, each on what withstood those before it.

    images: of those under PGD (0 = all); attacks: a list, because their order counts and DVC sees none in a mapping.
    """

    images: Natural
    attacks: Annotated[tuple[Member, ...], Field(min_length=1)]

    @field_validator("attacks")
    @classmethod
    def _distinct(cls, attacks: tuple[Member, ...]) -> tuple[Member, ...]:
        if len({attack.name for attack in attacks}) < len(attacks):
            raise ValueError("different names (an @label tells two uses of one attack apart)")
        return attacks


class AttackConfig(Section):
    """The fixed evaluation: `epsilon` is the headline budget, `epsilons` the columns of the accuracy matrix, by norm.

    images: test images under PGD (0 = all); step_factor: step size = step_factor * budget / steps (2.5 in robustness).
    """

    images: Natural
    batch_size: Count
    epsilon: Positive
    epsilons: dict[Norm, tuple[Positive, ...]]
    steps: Count
    step_factor: Positive
    restarts: Count
    ensemble: EnsembleConfig
    seed: Natural

    @field_validator("epsilons")
    @classmethod
    def _different(cls, epsilons: dict[Norm, tuple[float, ...]]) -> dict[Norm, tuple[float, ...]]:
        for norm, budgets in epsilons.items():
            if len(set(budgets)) != len(budgets) or not budgets:
                raise ValueError(f"at least one budget for {norm}, and none twice")
        return epsilons

    @model_validator(mode="after")
    def _part(self) -> Self:
        if 0 < self.images < self.ensemble.images:
            raise ValueError(f"ensemble.images (found {self.ensemble.images}) to be at most images ({self.images})")
        return self
