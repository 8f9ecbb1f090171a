"""Mirror the state of the pipeline into MLflow, once. `python -m stages.track` at any time adds it if it is missing."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from epsilens import artifacts, config
from epsilens.errors import ConfigError
from epsilens.models.checkpoints import load
from epsilens.progress import progress
from epsilens.reporting.config import StudyConfig, SweepConfig
from epsilens.tracking.mirror import Models, mirror
from epsilens.tracking.models import CHOICES
from epsilens.tracking.state import PipelineState, read_state
from epsilens.tracking.store import StoreError, home
from stages.common import run


def kept_models() -> str:
    """EPSILENS_MLFLOW_MODELS: whose weights go into MLflow; what is mirrored is no parameter of the study."""
    given = os.environ.get("EPSILENS_MLFLOW_MODELS") or CHOICES[0]
    if given not in CHOICES:
        raise ConfigError(f"EPSILENS_MLFLOW_MODELS: found {given!r}, allowed are {', '.join(CHOICES)}")
    return given


def network(epsilon: str, seed: int) -> nn.Module:
    """The trained network of a cell, on the CPU."""
    return load(artifacts.cell(artifacts.MODELS, epsilon, seed), "cpu")


def recommended() -> float | None:
    """The epsilon that the study recommends, where it recommends one (docs/claims.md)."""
    return next((row["epsilon"] for row in artifacts.read_json(artifacts.CHOICE) if row["recommended"]), None)


def main() -> None:
    params = config.read()
    grid = config.section(params, "sweep", SweepConfig).grid()
    state = read_state(Path(), config.section(params, "study", StudyConfig).name, grid)
    try:
        with progress("into MLflow", len(grid), "networks") as done:
            mirrored = mirror(home(), state, Models(network, kept_models(), recommended()), done)
    except StoreError as error:
        _missing(state, error)
        return
    told = "written" if mirrored.written else "is already there"
    print(f"MLflow: {mirrored.name} {told} ({mirrored.where}); `make ui` shows it")


def _missing(state: PipelineState, error: StoreError) -> None:
    """Everything else is done and recorded. A failed stage is what makes DVC try again, so this one fails.

    Not in `dvc exp run`: it throws an experiment away whose last stage fails.
    """
    lost = f"{error}\nOnly the MLflow run of this state ({state.key[:8]}) is missing; all results are there."
    experiment = os.environ.get("DVC_EXP_NAME")
    if experiment is None:
        raise StoreError(f"{lost} `dvc repro track` adds it once the store can be written.")
    print(f"{lost} `dvc exp apply {experiment} && python -m stages.track` adds it once the store can be written.")


if __name__ == "__main__":
    run(main)
