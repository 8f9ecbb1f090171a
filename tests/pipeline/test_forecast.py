"""What is said before `dvc repro`, held against what DVC then finds to do."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.pipeline.conftest import Project

CELL_STAGES = ("train", "attack", "attribute", "score")


def forecast(project: Project, *arguments: str, status: int = 0, **more: str) -> list[str]:
    return project.run(sys.executable, "-m", "stages.forecast", *arguments, status=status, **more).splitlines()


def test_a_forecast_names_what_runs_and_what_comes_from_the_cache(project: Project, tmp_path: Path) -> None:
    project.params({"sweep": {"epsilons": [0, 2, 4]}})
    first, *rest = forecast(project)
    assert first.startswith("to run, at most: 6 stages, about ")
    assert first.endswith(" by what they took here")
    assert rest == [*(f"  {stage} 1 of 3 networks: 2-0" for stage in CELL_STAGES), "  report", "  track"]

    project.params({"sweep": {"epsilons": [0, 4]}, "score": {"seed": 1}})
    for name in ("data/prepared", "models", "results"):
        shutil.rmtree(project.folder / name)
    first, *rest = forecast(project)
    assert first.startswith("to run, at most: 4 stages, about ")
    assert rest == ["  score 2 of 2 networks: 0-0, 4-0", "  report", "  track", "from DVC's cache: 7 stages"]
    # `make parallel` is told of all networks' stages: whether they are restored or run, their outputs are not there.
    (names,) = forecast(project, "--names")
    assert names.split() == [f"{stage}@{cell}" for stage in CELL_STAGES for cell in ("0-0", "4-0")]
    assert project.repro() == {"score@0-0", "score@4-0", "report", "track"}

    (line,) = forecast(project, status=1, PATH=str(tmp_path))  # no dvc there
    assert line.startswith("error: dvc: cannot be run: ")
