"""params.yaml -> frozen sections. Each room declares its own section; here is the one strict reader.

Every unknown, missing and mistyped key is reported, all together, with its path and what is allowed.
There are no defaults: what params.yaml does not say is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from epsilens.errors import ConfigError

PARAMS = Path("params.yaml")
WORDS = {"an object": "a mapping", "a valid array": "a list"}  # JSON's names in those of YAML
LONGEST = 200  # characters of a value in a message


class Section(BaseModel):
    """Base of all sections: frozen, exact types, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)


def shown(value: object) -> str:
    """A value in a message, cut where it would fill the screen."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


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
            found = shown(item["input"])
            lines.append(f"params.yaml: {path}: found {found}, expected {WORDS.get(expected, expected)}")
    return lines


MERGE = "tag:yaml.org,2002:merge"
NOTATIONS = {  # of plain values, and with what they begin
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "tag:yaml.org,2002:int": (r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "tag:yaml.org,2002:float": (
        r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9]+(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", ("~", "n", "N", "")),
    MERGE: (r"<<", "<"),
}


def _resolvers() -> dict[str, list[Any]]:
    """`NOTATIONS` as PyYAML wants them: the first character of a value to (tag, pattern)."""
    found = dict[str, list[Any]]()
    for tag, (pattern, begins) in NOTATIONS.items():
        for character in begins:
            found.setdefault(character, []).append((tag, re.compile(rf"(?:{pattern})\Z")))
    return found


class _Loader(yaml.SafeLoader):
    """What this reader and DVC's understand alike: of YAML 1.2 the plain values, without tags, and no key twice.

    PyYAML alone reads YAML 1.1, where `1e-3` is a text, `010` is 8 and `no` is false, and of two equal keys drops the first.
    """

    yaml_implicit_resolvers = _resolvers()

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise _wrong(f"found the tag {event.tag}, expected plain values", event.start_mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> Any:
        node, seen = super().compose_mapping_node(anchor), set[Hashable]()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            name = key.value if key.tag == MERGE else self.construct_object(key)
            if name in seen:
                raise _wrong(f"found the key {key.value!r} twice, expected each once", key.start_mark)
            seen.add(name)
        return node


def _wrong(what: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=mark)


def read(path: Path = PARAMS) -> Mapping[str, Any]:
    """The raw mapping of params.yaml: dicts, lists, texts, numbers, true, false and null.

    Raises ConfigError that names the line, or the keys, if it is missing or holds anything else.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  # a SafeLoader with less
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{path}: {place}{error.problem or error.context}") from None
    except RecursionError:
        raise ConfigError(f"{path}: {DEEP}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:  # UnicodeDecodeError, and integers of thousands of digits
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        found = "nothing" if raw is None else type(raw).__name__
        raise ConfigError(f"{path}: found {found}, expected a mapping of sections")
    lines = _unusable(raw, path)
    if lines:
        raise ConfigError("\n".join(lines))
    return raw


MOST, DEEPEST = 100_000, 20
DEEP = f"expected at most {MOST} values in at most {DEEPEST} levels, an alias counted wherever it stands"
INTEGERS = range(-(2**31), 2**31)  # what every library below can take
UNWRITABLE = re.compile("[\0\ud800-\udfff]")  # in no file name and no text of UTF-8


def _unusable(raw: Mapping[Any, Any], path: Path) -> list[str]:
    """A line for each key and value that no section could use, so that none need think of them."""
    lines, todo, seen = list[str](), [("", raw, 0)], 0
    while todo:
        key, value, depth = todo.pop()
        seen += 1
        if seen > MOST or depth > DEEPEST:
            return [f"{path}: {DEEP}"]
        if isinstance(value, int) and value not in INTEGERS:
            lines.append(f"{path}: {key}: found an integer of {len(str(abs(value)))} digits, expected one of 32 bits")
        elif isinstance(value, str) and UNWRITABLE.search(value):
            lines.append(f"{path}: {key}: found {shown(value)}, expected a text without NUL and surrogates")
        elif isinstance(value, dict):
            odd = [name for name in value if not str(name).isprintable()]
            lines += [f"{path}: {key}: found the key {shown(name)}, expected printable characters" for name in odd]
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        parts = [(str(name), part) for name, part in parts if str(name).isprintable()]
        todo += reversed([(f"{key}.{name}".lstrip("."), part, depth + 1) for name, part in parts])
    return lines


def section(raw: Mapping[str, Any], name: str, schema: type[S]) -> S:
    """One section of params.yaml. Raises ConfigError that names every problem in it."""
    if name not in raw:
        raise ConfigError(f"params.yaml: {name}: missing section")
    try:
        # Through JSON, because in pydantic's strict JSON mode a list is a tuple and 8 is a float, but "8" is not.
        return schema.model_validate_json(json.dumps(raw[name], default=str))
    except ValidationError as error:
        raise ConfigError("\n".join(problems(error, name))) from None
