"""`dvc repro` on the toy study: what runs again, and what comes out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.pipeline.conftest import Factory, Project

NETWORK_STAGES = ("train", "attack", "attribute", "score")


def of(*cells: str, stages: tuple[str, ...] = NETWORK_STAGES) -> set[str]:
    return {f"{stage}@{cell}" for stage in stages for cell in cells}


def test_everything_is_there_and_up_to_date(reproduced: Project) -> None:
    assert reproduced.run("dvc", "status").strip().endswith("up to date.")
    assert reproduced.repro() == set()
    summary = json.loads((reproduced.folder / "metrics/summary.json").read_text(encoding="utf-8"))
    assert set(summary) == {
        "clean",
        "pgd",
        "ensemble",
        "gini",
        "direction_sensitivity",
        "relevance_mass_corrected",
        "road_gap",
    }
    assert "<svg" in (reproduced.folder / "reports/index.html").read_text(encoding="utf-8")
    rows = pq.read_table(reproduced.folder / "reports/rows/scores.parquet")
    assert rows.num_rows == 2 * 8 * 2 * 4  # networks, images, methods, metrics
    assert rows.column_names[:4] == ["study", "epsilon", "seed", "image"]


def test_a_new_epsilon_runs_only_what_is_new_and_an_old_one_comes_from_cache(project: Project) -> None:
    project.params({"sweep": {"epsilons": [0, 2, 4]}})
    assert project.repro() == of("2-0") | {"report", "track"}
    project.params({"sweep": {"epsilons": [0, 4]}})
    assert project.repro() <= {"report", "track"}  # the state before: DVC may restore it from its cache
    assert not (project.folder / "results/scores/eps-2").exists()
    assert project.run("dvc", "status").strip().endswith("up to date.")


def test_a_scoring_parameter_reruns_scores_only(project: Project) -> None:
    project.params({"score": {"seed": 1}})
    assert project.repro() == of("0-0", "4-0", stages=("score",)) | {"report", "track"}


def test_a_label_of_the_report_reruns_the_report_only(project: Project) -> None:
    project.params({"study": {"description": "something else"}})
    assert project.repro() == {"report", "track"}


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("src/epsilens/metrics/conciseness.py", of("0-0", "4-0", stages=("score",))),
        ("src/epsilens/attributions/controls.py", of("0-0", "4-0", stages=("attribute", "score"))),
        ("src/epsilens/tracking/mirror.py", {"track"}),
    ],
)
def test_editing_a_room_reruns_the_stages_that_reach_it(project: Project, file: str, stages: set[str]) -> None:
    path = project.folder / file
    path.write_text(path.read_text(encoding="utf-8") + "\n# no change of meaning\n", encoding="utf-8")
    assert project.repro() == stages  # same results, so that nothing downstream runs


def test_two_runs_in_two_folders_write_the_same_bytes(reproduced: Project, fresh: Factory, tmp_path: Path) -> None:
    """The second one with another locale, which has ASCII only, in another time zone, from files of another time."""
    other = fresh(tmp_path / "elsewhere")
    for path in other.folder.rglob("*.*"):
        os.utime(path, (0, 0))
    foreign = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "TZ": "Pacific/Kiritimati"}
    other.run("dvc", "repro", **foreign)
    first, second = (
        yaml.safe_load((p.folder / "dvc.lock").read_text(encoding="utf-8"))["stages"] for p in (reproduced, other)
    )
    assert first == second


def test_an_experiment_with_another_grid_runs_only_what_is_new(project: Project) -> None:
    output = project.run("dvc", "exp", "run", "-S", "sweep.epsilons=[0,2]", "--name", "smaller")
    ran = {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}
    assert ran == of("2-0") | {"report", "track"}
    table = project.run("dvc", "exp", "show", "--only-changed", "--csv", "--drop", ".*/|State|Executor|rev|Created|typ")
    assert "smaller" in table


def test_all_bad_parameters_are_reported_together_before_any_stage(project: Project) -> None:
    project.params(
        {
            "train": {"epochs": 0, "epoch": 3},
            "model": {"name": "small_resnat"},
            "score": {"metrics": {"ginni": {}}},
            "sweep": {"epsilons": [0, 300]},
            "extra": {},
        }
    )
    output = project.run("python", "-m", "stages.validate", status=2)
    for expected in (
        "train.epochs: found 0",
        "train.epoch: unknown key",
        "did you mean 'small_resnet'",
        "did you mean 'gini'",
        "sweep.epsilons: found budget 300",
        "extra: unknown section",
    ):
        assert expected in output, output
    assert "Traceback" not in output


def test_an_attribution_parameter_leaves_training_and_attacks_alone(project: Project) -> None:
    project.params({"attribute": {"seed": 5}})
    assert project.repro() == of("0-0", "4-0", stages=("attribute", "score")) | {"report", "track"}


def test_a_stage_says_what_is_missing(fresh: Factory, tmp_path: Path) -> None:
    project = fresh(tmp_path / "new")
    output = project.run("python", "-m", "stages.train", "--epsilon", "4", "--seed", "0", status=3)
    assert "error: data/prepared: is missing; `dvc repro` makes it" in output
    assert "Traceback" not in output
