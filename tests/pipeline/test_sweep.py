"""scripts/sweep.py: a study computed without dvc, mlflow and git, and brought home."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.pipeline.conftest import Factory, Project

# Stands for a stage: makes its output, or fails, or takes its time.
STUB = """
import os, pathlib, sys, time
output, epsilon = pathlib.Path(sys.argv[1]), sys.argv[2]
if pathlib.Path("slow").exists():
    pathlib.Path(f"pid-{epsilon}").write_text(str(os.getpid()))
    time.sleep(60)
if pathlib.Path("broken").exists() and epsilon == "4":
    sys.exit("made to fail")
output.mkdir(parents=True)
"""


def sweep(project: Project, blocked: Path, *arguments: str, status: int = 0) -> str:
    """Run the script where dvc and mlflow cannot be imported and there is no git."""
    blocked.mkdir(exist_ok=True)
    text = "import sys; sys.modules['dvc'] = sys.modules['mlflow'] = None\n"
    (blocked / "sitecustomize.py").write_text(text, encoding="utf-8")
    env = (f"PYTHONPATH={blocked}", f"PATH={Path(sys.executable).parent}")
    return project.run("/usr/bin/env", *env, sys.executable, "scripts/sweep.py", *arguments, status=status)


def test_a_study_computed_without_dvc_is_committed_at_home(fresh: Factory, tmp_path: Path) -> None:
    away, home, archive = fresh(tmp_path / "away"), fresh(tmp_path / "home"), str(tmp_path / "results.tar.gz")
    sweep(away, tmp_path / "blocked", "--until", "train", "--workers", "2")
    weights = away.folder / "models/eps-4/seed-0/model.safetensors"
    trained = weights.stat().st_mtime_ns
    output = sweep(away, tmp_path / "blocked", "--workers", "2", "--pack", archive)
    assert "train-4-0: has ended before" in output
    assert weights.stat().st_mtime_ns == trained

    assert home.repro("prepare") == {"prepare"}
    home.params({"score": {"seed": 1}})
    assert "params.yaml: score: is not the one" in home.run("python", "scripts/sweep.py", "--unpack", archive, status=3)
    assert not (home.folder / "models").exists()
    home.params({"score": {"seed": 0}})
    output = home.run("python", "scripts/sweep.py", "--unpack", archive)
    commit = "dvc commit -f train attack attribute score report"
    assert f"{commit} && dvc repro" in output
    home.run(*commit.split())
    assert home.repro() == {"track"}
    assert home.run("dvc", "status").strip().endswith("up to date.")
    assert home.repro() == set()


@pytest.fixture
def stubbed(fresh: Factory, tmp_path: Path) -> Project:
    """A project whose stages take no time: `train` and `score` of each network, and `report`."""
    project = fresh(tmp_path / "stubbed")
    (project.folder / "stub.py").write_text(STUB, encoding="utf-8")
    stages = {}
    for name, cell in (
        ("train", "/eps-${item.epsilon}-${item.seed}"),
        ("score", "/eps-${item.epsilon}"),
        ("report", ""),
    ):
        command = f"python stub.py out/{name}{cell} " + ("${item.epsilon}" if cell else "-")
        stages[name] = {"cmd": command, "deps": ["stages/common.py"], "params": [name], "outs": [f"out/{name}{cell}"]}
        stages[name] |= {"matrix": {}} if cell else {}
    (project.folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False), encoding="utf-8")
    return project


def test_a_failing_network_stops_no_other_and_is_tried_again(stubbed: Project, tmp_path: Path) -> None:
    (stubbed.folder / "broken").touch()
    output = sweep(stubbed, tmp_path / "blocked", status=1)
    assert "made to fail" in output
    assert "not done: train-4-0, score-4-0, report" in output
    assert (stubbed.folder / "out/score/eps-0").exists()
    (stubbed.folder / "broken").unlink()
    output = sweep(stubbed, tmp_path / "blocked")
    assert output.count("has ended before") == 2
    assert (stubbed.folder / "out/report").exists()


def test_what_has_changed_runs_again_and_what_was_made_from_it(stubbed: Project, tmp_path: Path) -> None:
    sweep(stubbed, tmp_path / "blocked", "--workers", "2")
    (stubbed.folder / "out/train/eps-4-0").rmdir()
    stubbed.params({"sweep": {"epsilons": [0, 2, 4]}})
    output = sweep(stubbed, tmp_path / "blocked", "--until", "score")
    ended = {line.split()[3].strip(":") for line in output.splitlines() if "has ended before" in line}
    assert ended == {"train-0-0", "score-0-0"}
    stubbed.params({"score": {"seed": 1}})
    output = sweep(stubbed, tmp_path / "blocked", "--only", "2-0")
    assert "train-2-0: has ended before" in output
    assert "score-2-0: 0 s" in output
    assert "report" not in output


def heed_interrupts() -> None:
    """Tests that a shell runs in the background inherit an interrupt that is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_ends_the_children(stubbed: Project) -> None:
    (stubbed.folder / "slow").touch()
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "scripts/sweep.py", "--workers", "2"]
    with subprocess.Popen(
        command, cwd=stubbed.folder, env=env, stdout=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    ) as running:
        started, limit = [stubbed.folder / "pid-0", stubbed.folder / "pid-4"], time.monotonic() + 60
        while not all(path.exists() and path.read_text() for path in started) and time.monotonic() < limit:
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        output = running.communicate(timeout=60)[0]
    assert running.returncode == 130
    assert "goes on from here" in output
    for path in started:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


def test_two_networks_at_a_time_end_in_the_same_bytes(root: Path, reproduced: Project, project: Project) -> None:
    """`make parallel`, after one network's outputs and a score have gone."""
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(root / name, project.folder / name)
    for output in ("models", "results", "reports", ".dvc/cache"):
        shutil.rmtree(project.folder / output)
    output = project.run("make", "-o", "setup", "parallel", "WORKERS=2")
    assert output.index("train-0-0: ") < output.index("Running stage 'report'")
    assert "Running stage 'train" not in output
    assert project.run("dvc", "status").strip().endswith("up to date.")
    first, second = (yaml.safe_load((p.folder / "dvc.lock").read_bytes())["stages"] for p in (reproduced, project))
    assert first == second
    assert "sweep" not in project.run("make", "-o", "setup", "parallel")  # nothing is left for it
    project.params({"score": {"seed": 3}})
    output = project.run("make", "-o", "setup", "parallel")
    assert "score-4-0: " in output
    assert "train-" not in output
