"""params.yaml -> frozen sections. Each room declares its own section; here is the one strict reader.

Every unknown, missing and mistyped key is reported, all together, with its path and what is allowed.
There are no defaults: what params.yaml does not say is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from epsilens.errors import ConfigError

PARAMS = Path("params.yaml")


class Section(BaseModel):
    """Base of all sections: frozen, exact types, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)


def problems(error: ValidationError, root: str) -> list[str]:
    """One line for each problem: `params.yaml: train.epochs: found 'ten', expected ...`."""
    lines = []
    for item in error.errors(include_url=False):
        path = ".".join([root, *map(str, item["loc"])]).strip(".")
        if item["type"] == "extra_forbidden":
            lines.append(f"params.yaml: {path}: unknown key")
        elif item["type"] == "missing":
            lines.append(f"params.yaml: {path}: missing key")
        else:
            expected = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            lines.append(f"params.yaml: {path}: found {item['input']!r}, expected {expected}")
    return lines


def read(path: Path = PARAMS) -> Mapping[str, Any]:
    """The raw mapping of params.yaml. Raises ConfigError if it is missing or is no mapping."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: found {type(raw).__name__}, expected a mapping of sections")
    return raw


def section(raw: Mapping[str, Any], name: str, schema: type[S]) -> S:
    """One section of params.yaml. Raises ConfigError that names every problem in it."""
    if name not in raw:
        raise ConfigError(f"params.yaml: {name}: missing section")
    try:
        # Through JSON, because in pydantic's strict JSON mode a list is a tuple and 8 is a float, but "8" is not.
        return schema.model_validate_json(json.dumps(raw[name], default=str))
    except ValidationError as error:
        raise ConfigError("\n".join(problems(error, name))) from None
