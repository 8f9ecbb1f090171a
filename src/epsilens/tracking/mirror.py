"""Mirror a state of the pipeline into MLflow, once: a run for the study and under it one for each network.

A mirror instead of logging from the stages, because a stage whose results come from DVC's cache does not run: its run
would be missing, and after `dvc repro --force` it would be there twice.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from epsilens import __version__
from epsilens.artifacts import GALLERY, HISTORY, MANIFEST, MODELS, cell, read_json, sha256
from epsilens.progress import Done, untold
from epsilens.tracking.datasets import dataset_inputs
from epsilens.tracking.models import DVC_HASH, Loader, add_bytes, kept_networks, register
from epsilens.tracking.notes import SHEET, artifacts_page, network_note, study_note
from epsilens.tracking.numbers import curves, history, results, summary
from epsilens.tracking.sheet import contact_sheet
from epsilens.tracking.state import CARD, STUDY_FILES, WEIGHTS, Grid, PipelineState, flat
from epsilens.tracking.store import EXTERNAL, Store, alone, open_store

KEY = "epsilens.key"
PATIENCE = 600.0  # seconds to wait for another mirror of this repository
SOURCE = {"mlflow.source.type": "PROJECT", "mlflow.source.name": "dvc repro"}  # the column Source
PACKAGES = ("torch", "captum", "dvc", "mlflow")


@dataclass(frozen=True)
class Mirrored:
    """What a call of `mirror` did."""

    run: str  # id of the study's run
    name: str
    where: str  # URI of the store
    written: bool  # False: this state was there already


@dataclass(frozen=True)
class Models:
    """Which networks go into MLflow with their weights, and which of them is registered."""

    load: Loader
    choice: str  # of CHOICES
    recommended: float | None  # the epsilon whose network of the first seed is registered; None: no network

    def kept(self, grid: Grid) -> Grid:
        """The networks whose weights go into MLflow."""
        return kept_networks(self.choice, grid, self.recommended)


def mirror(root: Path, state: PipelineState, models: Models, done: Done = untold) -> Mirrored:
    """Write `state` into the store of the repository `root`, unless it is there; idempotent, keyed by `state.key`.

    What an interrupted call has left of the same state is deleted first. The study's run ends last: FINISHED means
    whole. `done` is told of networks. Raises StoreError (one line) if the store fails, DataError if a result cannot be read.
    """
    with alone(root, "mirror", PATIENCE):
        store = open_store(root, state.study)
        same = store.runs(f"tags.`{KEY}` = '{state.key}'")
        for run in same:
            if run.info.status == "FINISHED":
                return Mirrored(run.info.run_id, run.info.run_name or "", store.where, written=False)
        for run in same:
            store.remove(run.info.run_id)
        return _write(store, state, models, done)


def _write(store: Store, state: PipelineState, models: Models, done: Done) -> Mirrored:
    name = os.environ.get("DVC_EXP_NAME") or f"{state.study}-{state.key[:8]}"
    manifest = read_json(state.folder / MANIFEST)
    tags = _study_tags(state.folder) | {KEY: state.key, "data.sha256": sha256(state.folder / MANIFEST)}
    study = store.start(name, tags | state.stage_tags())
    store.describe(str(state.params["study"]["description"]))
    store.describe(study_note(state, artifacts_page(store.experiment, study)), study)
    data = dataset_inputs(manifest)
    store.inputs(study, data)
    written = {}
    for network in state.grid:
        written[network] = _write_network(store, state, study, network, models)
        done(1)
    for run, _ in written.values():
        store.inputs(run, data)
        store.finish(run)
    store.log(study, [(metric, value, 0) for metric, value in summary(state).items()], flat(state.params))
    store.log(study, curves(state))
    store.files(study, state.folder, STUDY_FILES)
    _register(store, state, models, {network: model for network, (_, model) in written.items()})
    store.finish(study)
    return Mirrored(study, name, store.where, written=True)


def _write_network(
    store: Store, state: PipelineState, study: str, network: tuple[str, int], models: Models
) -> tuple[str, str]:
    """The ids of the network's run and of its model."""
    epsilon, seed = network
    folder = cell(MODELS, epsilon, seed)
    name = f"eps-{epsilon}-seed-{seed}"
    params = {"epsilon": epsilon, "seed": str(seed)}
    origin = _origin(state, network)
    stages = state.stage_tags(f"{epsilon}-{seed}")
    run = store.start(name, {"mlflow.parentRunId": study, **SOURCE, **params, **origin, **stages})
    store.describe(network_note(state, epsilon, seed, artifacts_page(store.experiment, run)), run)
    with_bytes = network in models.kept(state.grid)
    # The name of a model takes no dots.
    model = store.model(run, name.replace(".", "_"), origin | ({} if with_bytes else EXTERNAL), params)
    if with_bytes:
        add_bytes(store, model, models.load(epsilon, seed), read_json(state.folder / folder / CARD))
    store.ready(model)
    store.log(run, history(state, epsilon, seed), params)
    store.log(run, [(metric, value, 0) for metric, value in results(state, epsilon, seed).items()], model=model)
    store.files(run, state.folder, [folder / file for file in (CARD, HISTORY)], below=len(folder.parts))
    store.picture(run, SHEET, contact_sheet(state.folder / cell(GALLERY, epsilon, seed)))
    return run, model


def _register(store: Store, state: PipelineState, models: Models, written: Mapping[tuple[str, int], str]) -> None:
    """Register the recommended network of the first seed; if its weights are not in MLflow, none is registered."""
    fitting = [network for network in models.kept(state.grid) if float(network[0]) == models.recommended]
    for epsilon, seed in fitting[:1]:
        facts = {"epsilon": epsilon, "seed": str(seed), KEY: state.key, **_origin(state, (epsilon, seed))}
        register(store, state.study, written[epsilon, seed], facts)


def _origin(state: PipelineState, network: tuple[str, int]) -> dict[str, str]:
    weights = cell(MODELS, *network) / WEIGHTS
    return {DVC_HASH: state.recorded(weights), "dvc.path": weights.as_posix()}


def _study_tags(folder: Path) -> dict[str, str]:
    tags = {f"version.{package}": _version(package) for package in PACKAGES}
    tags |= {"version.epsilens": __version__, "version.python": platform.python_version()}
    optional = {"mlflow.source.git.commit": _commit(folder), "dvc.experiment": os.environ.get("DVC_EXP_NAME")}
    return tags | SOURCE | {name: value for name, value in optional.items() if value}


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
