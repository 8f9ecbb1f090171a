"""Mirror the state of the pipeline into MLflow, once. `python -m stages.track` at any time adds it if it is missing."""

from __future__ import annotations

import os
from pathlib import Path

from epsilens import config
from epsilens.reporting.config import StudyConfig, SweepConfig
from epsilens.tracking.mirror import mirror
from epsilens.tracking.state import PipelineState, read_state
from epsilens.tracking.store import StoreError, home
from stages.common import run


def main() -> None:
    params = config.read()
    grid = config.section(params, "sweep", SweepConfig).grid()
    state = read_state(Path(), config.section(params, "study", StudyConfig).name, grid)
    try:
        done = mirror(home(), state)
    except StoreError as error:
        _missing(state, error)
        return
    print(f"MLflow: {done.name} {'written' if done.written else 'is already there'} ({done.where}); `make ui` shows it")


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
