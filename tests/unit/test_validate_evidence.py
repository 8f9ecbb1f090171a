"""What params.yaml says of misleading maps and of the audit must be among what is computed."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from stages.validate import problems

ROOT = Path(__file__).parents[2]
PARAMS = yaml.safe_load((ROOT / "studies" / "shapes.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("section", "part", "key", "value", "possible"),
    [
        ("report", "plausible", "conciseness", "regional_gini", "gini, effective_fraction"),  # it has no good direction
        ("report", "plausible", "stability", "ginni", "gini, effective_fraction"),
        ("report", "plausible", "relevance", "randomisation", "gini, effective_fraction"),  # known, not scored
        ("report", "plausible", "control", "gradient", "random, blurred_random, sobel"),
        ("report", "recommend", "metric", "regional_gini", "gini, effective_fraction"),
        ("score", "audit", "attribution", "random", "gradient, gradient_x_input"),
        ("score", "audit", "attribution", "gradient@x", "gradient, gradient_x_input"),
    ],
)
def test_a_name_that_cannot_be_used_is_one_problem(section, part, key, value, possible) -> None:
    changed = deepcopy(PARAMS)
    changed[section][part][key] = value
    [line] = problems(changed)
    assert line.startswith(f"params.yaml: {section}.{part}.{key}: found {value!r}, possible are {possible}")


def test_the_default_study_has_no_problem() -> None:
    assert problems(PARAMS) == []


@pytest.mark.parametrize(
    "wrong", [{"blur": [0.0]}, {"scale": [1, 1.0]}, {"temperature": [-2]}, {"epsilon": -1}, {"sigma": 1}]
)
def test_wrong_grids_are_refused(wrong) -> None:
    changed = deepcopy(PARAMS)
    changed["score"]["audit"] |= wrong
    [line] = problems(changed)
    assert f"score.audit.{next(iter(wrong))}" in line
