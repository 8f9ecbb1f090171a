"""The soak of scripts/soak.py, two rounds of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.pipeline.conftest import Project


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_random_kills_end_in_the_same_bytes(root: Path) -> None:
    output = Project(root).run(sys.executable, "scripts/soak.py", "--rounds", "2", "--seed", "1")
    assert output.count("same bytes") == 2
    assert ", 0 other," in output
