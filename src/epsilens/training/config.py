"""The `train` section of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from epsilens.config import Section


class Choice(Section):
    """name: a key of a registry; options: the keyword arguments of that member."""

    name: str
    options: dict[str, Any]


class TrainConfig(Section):
    """SGD with Nesterov momentum on the examples of a recipe (on the images themselves at epsilon 0).

    recipe: a member of RECIPES; schedule: a member of SCHEDULES, which scales `learning_rate`.
    averaging: decay of the exponential average of the weights that is evaluated and kept (0 = the weights themselves).
    crop: zero padding in pixels before a random crop (0 = none). flip: random horizontal flips.
    validation_steps: PGD steps of the robust validation accuracy by which the epoch is chosen.
    patience: epochs without a better one after which training ends (0 = it goes on to the end).
    precision: auto is bfloat16 where a GPU multiplies in it, else float32.
    """

    recipe: Choice
    schedule: Choice
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(gt=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    averaging: Annotated[float, Field(ge=0, lt=1)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    flip: bool
    crop: Annotated[int, Field(ge=0)]
    validation_steps: Annotated[int, Field(ge=1)]
    patience: Annotated[int, Field(ge=0)]
    precision: Literal["auto", "float32", "bfloat16"]
