"""One state of the pipeline, as its files say it: the recorded hashes, the parameters, the numbers of each network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from epsilens import config
from epsilens.artifacts import (
    ATTACKS,
    GATE,
    MANIFEST,
    MODELS,
    REPORTS,
    SCORES,
    SUMMARY,
    TABLES,
    cell,
    read_json,
    read_rows,
)
from epsilens.errors import DataError
from epsilens.tracking.store import Point, epoch_points

PIPELINE, LOCK = Path("dvc.yaml"), Path("dvc.lock")
MIRROR_STAGE = "track"
STUDY_FILES = (config.PARAMS, PIPELINE, LOCK, MANIFEST, SUMMARY, *TABLES, REPORTS)
NETWORK_FILES = ("model.safetensors", "card.json", "history.json")

Grid = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class PipelineState:
    """What `dvc repro` has recorded in a working copy, for the networks of the grid."""

    folder: Path  # the working copy; a queued experiment has one of its own
    study: str
    params: Mapping[str, Any]
    grid: Grid
    entries: Mapping[str, Any]  # the live part of dvc.lock

    @cached_property
    def key(self) -> str:
        """SHA-256 of the live entries of dvc.lock: the same on every machine that has the same results."""
        return hashlib.sha256(json.dumps(self.entries, sort_keys=True).encode()).hexdigest()

    def recorded(self, path: Path) -> str:
        """The hash that DVC has recorded for an output, or for the folder output it lies in.

        Raises DataError if no stage has recorded it.
        """
        outs = {out["path"]: out for entry in self.entries.values() for out in entry.get("outs", ())}
        for known in (path, *path.parents):
            if known.as_posix() in outs:
                out = outs[known.as_posix()]
                return str(out[out.get("hash", "md5")])
        raise DataError(f"dvc.lock: has no entry for {path}. Run `dvc repro` first")


def read_state(folder: Path, study: str, grid: Grid) -> PipelineState:
    """The state of the working copy `folder`; `grid` names its networks as (epsilon as in paths, seed).

    Raises DataError if the pipeline has not been run to its report, or if outputs are recorded but not there.
    """
    params = config.read(folder / config.PARAMS)
    entries = live_entries(_stages(folder / LOCK), _stages(folder / PIPELINE), grid)
    state = PipelineState(folder, study, params, grid, entries)
    for epsilon, seed in grid:
        state.recorded(cell(MODELS, epsilon, seed) / NETWORK_FILES[0])
    missing = [str(path) for path in _files(grid) if not (folder / path).exists()]
    if missing:
        raise DataError(f"missing: {', '.join(missing)}. Run `dvc repro` (or `dvc pull`) first")
    return state


def live_entries(lock: Mapping[str, Any], pipeline: Mapping[str, Any], grid: Grid) -> dict[str, Any]:
    """The entries of dvc.lock that the pipeline and the grid still name, without the mirror's own.

    DVC keeps the entries of stages and of grid cells (`train@8-0`) that are no more.
    """
    cells = {"", *(f"{epsilon}-{seed}" for epsilon, seed in grid)}
    stages = set(pipeline) - {MIRROR_STAGE}
    parts = {name: name.partition("@") for name in lock}
    return {name: lock[name] for name, (stage, _, at) in sorted(parts.items()) if stage in stages and at in cells}


def flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names; an empty mapping stays, as a value. Lists are written as JSON."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{above}{name}.")
        else:
            leaves[f"{above}{name}"] = json.dumps(value) if isinstance(value, list | Mapping) else value
    return leaves


def summary(state: PipelineState) -> dict[str, float]:
    """The numbers of metrics/summary.json under dotted names."""
    return {name: float(value) for name, value in flat(read_json(state.folder / SUMMARY)).items() if _is_number(value)}


def history(state: PipelineState, epsilon: str, seed: int) -> list[Point]:
    """The training curves of one network."""
    epochs = read_json(state.folder / cell(MODELS, epsilon, seed) / "history.json")
    return [point for epoch in epochs for point in epoch_points(epoch)]


def results(state: PipelineState, epsilon: str, seed: int) -> dict[str, float]:
    """Accuracies by split, attack, norm and budget, mean scores and the gate of one network.

    NaN scores are left out of the means; `gate.sound` is 1 or 0, and missing where no gate was run.
    """
    attacks, scores = (state.folder / cell(root, epsilon, seed) / "rows.parquet" for root in (ATTACKS, SCORES))
    right = read_rows(attacks).to_pandas().groupby(["split", "attack", "norm", "budget"])["correct"].mean()
    found = {_accuracy_name(*names): float(mean) for names, mean in right.items()}
    means = read_rows(scores).to_pandas().groupby(["attribution", "metric"])["score"].mean()
    gate = attacks.with_name(GATE)
    if gate.exists():
        found["gate.sound"] = float(read_json(gate)["sound"])
    return found | {f"score.{attribution}.{metric}": float(mean) for (attribution, metric), mean in means.items()}


def _accuracy_name(split: str, attack: str, norm: str, budget: float) -> str:
    return f"accuracy.{split}.{attack}" + ("" if attack == "clean" else f".{norm}.{budget:g}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _stages(path: Path) -> Mapping[str, Any]:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise DataError(f"{path}: cannot be read: {error}. Run `dvc repro` first") from None


def _files(grid: Grid) -> Iterable[Path]:
    yield from STUDY_FILES
    for epsilon, seed in grid:
        yield from (cell(MODELS, epsilon, seed) / name for name in NETWORK_FILES)
        yield from (cell(root, epsilon, seed) / "rows.parquet" for root in (ATTACKS, SCORES))
