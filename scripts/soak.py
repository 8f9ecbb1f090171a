"""A small study again and again, killed at random until it ends; each time the same bytes must come out.

    python scripts/soak.py --rounds 50 --seed 0

Each round begins without outputs, cache and store in a folder of its own. `dvc repro` is killed with kill -9 after a random
time (dvc alone, the stage alone, or everything), then it is said again; undisturbed after five kills. Prints a line a round;
the exit status is 1 if any round ended in other bytes, or in more than one run of MLflow.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("src", "stages", "dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvc/plots", ".dvcignore", ".gitignore")
KILLS = 5  # in one round
SOONEST, LATEST = 0.5, 12.0  # seconds until a kill
VICTIMS = ("dvc", "stage", "all")

# The default study, as small as it can be.
SMALL: dict[str, dict[str, Any]] = {
    "sweep": {"epsilons": [4], "seeds": [0]},
    "data": {"validation": 20, "evaluation": 8},
    "model": {"options": {"width": 4, "stem_stride": 2}},
    "train": {"epochs": 8, "batch_size": 20, "validation_steps": 2},
    "attack": {"images": 20, "epsilon": 4, "epsilons": {"linf": [4], "l2": [0.5]}, "steps": 2},
    "attribute": {"gallery": 2, "methods": {"gradient": {}, "random": {}}},
    "report": {"bootstrap": 100},
}
STATES = """SELECT COUNT(*) FROM runs WHERE lifecycle_stage = 'active'
    AND run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId')"""
HEADLINES = ("gini", "direction_sensitivity", "relevance_mass_corrected", "road_gap")


def params() -> dict[str, Any]:
    """params.yaml of the small study."""
    raw = yaml.safe_load((ROOT / "studies" / "shapes.yaml").read_text(encoding="utf-8"))
    for section, values in SMALL.items():
        raw[section] |= values
    raw["data"]["options"] |= {"train": 120, "test": 60, "size": 16}
    raw["attack"]["ensemble"] = {"images": 8, "attacks": [{"name": "square", "options": {"queries": 3}}]}
    raw["score"]["metrics"] = {name: raw["score"]["metrics"][name] for name in HEADLINES}
    raw["score"]["audit"] |= {"scale": [], "blur": [], "temperature": []}
    return raw


def fresh(folder: Path) -> Path:
    """The small study in a folder, committed, never run."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    (folder / "params.yaml").write_text(yaml.safe_dump(params(), sort_keys=False), encoding="utf-8")
    who = ["-c", "user.name=soak", "-c", "user.email=soak@example.org"]
    for command in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "-m", "study"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def environment() -> dict[str, str]:
    """Of the commands: this one's without settings of DVC, MLflow and the project."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "EPSILENS_"))}
    own = {"EPSILENS_LIVE": "0", "EPSILENS_MLFLOW_MODELS": "none", "EPSILENS_CHECKPOINT_SECONDS": "0"}
    quiet = {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    return kept | own | quiet | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"}


@dataclass(frozen=True)
class Outcome:
    """What a round ended in: the stages of dvc.lock, the tables in Git, and how many runs of a state MLflow has."""

    lock: Any
    tables: dict[str, bytes]
    states: int


def outcome(folder: Path) -> Outcome:
    """What lies in a folder after its last `dvc repro`."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    tables = {path.name: path.read_bytes() for path in sorted((folder / "metrics").iterdir())}
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        (states,) = store.execute(STATES).fetchone()
    return Outcome(lock, tables, states)


def repro(folder: Path) -> subprocess.Popen[bytes]:
    """`dvc repro` in a process group of its own."""
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        return subprocess.Popen(
            ["dvc", "repro"], cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True
        )


def stages(folder: Path) -> Iterator[int]:
    """Processes of stages that run in a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if any(word.startswith(b"stages.") for word in words) and (process / "cwd").resolve() == folder.resolve():
                yield int(process.name)


def kill(dvc: subprocess.Popen[bytes], folder: Path, victim: str) -> None:
    """kill -9 one of VICTIMS."""
    with suppress(ProcessLookupError):
        if victim == "all":
            os.killpg(dvc.pid, signal.SIGKILL)
        elif victim == "dvc":
            os.kill(dvc.pid, signal.SIGKILL)
        else:
            for pid in stages(folder):
                os.kill(pid, signal.SIGKILL)


def round_of(folder: Path, draw: random.Random) -> Counter[str]:
    """One study, killed until it ends or KILLS is reached; how often which victim was hit."""
    hit: Counter[str] = Counter()
    while True:
        dvc = repro(folder)
        left = draw.uniform(SOONEST, LATEST) if hit.total() < KILLS else None
        try:
            dvc.wait(left)
        except subprocess.TimeoutExpired:
            victim = draw.choice(VICTIMS)
            kill(dvc, folder, victim)
            hit[victim] += 1
            dvc.wait()
        if dvc.returncode == 0:
            return hit
        if left is None:
            raise SystemExit(f"{folder}: does not end; see {folder.parent / folder.name}.log")


def main() -> int:
    """Run the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    given = parser.parse_args()
    draw, total, other, begun = random.Random(given.seed), Counter[str](), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        undisturbed = fresh(Path(scratch) / "undisturbed")
        if repro(undisturbed).wait():
            raise SystemExit((Path(scratch) / "undisturbed.log").read_text(encoding="utf-8"))
        expected = outcome(undisturbed)
        for number in range(1, given.rounds + 1):
            folder = fresh(Path(scratch) / f"round-{number}")
            hit = round_of(folder, draw)
            total += hit
            same = outcome(folder) == expected
            other += not same
            kills = ", ".join(f"{victim} {count}" for victim, count in sorted(hit.items())) or "none"
            print(f"round {number}: kills: {kills}; {'same bytes' if same else 'OTHER BYTES'}", flush=True)
            shutil.rmtree(folder)
    minutes = (time.monotonic() - begun) / 60
    print(
        f"{given.rounds} rounds, {total.total()} kills ({dict(sorted(total.items()))}), {other} other, {minutes:.0f} min"
    )
    return 1 if other or expected.states != 1 else 0


if __name__ == "__main__":
    sys.exit(main())
