"""The studies that come with the project are valid, and the committed params.yaml is the default one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_is_valid_and_bears_its_name(path: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(path.read_bytes())
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-B", "-m", "stages.validate"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"study {path.stem}," in done.stdout


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_says_what_to_expect(path: Path) -> None:
    head = path.read_text(encoding="utf-8").split("\nstudy:")[0]
    assert "Expect" in head
    assert "minutes" in head or "hour" in head


def test_committed_parameters_that_bear_the_default_name_are_the_default_study() -> None:
    committed = subprocess.run(
        ["git", "show", "HEAD:params.yaml"], cwd=ROOT, capture_output=True, check=False
    )  # the working copy may well hold another study
    if committed.returncode or b"name: shapes" not in committed.stdout:
        pytest.skip("no Git repository, or another study is committed")
    assert committed.stdout == (ROOT / "studies" / "shapes.yaml").read_bytes()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_of_shapes_mirrors_nothing(path: Path) -> None:
    """The orientation of the cue names the class: mirrored, it would name another."""
    study = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert study["data"]["name"] != "shapes" or not study["train"]["flip"]
