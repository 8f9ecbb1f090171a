"""What is recorded of how numbers were obtained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from epsilens import artifacts
from stages import common, provenance

PARAMS = {"study": {"name": "mine", "description": "d"}, "sweep": {"epsilons": [0, 8], "seeds": [0]}}


def entry(*code: str) -> dict[str, Any]:
    """A stage of dvc.lock."""
    deps = [{"path": path, "md5": f"{path} as it is"} for path in code]
    return {"deps": [*deps, {"path": "data/prepared", "md5": "d"}]}


def lock(**stages: Any) -> None:
    Path("dvc.lock").write_text(json.dumps({"stages": stages}), encoding="utf-8")


def took(*lines: tuple[str, str, float, int | None]) -> None:
    common.DURATIONS.parent.mkdir(exist_ok=True)
    rows = [{"study": s, "stage": stage, "seconds": sec} | ({"threads": n} if n else {}) for s, stage, sec, n in lines]
    common.DURATIONS.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


@pytest.fixture
def run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    artifacts.write_json(artifacts.PREPARED / "manifest.json", {"sources": {}, "splits": {}, "duplicates": {}})
    monkeypatch.setattr(provenance, "read_manifest", lambda folder: artifacts.read_json(folder / "manifest.json"))
    lock(**{"train@0-0": entry("src/a.py"), "train@8-0": entry("src/a.py"), "train@8-1": entry("src/b.py")})


def test_only_the_networks_of_the_sweep_count(run_here: None) -> None:
    took(
        ("mine", "train@0-0", 10.0, 1),
        ("mine", "train@8-0", 30.0, 1),
        ("mine", "train@8-1", 1000.0, 2),  # a seed that is not in the sweep
        ("other", "train@0-0", 1000.0, 2),
        ("mine", "report", 5.0, None),
    )
    found = provenance.provenance(PARAMS)
    assert found["seconds"] == {"train": 20.0, "report": 5.0}
    assert found["machine"]["threads"] == [1]
    assert found["command"] == "make study NAME=mine && OMP_NUM_THREADS=1 dvc repro"
    assert set(found["code"]) == {"train"}
    assert "+" not in found["code"]["train"]


def test_the_last_run_of_a_stage_says_its_threads(run_here: None) -> None:
    took(("mine", "train@0-0", 10.0, 2), ("mine", "train@0-0", 10.0, 1), ("mine", "train@8-0", 10.0, 4))
    found = provenance.provenance(PARAMS)
    assert found["machine"]["threads"] == [1, 4]
    took(("mine", "train@0-0", 10.0, 1))  # of the other network nothing is known
    assert provenance.provenance(PARAMS)["command"] == "make study NAME=mine && dvc repro"
    took(("mine", "train@0-0", 10.0, 2), ("mine", "train@0-0", 10.0, 1), ("mine", "train@8-0", 10.0, 4))
    found = provenance.provenance(PARAMS)
    assert found["command"] == "make study NAME=mine && dvc repro"  # no one number of threads gives all of it


def test_the_code_of_networks_is_told_apart_and_their_data_are_not() -> None:
    cells = {"0-0", "8-0"}
    one = {"train@0-0": entry("src/a.py", "stages/train.py"), "score@0-0": entry("src/m.py")}
    found = provenance.code(one, cells)
    assert set(found) == {"train", "score"}
    assert provenance.code({**one, "train@8-0": entry("src/b.py")}, cells)["train"].count("+") == 1
    moved = {"train@0-0": {"deps": [*one["train@0-0"]["deps"][:2], {"path": "data/prepared", "md5": "other"}]}}
    assert provenance.code(moved, cells)["train"] == found["train"]


def test_a_merged_study_has_means_over_networks_and_tells_what_differs(tmp_path: Path) -> None:
    about = {"command": "c", "machine": {"cores": 2}, "versions": {}, "data": {"sources": {"f": "s"}}}
    for name, seconds, digest in (("a", {"train": 10.0, "report": 2.0}, "x"), ("b", {"train": 40.0}, "y")):
        part = about | {"seconds": seconds, "code": {"train": digest, "score": "same"}}
        artifacts.write_json(tmp_path / name / "provenance.json", part)
    artifacts.write_json(tmp_path / "old" / "provenance.json", about | {"seconds": {}})
    found = provenance.merged("mine", {tmp_path / "a": 2, tmp_path / "b": 1, tmp_path / "old": 5})
    assert found["seconds"] == {"train": 20.0, "report": 2.0}
    assert found["data"] == about["data"]
    assert found["command"] == "python -m stages.merge mine"
    assert found["parts"]["b"]["code"]["train"] == "y"
    assert provenance.other_code(found) == ["train: code differs between a and b"]
