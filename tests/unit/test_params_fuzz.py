"""params.yaml under random damage: whatever is in it, it is either a study that can be begun, or answered line by line.

EPSILENS_FUZZ_EXAMPLES=20000 with `pytest --hypothesis-seed=<n>` looks for longer; the suite takes the same few every time.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from epsilens import attacks, attributions, config, metrics, models, training
from epsilens import data as datasets
from epsilens.attacks import ThreatModel
from epsilens.attacks.config import AttackConfig, ThreatConfig
from epsilens.attributions.config import AttributeConfig
from epsilens.data.config import DataConfig
from epsilens.errors import ConfigError
from epsilens.metrics.config import ScoreConfig
from epsilens.models.config import ModelConfig
from epsilens.reporting.config import ReportConfig, SweepConfig
from epsilens.training.choices import recipe, schedule
from stages.validate import problems

ROOT = Path(__file__).parents[2]
STUDIES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "studies").glob("*.yaml"))}
RAW = {name: yaml.safe_load(text) for name, text in STUDIES.items()}
LONG = int(os.environ.get("EPSILENS_FUZZ_EXAMPLES", "0"))


Place = tuple[str | int, ...]
Study = dict[str, Any]


def fuzzed(examples: int) -> Callable[[Any], Any]:
    return settings(max_examples=LONG or examples, derandomize=not LONG, deadline=None, database=None, print_blob=True)


@cache
def places(name: str) -> list[Place]:
    """Where something stands in a study."""

    def walk(value: Any, place: Place) -> Iterator[Place]:
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, part in parts:
            yield (*place, key)
            yield from walk(part, (*place, key))

    return list(walk(RAW[name], ()))


INTEGERS = [0, 1, -1, 2, 3, 8, 255, 256, 300, 1000, 10**6, 2**31 - 1, 2**31, 2**63, 10**30, -(10**30), True, False]
FLOATS = [-0.0, 0.0, 0.5, 1.5, 1e-300, 5e-324, 1e16, 1e308, math.nan, math.inf, -math.inf]
WORDS = [
    "gini",
    "gini@a",
    "gini@",
    "gini@é",
    "ginni",
    "random",
    "gradient",
    "pgd",
    "apgd_t",
    "apgd_ce@2",
    "all",
    "black",
    "shapes",
    "cifar10",
    "folder",
    "checkpoint",
    "training",
    "linf",
    "l2",
    "resnet18",
    "cosine",
    "../x",
    "a/b",
    "no",
    "${sweep.seeds}",
    "$(id)",
    "1e-3",
    "010",
    "8",
    "null",
    "<b>",
    "2001-01-01",
    "ε",
]
NUMBERS = st.sampled_from([*INTEGERS, *FLOATS])
NAMES = st.sampled_from([*WORDS, "", "a\0b", "a\nb", "\ud800", "x" * 300])
SCALARS = st.one_of(st.none(), NUMBERS, NAMES, st.text(max_size=5), st.integers(), st.floats())
VALUES = st.recursive(
    SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(NAMES | NUMBERS, part, max_size=3), max_leaves=6
)


def damaged(study: Study, place: Place, how: str, value: Any) -> None:
    """Change a study at a place that it has; where an earlier change took the place away, nothing happens."""
    *above, last = place
    at: Any = study
    for key in above:
        if not (isinstance(at, dict) and key in at) and not (isinstance(at, list) and key in range(len(at))):
            return
        at = at[key]
    if not (isinstance(at, dict) and last in at) and not (isinstance(at, list) and last in range(len(at))):
        return
    if how == "replace":
        at[last] = value
    elif how == "remove":
        del at[last]
    elif how == "again" and isinstance(at, list):
        at.append(deepcopy(at[last]))
    elif how == "rename" and isinstance(at, dict):
        at[str(value)] = at.pop(last)
    elif how == "add" and isinstance(at[last], dict):
        at[last][str(value)] = {}
    elif how == "empty" and isinstance(at[last], list | dict):
        at[last].clear()


@st.composite
def studies(draw: st.DrawFn) -> Study:
    """A study that comes with the project, changed in one to three places, also to what stands elsewhere in it."""
    name = draw(st.sampled_from(sorted(RAW)))
    study = deepcopy(RAW[name])
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(name)))
        how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "again", "rename", "add", "empty"]))
        damaged(
            study,
            place,
            how,
            draw(VALUES | st.sampled_from(places(name)).map(lambda at: deepcopy(value_at(RAW[name], at)))),
        )
    return study


def value_at(study: Any, place: Place) -> Any:
    for key in place:
        study = study[key]
    return study


def judged(path: Path) -> tuple[Mapping[str, Any], list[str]]:
    """What is read and what is wrong with it. Anything but a ConfigError fails the test."""
    try:
        raw = config.read(path)
    except ConfigError as error:
        return {}, str(error).replace(str(path), "params.yaml").split("\n")
    lines = problems(raw)
    assert all(isinstance(line, str) for line in lines)
    return raw, "\n".join(lines).split("\n") if lines else []


def begun(raw: Mapping[str, Any]) -> None:
    """What the stages make of params.yaml before and beside their work, cheaply. Must not raise."""
    norm = config.section(raw, "threat", ThreatConfig).norm
    attack, sweep = config.section(raw, "attack", AttackConfig), config.section(raw, "sweep", SweepConfig)
    cells = sweep.grid()
    assert len(set(cells)) == len(cells)
    assert all(
        set(text) <= set("0123456789.e+-") and ThreatModel.of(norm, float(text)).epsilon >= 0 for text, _ in cells
    )
    torch.tensor([seed for _, seed in cells], dtype=torch.int64)
    budgets = [ThreatModel.of(its, budget) for its, found in attack.epsilons.items() for budget in found]
    assert ThreatModel.of(norm, attack.epsilon) in budgets
    for member in attack.ensemble.attacks:
        attacks.bound(member.name, member.options, "attack.ensemble.attacks")
    data = config.section(raw, "data", DataConfig)
    datasets.check(data)
    model = config.section(raw, "model", ModelConfig)
    assert models.layers(model) > 2
    train = config.section(raw, "train", training.form(raw))
    if isinstance(train, training.TrainConfig):
        recipe(train)
        assert all(0 <= schedule(train)(progress) <= 1 for progress in (0.0, 0.3, 0.999))
    else:
        training.check_published(train, tuple(float(text) for text, _ in cells), sweep.seeds)
    attribute, score = config.section(raw, "attribute", AttributeConfig), config.section(raw, "score", ScoreConfig)
    assert set(attributions.explainers(torch.nn.Identity(), attribute, lambda: torch.zeros(0))) == set(
        attribute.methods
    )
    assert set(metrics.facts(score.metrics)) == set(score.metrics)
    assert score.audit.attribution in attribute.methods
    report = config.section(raw, "report", ReportConfig)
    assert {report.attribution} <= attribute.methods.keys()
    assert set(report.metrics) <= score.metrics.keys()
    assert len(raw["study"]["name"]) < 200
    json.dumps(raw, sort_keys=True, default=str).encode()


def hold(text: str | bytes, folder: Path) -> list[str]:
    path = folder / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    raw, lines = judged(path)
    assert all(line.startswith("params.yaml: ") for line in lines), lines
    event("refused" if lines else "begun")
    if not lines:
        begun(raw)
    return lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@fuzzed(150)
@given(study=studies())
def test_a_damaged_study_is_answered_or_can_be_begun(study: Study, folder: Path) -> None:
    hold(yaml.safe_dump(study, sort_keys=False, allow_unicode=False), folder)


MARKS = [
    ":",
    "-",
    "&a",
    "*a",
    "<<:*a",
    "{",
    "}",
    "[",
    "]",
    "!!python/object/apply:os.system[id]",
    "!!set",
    "?",
    "|",
    "'",
    '"',
    "#",
    "%YAML",
    "...",
    "0x1f",
    "1_000",
    "1:30",
    ".inf",
    "`",
    "@",
]
PIECES = st.sampled_from([*MARKS, "\t", "\n", "- ", "? ", "---\n", "\0", "\ufeff", "  ", "\r", "\x85"])


@fuzzed(80)
@given(
    name=st.sampled_from(sorted(STUDIES)),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), PIECES | st.text(max_size=3)), min_size=1, max_size=3),
)
def test_a_damaged_text_is_answered_or_can_be_begun(
    name: str, cuts: list[tuple[float, int, str]], folder: Path
) -> None:
    text = STUDIES[name]
    for where, length, piece in cuts:
        start = int(where * len(text))
        text = text[:start] + piece + text[start + length :]
    hold(text, folder)


@fuzzed(100)
@given(content=st.binary(max_size=30) | st.text(max_size=30).map(lambda text: text.encode("utf-8", "replace")))
@example(content=b"")
@example(content=b"a: &a [*a]")
@example(content=b"[" * 3000)
@example(content=b"a: " + b"9" * 5000)
@example(content=b"\xff\xfe")
@example(content=b"? !!python/tuple [1]\n: 1")
@example(content=b"a: !!timestamp x")
def test_anything_else_is_no_study(content: bytes, folder: Path) -> None:
    assert hold(content, folder)
