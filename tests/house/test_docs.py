"""The pages of docs/ say something of every metric, in words and in a picture."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from epsilens.metrics import METRICS

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"!\[[^\]]+\]\((metrics/\w+\.png)\)", PAGE)
DRAWN = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs" / "metrics").glob("*"))
REDRAW = "run `python scripts/metric_pictures.py` (cases: scripts/metric_cases.py)"


def scores(picture: str) -> dict[str, list[float]]:
    """Of the better and of the worse map, by metric, as the script wrote them into the picture."""
    with Image.open(ROOT / "docs" / picture) as opened:
        return json.loads(opened.info["scores"])


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_row(name: str) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1]]
    assert len(rows) == 1, f"docs/metrics.md: {name}: found {len(rows)} rows, expected one"
    better = METRICS[name].facts.better or "–"
    assert rows[0].replace(r"\|", "").split("|")[4].strip() == better


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_in_a_picture(name: str) -> None:
    assert any(name in scores(picture) for picture in SHOWN), f"{name} is in no picture of docs/metrics.md: {REDRAW}"


def test_the_page_shows_the_pictures_that_there_are_once_each() -> None:
    assert sorted(SHOWN) == DRAWN


@pytest.mark.parametrize("picture", DRAWN)
def test_the_better_map_scores_better(picture: str) -> None:
    found = scores(picture)
    assert not found.keys() - METRICS.keys(), REDRAW
    for name, (one, other) in found.items():
        facts = METRICS[name].facts
        assert facts.low <= min(one, other) <= max(one, other) <= facts.high
        if name == next(iter(found)):
            assert one > other if facts.better != "lower" else one < other, name
        elif facts.better:
            assert one >= other if facts.better == "higher" else one <= other, name


def test_pictures_are_small() -> None:
    assert sum((ROOT / "docs" / picture).stat().st_size for picture in DRAWN) < 1.5e6
