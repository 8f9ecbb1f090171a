"""What all tests share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# The suite draws the same examples every time; `make fuzz` draws others, and many.
settings.register_profile("suite", derandomize=True)
settings.register_profile("long", max_examples=20_000)
settings.load_profile("suite")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The working copy."""
    return ROOT


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)


def faults() -> dict[str, list[int]]:
    """The faults that a test tries, by its id below tests/, as the table of docs/reliability.md names them."""
    found: dict[str, list[int]] = {}
    for line in (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").splitlines():
        row = re.match(r"\| (\d+) \|.*\| ([^|]+) \|$", line)
        for test in re.findall(r"`([^`]+)`", row[2]) if row else ():
            found.setdefault(test, []).append(int(row[1]))
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The mark `faults`, with its numbers, from the page that says what is survived."""
    tried = faults()
    for item in items:
        numbers = tried.get(item.nodeid.removeprefix("tests/").partition("[")[0])
        if numbers:
            item.add_marker(pytest.mark.faults(*numbers))
