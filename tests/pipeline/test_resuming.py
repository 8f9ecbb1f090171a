"""A training that is killed, left behind, or spread over processes: real processes, real signals."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from epsilens.artifacts import sha256
from tests.pipeline.conftest import Factory, Project, kill, running, started, until

LONG = {"train": {"epochs": 30}, "sweep": {"epsilons": [4]}}  # a minute at most; killed long before
TRAIN = ("python", "-m", "stages.train", "--epsilon", "4", "--seed", "0")
CELL = Path("models/eps-4/seed-0")


@pytest.fixture(scope="session")
def undisturbed(fresh: Factory, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The toy study with a long training, after that training."""
    project = fresh(tmp_path_factory.mktemp("undisturbed"))
    project.params(LONG)
    project.run("dvc", "repro", "prepare", "train")
    return project


@pytest.fixture
def prepared(fresh: Factory, tmp_path: Path) -> Project:
    """The same study before it."""
    project = fresh(tmp_path / "study")
    project.params(LONG)
    project.run("dvc", "repro", "prepare")
    return project


def checkpoints(project: Project) -> list[Path]:
    return sorted((project.folder / ".checkpoints").glob("train-4-0-*/epoch-*.pt"))


def steps(checkpoint: Path) -> int:
    """All steps taken; the toy study takes five an epoch."""
    _, epoch, _, step, _ = checkpoint.name.split("-")
    return 5 * int(epoch) + int(step)


def results(project: Project) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted((project.folder / CELL).iterdir())}


@pytest.mark.parametrize("checkpoints_before", [1, 40])
def test_a_killed_training_continues_to_the_same_bytes(
    prepared: Project, undisturbed: Project, checkpoints_before: int
) -> None:
    with started(prepared, *TRAIN) as process:
        until(lambda: checkpoints(prepared) and steps(checkpoints(prepared)[-1]) >= checkpoints_before)
        kill(process.pid)
    assert not (prepared.folder / CELL).exists()
    output = prepared.run(*TRAIN)
    assert "continuing after epoch" in output
    assert results(prepared) == results(undisturbed)
    assert checkpoints(prepared) == []


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(prepared: Project, undisturbed: Project) -> None:
    with started(prepared, *TRAIN) as process:
        until(lambda: len(checkpoints(prepared)) == 2)
        kill(process.pid)
    newest = checkpoints(prepared)[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    output = prepared.run(*TRAIN)
    assert f"{newest.name} is damaged; set aside" in output
    assert results(prepared) == results(undisturbed)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_training_left_behind_by_a_killed_dvc_ends_and_is_continued(prepared: Project, undisturbed: Project) -> None:
    with started(prepared, "dvc", "repro", "train") as dvc:
        until(lambda: checkpoints(prepared))
        (left,) = running(prepared, "train")
        os.kill(left, signal.SIGSTOP)  # it cannot notice yet: the worst case for the second
        kill(dvc.pid)
        dvc.wait()
        with started(prepared, "dvc", "repro", "train") as second:
            output = second.communicate()[0]
        assert second.returncode != 0
        assert "another process trains epsilon 4, seed 0" in output
        os.kill(left, signal.SIGCONT)
        until(lambda: not running(prepared, "train"), 10)
    output = prepared.run("dvc", "repro", "train")
    assert "continuing after epoch" in output
    assert results(prepared) == results(undisturbed)


def test_two_processes_under_torchrun_write_one_result(prepared: Project, undisturbed: Project) -> None:
    launcher = "torchrun --standalone --nproc-per-node=2"
    output = prepared.run("dvc", "repro", "train", LAUNCH=launcher, EPSILENS_CHECKPOINT_SECONDS="0")
    assert output.count("epoch 30/30") == 1  # the first process speaks
    one, two = (json.loads((p.folder / CELL / "history.json").read_text()) for p in (undisturbed, prepared))
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-3)  # later epochs drift apart by rounding
    assert len(two) == len(one)
    assert prepared.run("dvc", "status", "train").strip().endswith("up to date.")  # the launcher is not tracked


def test_a_batch_that_processes_cannot_share_is_a_clear_error(prepared: Project) -> None:
    prepared.params({"train": {"batch_size": 15}})
    output = prepared.run("torchrun", "--standalone", "--nproc-per-node=2", *TRAIN[1:], status=1)
    assert "train.batch_size: found 15, expected a multiple of 2 processes" in output


def test_bad_recipes_are_reported_with_what_is_known(prepared: Project) -> None:
    prepared.params({"train": {"recipe": {"name": "trade"}, "schedule": {"options": {"warmup": 2}}}})
    output = prepared.run("python", "-m", "stages.validate", status=2)
    assert "train.recipe.name: found 'trade', known are pgd, n_fgsm, trades (did you mean 'trades'?)" in output
    prepared.params({"train": {"recipe": {"name": "n_fgsm"}}})
    output = prepared.run("python", "-m", "stages.validate", status=2)
    for expected in ("train.recipe.options.noise_factor: missing key", "train.recipe.options.steps: unknown key"):
        assert expected in output
    assert "Traceback" not in output
