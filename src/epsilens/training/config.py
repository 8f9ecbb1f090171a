"""The `train` section of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from epsilens.config import Section

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class TrainConfig(Section):
    """SGD with Nesterov momentum on PGD examples (on the images themselves at epsilon 0).

    schedule: one_cycle rises linearly to `learning_rate` over the first `warmup` of the steps and falls linearly to 0;
    multi_step divides it by ten at each of `milestones`. warmup, milestones: shares of all steps.
    averaging: decay of the exponential average of the weights that is evaluated and kept (0 = the weights themselves).
    crop: zero padding in pixels before a random crop (0 = none). flip: random horizontal flips.
    steps, step_factor, random_start: of the PGD attack; step size = step_factor * epsilon / steps.
    validation_steps: PGD steps of the validation accuracy by which the epoch is chosen.
    """

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Positive
    momentum: Annotated[float, Field(gt=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["one_cycle", "multi_step"]
    warmup: Share
    milestones: tuple[Share, ...]
    averaging: Share
    label_smoothing: Share
    flip: bool
    crop: Annotated[int, Field(ge=0)]
    steps: Annotated[int, Field(ge=1)]
    step_factor: Positive
    random_start: bool
    validation_steps: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones to rise")
        return self
