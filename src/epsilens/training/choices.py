"""The recipe and the schedule that params.yaml names, with their options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from epsilens.errors import ConfigError
from epsilens.registry import choose, options
from epsilens.training.config import Choice, TrainConfig
from epsilens.training.recipes import RECIPES
from epsilens.training.schedules import SCHEDULES


def recipe(config: TrainConfig) -> Callable[..., Any]:
    """(network, attacked, batch, threat, criterion) -> loss. Raises ConfigError for an unknown name or wrong options."""
    return _member(RECIPES, config.recipe, "train.recipe")


def schedule(config: TrainConfig) -> Callable[[float], float]:
    """Progress -> share of the learning rate. Raises ConfigError as `recipe` does."""
    return _member(SCHEDULES, config.schedule, "train.schedule")


def check(config: TrainConfig) -> None:
    """Raises ConfigError that names every problem with the two."""
    lines = []
    for read in (recipe, schedule):
        try:
            read(config)
        except ConfigError as error:
            lines.append(str(error))
    if lines:
        raise ConfigError("\n".join(lines))


def _member(registry: Mapping[str, Any], choice: Choice, key: str) -> Callable[..., Any]:
    function = choose(registry, choice.name, f"{key}.name").run
    return partial(function, **options(function, choice.options, f"{key}.options"))
