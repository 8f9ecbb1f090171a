"""The `threat` and `attack` sections of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from epsilens.attacks.threat import ThreatModel
from epsilens.config import Section
from epsilens.errors import ConfigError

Norm = Literal["linf", "l2"]


class ThreatConfig(Section):
    """norm: of all budgets of the study; Linf budgets are written in 1/255, L2 budgets in [0, 1]-pixel norm."""

    norm: Norm


class AttackConfig(Section):
    """The fixed evaluation: `epsilon` is the headline budget, `epsilons` the columns of the accuracy matrix.

    images: test images attacked (0 = all); step_factor: step size = step_factor * budget / steps (2.5 in robustness).
    """

    images: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=1)]
    epsilon: Annotated[float, Field(gt=0)]
    epsilons: Annotated[tuple[float, ...], Field(min_length=1)]
    steps: Annotated[int, Field(ge=1)]
    step_factor: Annotated[float, Field(gt=0)]
    restarts: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.epsilons)) != len(self.epsilons):
            raise ValueError("different budgets in epsilons")
        if self.epsilon not in self.epsilons:
            raise ValueError(f"epsilon (found {self.epsilon:g}) to be one of epsilons")
        return self


def check(threat: ThreatConfig, attack: AttackConfig, trained: tuple[float, ...]) -> None:
    """Raises ConfigError that names every budget the threat model does not allow."""
    lines = []
    for key, budgets in (("sweep.epsilons", trained), ("attack.epsilons", attack.epsilons)):
        for budget in budgets:
            try:
                ThreatModel.of(threat.norm, budget)
            except ConfigError as error:
                lines.append(f"params.yaml: {key}: {error}")
    if lines:
        raise ConfigError("\n".join(lines))
