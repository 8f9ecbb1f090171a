"""What befalls a pipeline: kills in every stage, an interrupt, a full or read-only disk, company, another clock."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.pipeline.conftest import Project, kill, running, started, until
from tests.pipeline.test_day import runs

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def lock(project: Project) -> bytes:
    return (project.folder / "dvc.lock").read_bytes()


def spoil(project: Project, *outputs: str) -> None:
    """Delete outputs, and what DVC's cache and the store have of them."""
    for output in outputs:
        shutil.rmtree(project.folder / output)
    shutil.rmtree(project.folder / ".dvc/cache", ignore_errors=True)
    for name in ("mlflow.db", "mlruns"):
        path = project.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_kill_in_any_later_stage_costs_that_stage(project: Project, tmp_path: Path) -> None:
    """kill -9 of dvc with all it has started, while attribute, score, report and track run, one after the other."""
    change = {"attribute": {"seed": 1}}
    shutil.copytree(project.folder, tmp_path / "other", symlinks=True)
    other = Project(tmp_path / "other")
    for each in (project, other):
        each.params(change)
    other.repro()
    ran: set[str] = set()
    for stage in ("attribute", "score", "report"):
        with started(project, "dvc", "repro") as dvc:
            until(lambda stage=stage: running(project, stage))
            kill(-dvc.pid)
            output = dvc.communicate()[0]
        ran |= {
            line.split("'")[1].partition("@")[0] for line in output.splitlines() if line.startswith("Running stage")
        }
    assert ran == {"attribute", "score", "report"}
    project.run("dvc", "repro")
    assert lock(project) == lock(other)
    summaries = [(each.folder / "metrics/summary.json").read_bytes() for each in (project, other)]
    assert summaries[0] == summaries[1]

    spoil(project)
    with started(project, sys.executable, "-m", "stages.track") as track:
        until(lambda: list((project.folder / "mlruns").glob("*/artifacts/*")))
        kill(track.pid)
    assert "written" in project.run(sys.executable, "-m", "stages.track")
    assert len(runs(project)) == 1  # what the killed mirror had begun is gone


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_an_interrupt_stops_within_seconds_and_says_how_to_go_on(project: Project) -> None:
    project.params({"train": {"epochs": 500}})
    with started(project, "dvc", "repro", "train@4-0") as dvc:
        until(lambda: list((project.folder / ".checkpoints").glob("train-4-0-*/epoch-*.pt")))
        os.killpg(dvc.pid, signal.SIGINT)
        output = dvc.communicate(timeout=20)[0]
    assert dvc.returncode != 0
    assert "stopped; `dvc repro` continues from here" in output
    assert not running(project, "train")
    assert "Traceback" not in output


def test_of_two_at_once_one_is_busy_and_nothing_is_lost(project: Project) -> None:
    before = lock(project)
    project.params({"score": {"seed": 7}})
    with started(project, "dvc", "repro") as first, started(project, "dvc", "repro") as second:
        outputs = [each.communicate()[0] for each in (first, second)]
    codes = [first.returncode, second.returncode]
    assert 0 in codes
    assert all(code == 0 or "busy" in output or "lock" in output for code, output in zip(codes, outputs, strict=True))
    project.run("dvc", "repro")
    assert project.run("dvc", "status").strip().endswith("up to date.")
    project.params({"score": {"seed": 0}})
    project.run("dvc", "repro")
    assert lock(project) == before


def test_four_processes_may_be_the_first_to_use_the_store(project: Project) -> None:
    spoil(project)
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda _: project.run(sys.executable, "-m", "stages.track"), range(4)))
    assert sum("written" in each for each in said) == 1
    assert sum("is already there" in each for each in said) == 3
    assert len(runs(project)) == 1


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own; skips where none may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, left: int) -> Path:
    """Fill a disk up to so many bytes."""
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free
    with ballast.open("wb") as file:
        file.write(b"\0" * max(0, free - left))
    return ballast


