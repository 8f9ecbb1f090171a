"""Mirror a state of the pipeline into MLflow, once: a run for the study and under it one for each network.

A mirror instead of logging from the stages, because a stage whose results come from DVC's cache does not run: its run
would be missing, and after `dvc repro --force` it would be there twice.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from epsilens import __version__
from epsilens.artifacts import MANIFEST, MODELS, PREPARED, cell, read_json, sha256
from epsilens.tracking.state import NETWORK_FILES, STUDY_FILES, PipelineState, flat, history, results, summary
from epsilens.tracking.store import Store, alone, open_store

KEY = "epsilens.key"
PATIENCE = 600.0  # seconds to wait for another mirror of this repository
PACKAGES = ("torch", "captum", "dvc", "mlflow")


@dataclass(frozen=True)
class Mirrored:
    """What a call of `mirror` did."""

    run: str  # id of the study's run
    name: str
    where: str  # URI of the store
    written: bool  # False: this state was there already


def mirror(root: Path, state: PipelineState) -> Mirrored:
    """Write `state` into the store of the repository `root`, unless it is there; idempotent, keyed by `state.key`.

    What an interrupted call has left of the same state is deleted first. The study's run ends last: FINISHED means
    whole. Raises StoreError (one line) if the store fails, DataError if a result cannot be read.
    """
    with alone(root, "mirror", PATIENCE):
        store = open_store(root, state.study)
        same = store.runs(f"tags.`{KEY}` = '{state.key}'")
        for run in same:
            if run.info.status == "FINISHED":
                return Mirrored(run.info.run_id, run.info.run_name or "", store.where, written=False)
        for run in same:
            store.remove(run.info.run_id)
        return _write(store, state)


def _write(store: Store, state: PipelineState) -> Mirrored:
    name = os.environ.get("DVC_EXP_NAME") or f"{state.study}-{state.key[:8]}"
    manifest = sha256(state.folder / MANIFEST)
    data = str(read_json(state.folder / MANIFEST)["name"])
    study = store.start(name, _study_tags(state.folder) | {KEY: state.key, "data.sha256": manifest})
    store.dataset(study, data, manifest, PREPARED.as_posix())
    for epsilon, seed in state.grid:
        network = _write_network(store, state, study, epsilon, seed)
        store.dataset(network, data, manifest, PREPARED.as_posix())
        store.finish(network)
    store.log(study, [(name, value, 0) for name, value in summary(state).items()], flat(state.params))
    store.files(study, state.folder, STUDY_FILES)
    store.finish(study)
    return Mirrored(study, name, store.where, written=True)


def _write_network(store: Store, state: PipelineState, study: str, epsilon: str, seed: int) -> str:
    folder = cell(MODELS, epsilon, seed)
    name = f"eps-{epsilon}-seed-{seed}"
    params = {"epsilon": epsilon, "seed": str(seed)}
    weights = folder / NETWORK_FILES[0]
    origin = {"dvc.md5": state.recorded(weights), "dvc.path": weights.as_posix()}
    run = store.start(name, {"mlflow.parentRunId": study, **params, **origin})
    model = store.model(run, name.replace(".", "_"), origin, params)  # the name of a model takes no dots
    store.log(run, history(state, epsilon, seed), params)
    store.log(run, [(metric, value, 0) for metric, value in results(state, epsilon, seed).items()], model=model)
    store.files(run, state.folder, [folder / file for file in NETWORK_FILES], below=len(folder.parts))
    return run


def _study_tags(folder: Path) -> dict[str, str]:
    tags = {f"version.{package}": _version(package) for package in PACKAGES}
    tags |= {"version.epsilens": __version__, "version.python": platform.python_version()}
    optional = {"mlflow.source.git.commit": _commit(folder), "dvc.experiment": os.environ.get("DVC_EXP_NAME")}
    return tags | {name: value for name, value in optional.items() if value}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit(folder: Path) -> str | None:
    """The commit that the working copy is based on; None without git."""
    baseline = os.environ.get("DVC_EXP_BASELINE_REV")
    if baseline:
        return baseline
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True)
    except OSError:
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None
