"""Studies that are wrong, studies of one of everything, and folders in which DVC cannot work."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.pipeline.conftest import Factory, Project

READ_ONLY = (
    'mount --bind . . && mount -o remount,bind,ro . && cd "$PWD" && exec "$@"'  # in a mount namespace of its own
)


def test_dvc_alone_stops_at_its_first_stage_whatever_section_is_wrong(project: Project) -> None:
    good = (project.folder / "params.yaml").read_bytes()
    project.params({"data": {"seed": 1}, "report": {"metrics": ["gini", "ginni"]}, "attack": {"epsilon": 3}})
    output = project.run("dvc", "repro", status=255)
    assert [line for line in output.splitlines() if line.startswith("Running stage")] == ["Running stage 'prepare':"]
    assert "report.metrics: found 'ginni', computed are gini" in output
    assert "attack.epsilon: found 3, expected one of attack.epsilons.linf" in output
    assert "Traceback" not in output
    (project.folder / "params.yaml").write_bytes(good)
    assert project.repro() == set()  # nothing was lost


def test_one_image_one_seed_one_epsilon_works_and_says_what_cannot_be_concluded(fresh: Factory, tmp_path: Path) -> None:
    project = fresh(tmp_path / "one")
    one = {"images": 1, "ensemble": {"images": 1}}
    project.params({"sweep": {"epsilons": [8]}, "data": {"validation": 1, "evaluation": 1}, "attack": one})
    project.repro()
    page = (project.folder / "reports/index.html").read_text(encoding="utf-8")
    for told in (
        "1 training ε × 1 seed = 1 network",
        "One seed: the intervals hold for these very networks",
        "One training ε: the study has nothing to compare it with.",
        "No network was trained without an adversary: what that changes cannot be concluded.",
        "better than the median map at ε = 8",
    ):
        assert told in page
    assert "One image was scored" in page or "the headline set is empty" in page  # as the network is right or wrong
    assert json.loads((project.folder / "metrics/claims.json").read_text(encoding="utf-8")) == []


def test_a_folder_without_git_is_told_what_helps_and_it_does(project: Project) -> None:
    shutil.rmtree(project.folder / ".git")
    output = project.run("python", "-m", "stages.forecast", status=3)
    assert "is not a git repository; `git init` makes it one, `dvc config --local core.no_scm true` does" in output
    project.run("dvc", "repro", status=255)
    project.run("dvc", "config", "--local", "core.no_scm", "true")
    project.run("python", "-m", "stages.forecast")
    project.params({"report": {"seed": 1}})
    assert project.repro() == {"report", "track"}


def test_a_read_only_folder_is_named_with_what_helps(project: Project) -> None:
    inside = ("unshare", "--mount", "sh", "-c", READ_ONLY, "sh")
    if subprocess.run([*inside, "true"], cwd=project.folder, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a folder read-only")
    output = project.run(*inside, "python", "-m", "stages.forecast", status=3)
    assert "Read-only file system" in output
    assert "`cp -r . <elsewhere>`" in output
    for stage in ("prepare", "report"):
        output = project.run(*inside, "python", "-m", f"stages.{stage}", status=3)
        assert "Read-only file system; make the folder writable" in output
        assert "Traceback" not in output
    assert project.run("dvc", "status").strip().endswith("up to date.")  # and nothing was harmed
