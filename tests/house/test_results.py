"""The tables of README.md and docs/results.md are those of the recorded studies."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from epsilens.errors import ConfigError, DataError
from stages import results

ROOT = Path(__file__).resolve().parent.parent.parent
ANEW = "run `python -m stages.results`"


@pytest.mark.parametrize("page", results.PAGES)
def test_a_page_says_what_was_recorded(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert results.filled(text, ROOT) == text, f"{page}: {ANEW}"
    assert len(results.BLOCK.findall(text)) == text.count("<!-- table:") == text.count("<!-- end -->")


def test_every_recorded_study_is_among_the_results() -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    listed = re.findall(r"<!-- table: studies ([\w ]+) -->", text)[0].split()
    recorded = sorted(path.parent.name for path in (ROOT / "metrics").glob("*/claims.json"))
    assert sorted(listed) == recorded


def record(root: Path, quality: str, claims: list[dict]) -> None:
    """A study `tiny` with two epsilons, as `make record` keeps it."""
    folder = root / "metrics" / "tiny"
    folder.mkdir(parents=True)
    report = {"attribution": "gradient", "metrics": ["gini"]}
    report["plausible"] = {"conciseness": "gini", "stability": "direction_sensitivity"}
    (folder / "params.yaml").write_text(yaml.safe_dump({"report": report}), encoding="utf-8")
    (folder / "provenance.json").write_text("{}", encoding="utf-8")
    (folder / "claims.json").write_text(json.dumps(claims), encoding="utf-8")
    (folder / "quality.csv").write_text(quality, encoding="utf-8")


QUALITY = """set,epsilon,attribution,metric,mean,low,high
common,0.0,gradient,gini,0.5,0.46,0.54
common,8.0,gradient,gini,0.7512,,
all,8.0,gradient,gini,0.1,0.1,0.1
common,8.0,sobel,gini,0.2,0.2,0.2
"""


def block(name: str) -> str:
    return f"Before.\n<!-- table: {name} tiny -->\n| old |\n<!-- end -->\nAfter.\n"


def test_a_table_is_written_between_its_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    record(tmp_path, QUALITY, [])
    expected = (
        "Before.\n<!-- table: quality tiny -->\n| training ε | Gini index |\n| --- | --- |\n"
        "| 0 | .50 (.46 to .54) |\n| 8 | .75 |\n<!-- end -->\nAfter.\n"
    )
    assert results.filled(block("quality"), tmp_path) == expected
    assert results.filled(expected, tmp_path) == expected


def claim(scope: str, verdict: str, interval: list, *, estimate: float = -0.3) -> dict:
    named = {"claim": "more concise", "metric": "gini", "attribution": "gradient", "headline": True}
    return named | {"scope": scope, "verdict": verdict, "interval": interval, "estimate": estimate}


def test_a_verdict_is_told_of_training_and_of_these_networks(tmp_path: Path) -> None:
    both = [claim("training", "undecided", [-0.75, 0.05]), claim("these networks", "contradicted", [-0.4, -0.2])]
    record(tmp_path, QUALITY, both)
    found = results.filled(block("claims"), tmp_path)
    assert "| more concise | −.30 (−.75 to .050): undecided / contradicted |" in found
    assert "| more concise | 0 / 1 / 0 |" in results.filled(block("methods"), tmp_path)


def test_with_one_seed_the_interval_is_that_of_these_networks(tmp_path: Path) -> None:
    both = [claim("training", "undecided", [None, None]), claim("these networks", "contradicted", [-0.4, -0.2])]
    record(tmp_path, QUALITY, both)
    found = results.filled(block("claims"), tmp_path)
    assert "−.30 (−.40 to −.20): undecided / contradicted" in found


def test_an_unknown_table_and_a_study_without_record_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tiny: holds no recorded study"):
        results.filled(block("quality"), tmp_path)
    record(tmp_path, QUALITY, [])
    with pytest.raises(ConfigError, match="found 'numbers', known are studies, accuracy"):
        results.filled(block("numbers"), tmp_path)


def test_a_table_of_no_rows_is_empty(tmp_path: Path) -> None:
    record(tmp_path, QUALITY, [])
    (tmp_path / "metrics" / "tiny" / "audit.csv").write_text("\n", encoding="utf-8")
    assert "| tiny | Gini index | – | – | – |" in results.filled(block("audit"), tmp_path)
