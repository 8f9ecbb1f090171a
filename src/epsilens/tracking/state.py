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
    GALLERY,
    GALLERY_INDEX,
    HISTORY,
    MANIFEST,
    MODELS,
    REPORTS,
    ROWS,
    SCORES,
    SUMMARY,
    TABLES,
    cell,
)
from epsilens.errors import DataError

PIPELINE, LOCK = Path("dvc.yaml"), Path("dvc.lock")
MIRROR_STAGE = "track"
STUDY_FILES = (config.PARAMS, PIPELINE, LOCK, MANIFEST, SUMMARY, *TABLES, REPORTS)
WEIGHTS, CARD = "model.safetensors", "card.json"
NETWORK_FILES = (WEIGHTS, CARD, HISTORY)

STAGE_DIGEST = 12  # hex digits: enough to tell apart, short enough for a column

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
        return _digest(self.entries)

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

    def stage_tags(self, at: str | None = None) -> dict[str, str]:
        """`stage.<name>`: a digest of what dvc.lock records of the stage: of all its cells, or of the cell `at` ("8-0").

        Two runs with the same tag had the same command, dependencies, parameters and outputs there.
        """
        found: dict[str, dict[str, Any]] = {}
        for name, entry in self.entries.items():
            stage, _, cell_name = name.partition("@")
            if at is None or cell_name == at:
                found.setdefault(f"stage.{stage}", {})[name] = entry
        return {tag: _digest(entries)[:STAGE_DIGEST] for tag, entries in found.items()}


def read_state(folder: Path, study: str, grid: Grid) -> PipelineState:
    """The state of the working copy `folder`; `grid` names its networks as (epsilon as in paths, seed).

    Raises DataError if the pipeline has not been run to its report, or if outputs are recorded but not there.
    """
    params = config.read(folder / config.PARAMS)
    entries = live_entries(_stages(folder / LOCK), _stages(folder / PIPELINE), grid)
    state = PipelineState(folder, study, params, grid, entries)
    for epsilon, seed in grid:
        state.recorded(cell(MODELS, epsilon, seed) / WEIGHTS)
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


def _digest(entries: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _stages(path: Path) -> Mapping[str, Any]:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise DataError(f"{path}: cannot be read: {error}. Run `dvc repro` first") from None


def _files(grid: Grid) -> Iterable[Path]:
    yield from STUDY_FILES
    for epsilon, seed in grid:
        yield from (cell(MODELS, epsilon, seed) / name for name in NETWORK_FILES)
        yield from (cell(root, epsilon, seed) / ROWS for root in (ATTACKS, SCORES))
        yield cell(GALLERY, epsilon, seed) / GALLERY_INDEX