def test_a_full_disk_is_a_clear_error_and_afterwards_it_ends_in_the_same_bytes(
    reproduced: Project, tmp_path: Path
) -> None:
    """In training (a checkpoint, the weights), in scoring, in the report and in the mirror."""
    with small_disk(tmp_path / "disk", 200) as disk:
        shutil.copytree(reproduced.folder, disk / "study", symlinks=True)
        project = Project(disk / "study")
        spoil(project, "models", "results", "reports")
        stages = {
            "train": ["--epsilon", "4", "--seed", "0"],
            "attack": ["--epsilon", "4", "--seed", "0"],
            "attribute": ["--epsilon", "4", "--seed", "0"],
            "score": ["--epsilon", "4", "--seed", "0"],
        }
        for stage, arguments in stages.items():
            ballast = fill(disk, 8192)
            output = project.run("python", "-m", f"stages.{stage}", *arguments, status=3)
            assert "No space left on device; make room, then `dvc repro` goes on" in output, output
            assert "Traceback" not in output
            assert not list(project.folder.rglob("*.partial"))
            assert not list(project.folder.glob(f"*/{stage[:5]}*/eps-4/seed-0/checksums.json"))  # none taken for whole
            ballast.unlink()
            project.run("python", "-m", f"stages.{stage}", *arguments)
        ballast = fill(disk, 100_000)
        output = project.run("dvc", "repro", status=255)
        assert "No space left on device" in output
        ballast.unlink()
        project.run("dvc", "repro", "report")
        ballast = fill(disk, 100_000)
        output = project.run("python", "-m", "stages.track", status=3)
        assert "all results are there" in output
        assert "Traceback" not in output
        ballast.unlink()
        project.run("python", "-m", "stages.track")
        assert lock(project) == lock(reproduced)
        assert len(runs(project)) == 1


def test_threads_and_batches_change_no_score(project: Project) -> None:
    """To 1e-6: other orders of summation round otherwise."""
    rows = [project.folder / f"results/{name}/eps-4/seed-0/rows.parquet" for name in ("attacks", "scores")]
    before = [pq.read_table(path).to_pandas() for path in rows]
    project.params({"attack": {"batch_size": 3}, "attribute": {"batch_size": 5}, "score": {"batch_size": 3}})
    for stage in ("attack", "attribute", "score"):
        arguments = ["--epsilon", "4", "--seed", "0"]
        project.run("python", "-m", f"stages.{stage}", *arguments, OMP_NUM_THREADS="2")
    for old, path in zip(before, rows, strict=True):
        new = pq.read_table(path).to_pandas()
        numbers = old.select_dtypes("float").columns
        assert list(new.drop(columns=numbers)) == list(old.drop(columns=numbers))
        assert new.drop(columns=numbers).equals(old.drop(columns=numbers))
        assert ((new[numbers] - old[numbers]).abs().fillna(0) < 1e-6).all().all()
        assert new[numbers].isna().equals(old[numbers].isna())


CLOCK = """
import time
time.time = lambda: 86400.0
"""


def test_another_clock_time_zone_and_locale_change_no_byte(project: Project, tmp_path: Path) -> None:
    before = lock(project)
    spoil(project, "data", "models", "results", "reports")
    (tmp_path / "sitecustomize.py").write_text(CLOCK, encoding="utf-8")
    where = {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    more = {**where, "EPSILENS_TIME": str(tmp_path)}
    for stage in ("prepare", *(f"{name} --epsilon {e} --seed 0" for e in (0, 4) for name in ("train", "attack"))):
        project.run("python", "-m", *f"stages.{stage}".split(), PYTHONPATH=str(tmp_path), **more)
    for stage in (f"{name} --epsilon {e} --seed 0" for e in (0, 4) for name in ("attribute", "score")):
        project.run("python", "-m", *f"stages.{stage}".split(), PYTHONPATH=str(tmp_path), **more)
    project.run("python", "-m", "stages.report", PYTHONPATH=str(tmp_path), **more)
    project.run("dvc", "commit", "--quiet", "--force", "prepare", "train", "attack", "attribute", "score", "report")
    assert lock(project) == before
