"""The tables of README.md, docs/results.md and docs/cue.md are those of the recorded studies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from epsilens.reporting.results import BLOCK, filled
from stages.results import LABELS, PAGES

ROOT = Path(__file__).resolve().parent.parent.parent
ANEW = "run `python -m stages.results`"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_what_was_recorded(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert filled(text, LABELS, ROOT) == text, f"{page}: {ANEW}"
    assert len(BLOCK.findall(text)) == text.count("<!-- table:") == text.count("<!-- end -->")


def test_every_recorded_study_is_among_the_results() -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    listed = re.findall(r"<!-- table: studies ([\w ]+) -->", text)[0].split()
    recorded = sorted(path.parent.name for path in (ROOT / "metrics").glob("*/claims.json"))
    assert sorted(listed) == recorded
