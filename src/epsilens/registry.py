"""Registries are literal dicts. Here: the look-up of a name, and the check of its options against a signature.

A name in params.yaml may carry a label after `@` (`integrated_gradients@blur`), so that one member can be used twice
with different options.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import ValidationError, create_model

from epsilens.config import Section, problems, shown
from epsilens.errors import ConfigError

Entry = TypeVar("Entry")
LABEL = re.compile(r"[A-Za-z0-9_.-]{1,40}")  # it becomes part of file names


def choose(registry: Mapping[str, Entry], name: str, key: str) -> Entry:
    """The entry of `name` (up to its `@label`). Raises ConfigError with the known names and the nearest one."""
    plain, at, label = name.partition("@")
    if at and not LABEL.fullmatch(label):
        raise ConfigError(
            f"params.yaml: {key}: found {shown(name)}, expected after @ a label of 1 to 40 letters, digits, dots, dashes "
            "and underscores"
        )
    if plain in registry:
        return registry[plain]
    near = difflib.get_close_matches(plain, registry, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ConfigError(f"params.yaml: {key}: found {shown(name)}, known are {', '.join(registry)}{hint}")


def labelled(name: str) -> str:
    """` (label)` of a name with an @label, else nothing: what tells two uses of one member apart."""
    label = name.partition("@")[2]
    return f" ({label})" if label else ""


def options(function: Callable[..., Any], given: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The keyword-only arguments of `function`, checked and converted from `given`.

    Raises ConfigError that lists every unknown, missing and mistyped option under `key`.
    """
    hints = get_type_hints(function, include_extras=True)
    keywords = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    fields: dict[str, Any] = {p.name: (hints[p.name], ... if p.default is p.empty else p.default) for p in keywords}
    schema = create_model("Options", __base__=Section, **fields)
    try:
        checked = schema.model_validate_json(json.dumps(dict(given), default=str))
    except ValidationError as error:
        raise ConfigError("\n".join(problems(error, key))) from None
    return {name: getattr(checked, name) for name in fields}
