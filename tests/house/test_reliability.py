"""Every fault of docs/reliability.md is tried by tests that there are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import faults

TESTS = Path(__file__).resolve().parent.parent
FAULTS = range(1, 31)


def names(file: Path) -> set[str]:
    """Ids of the tests of a file: functions, and methods as Class::method."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("test", faults())
def test_what_the_page_names_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert (TESTS / file).is_file(), test
    assert name in names(TESTS / file), f"docs/reliability.md: {test}: no such test"


def test_every_fault_has_a_row() -> None:
    tried = {number for numbers in faults().values() for number in numbers}
    assert tried == set(FAULTS)
