"""The `train` section of params.yaml, in its two forms: networks that are trained, and published ones that are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from epsilens.config import Section
from epsilens.errors import ConfigError

SOURCES = ("training", "checkpoint")


def _known(source: Any) -> Any:
    if source not in SOURCES:
        raise ValueError(" or ".join(map(repr, SOURCES)))
    return source


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

    source: Annotated[Literal["training"], BeforeValidator(_known)]
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


class PublishedConfig(Section):
    """Networks that others have trained, one for each training epsilon.

    checkpoints: epsilon -> its file, from the raw data folder (EPSILENS_DATA). mean, std: what the networks were normalised
    with, a number a channel in [0, 1] pixel units; null where the files say it themselves.
    """

    source: Literal["checkpoint"]
    checkpoints: dict[Annotated[float, Field(ge=0)], Annotated[str, Field(min_length=1)]]
    mean: tuple[float, ...] | None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.mean or ()) != len(self.std or ()):
            raise ValueError("mean and std with a number for each channel, or null for both")
        return self


def form(raw: Mapping[str, Any]) -> type[TrainConfig] | type[PublishedConfig]:
    """The form of the train section that its `source` asks for; of an unknown one, TrainConfig complains."""
    given = raw.get("train")
    published = isinstance(given, Mapping) and given.get("source") == "checkpoint"
    return PublishedConfig if published else TrainConfig


def check_published(config: PublishedConfig, epsilons: tuple[float, ...], seeds: tuple[int, ...]) -> None:
    """Raises ConfigError that names every epsilon without a checkpoint, and more than one seed."""
    known = ", ".join(f"{epsilon:g}" for epsilon in config.checkpoints) or "none"
    lines = [
        f"params.yaml: train.checkpoints: no file for epsilon {epsilon:g} of sweep.epsilons; there are files for {known}"
        for epsilon in epsilons
        if epsilon not in config.checkpoints
    ]
    if len(seeds) > 1:
        lines.append(f"params.yaml: sweep.seeds: found {list(seeds)}, expected one: a published network is one network")
    if lines:
        raise ConfigError("\n".join(lines))
