"""Curves of the trainings that are at work now: best effort, in an experiment of their own, and nothing reads them.

A training appends one JSON line an epoch to `.checkpoints/<run key>/history.jsonl` (study, epsilon, seed, epoch, and
the epoch's numbers). One follower process carries the lines into MLflow, so that no training ever waits for a store.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from epsilens.tracking.store import CHECKPOINTS, LABELS, Store, epoch_points, open_store

if TYPE_CHECKING:
    from mlflow.entities import Run

HISTORY = "history.jsonl"
LOCK = CHECKPOINTS / "live.lock"
LIVE_KEY = "epsilens.live_key"
LINGER = 30.0  # seconds to wait for the next training when none is at work; it starts a follower of its own


@dataclass
class Followed:
    """One training: its run, and the epochs that the run has."""

    store: Store
    run: str
    epochs: set[int]


@dataclass
class Follower:
    """All trainings of one repository."""

    root: Path
    stores: dict[str, Store] = field(default_factory=dict)  # by study
    followed: dict[str, Followed] = field(default_factory=dict)  # by run key

    def histories(self) -> dict[str, Path]:
        """The history file of each training at work, by run key."""
        return {path.parent.name: path for path in sorted((self.root / CHECKPOINTS).glob(f"*/{HISTORY}"))}

    def poll(self) -> bool:
        """Carry over what is new and end the runs of trainings that have ended; says whether an epoch was new."""
        histories = self.histories()
        new = [self._advance(key, read_lines(path)) for key, path in histories.items()]
        for key in [key for key in self.followed if key not in histories]:
            followed = self.followed.pop(key)
            followed.store.finish(followed.run)
        return any(new)

    def close(self) -> None:
        """End the runs of trainings that have stopped without an end; a resumed training continues its run."""
        for followed in self.followed.values():
            followed.store.finish(followed.run, "KILLED")

    def _advance(self, key: str, lines: list[Mapping[str, Any]]) -> bool:
        if not lines:
            return False
        if key not in self.followed:
            self.followed[key] = self._join(key, lines[0])
        followed = self.followed[key]
        new = {line["epoch"]: line for line in lines if line["epoch"] not in followed.epochs}
        followed.store.log(followed.run, [point for line in new.values() for point in epoch_points(line)])
        followed.epochs |= new.keys()
        return bool(new)

    def _join(self, key: str, line: Mapping[str, Any]) -> Followed:
        store = self._store(str(line["study"]))
        known = store.runs(f"tags.`{LIVE_KEY}` = '{key}'")
        if known:
            store.resume(known[0].info.run_id)
            return Followed(store, known[0].info.run_id, store.steps(known[0]))
        params = {"epsilon": str(line["epsilon"]), "seed": str(line["seed"])}
        run = store.start(f"eps-{params['epsilon']}-seed-{params['seed']}", {LIVE_KEY: key, **params})
        store.log(run, params=params)
        return Followed(store, run, set())

    def _store(self, study: str) -> Store:
        if study not in self.stores:
            self.stores[study] = store = open_store(self.root, f"{study}-live")
            for run in store.runs("attributes.status = 'RUNNING'"):  # of a follower that was killed
                if _key(run) not in self.histories():
                    store.finish(run.info.run_id, "KILLED")
        return self.stores[study]


def follow(root: Path, idle_s: float, poll_s: float) -> None:
    """Follow all trainings of a repository until `idle_s` seconds bring no new epoch; look every `poll_s` seconds.

    Returns at once, without having imported MLflow, if the repository has a follower. Never raises: what goes wrong is
    one line on stderr and the end of the follower.
    """
    try:
        (root / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        with FileLock(root / LOCK, timeout=0):
            _follow(Follower(root), idle_s, poll_s)
    except (Timeout, KeyboardInterrupt):
        return
    except Exception as error:  # live curves are an extra: no failure of theirs may be more than a line
        print(f"live curves end here: {error}", file=sys.stderr)


def read_lines(path: Path) -> list[Mapping[str, Any]]:
    """The well-formed lines of a history; the last one may still be being written, and is left for the next look."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # ended between the listing and now
        return []
    lines = (_parse(line) for line in text.splitlines())
    return [line for line in lines if line is not None]


def _follow(follower: Follower, idle_s: float, poll_s: float) -> None:
    last = time.monotonic()
    while time.monotonic() - last < (idle_s if follower.histories() else min(idle_s, LINGER)):
        if follower.poll():
            last = time.monotonic()
        time.sleep(poll_s)
    follower.close()


def _parse(line: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(found, dict) and all(name in found for name in LABELS) and isinstance(found["epoch"], int)
    return found if whole else None


def _key(run: Run) -> str | None:
    return run.data.tags.get(LIVE_KEY)
