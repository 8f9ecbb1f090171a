"""What `dvc repro` would run now, and about how long it takes: from how long the same stages took before."""

import argparse
import json
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epsilens import artifacts, config
from epsilens.errors import DataError, EpsilensError
from epsilens.reporting.config import StudyConfig
from stages.common import durations, params, project_root, run
from stages.verify import CACHE

NAMED = 6  # networks that are named one by one
RECENT = 12  # durations of a stage that count: those before may be of other parameters
OVERHEAD = 1.0  # seconds of DVC itself for a stage: 0.8 to 2 on two cores, by how busy they are
LOCK = Path("dvc.lock")
COPY = "copy the folder to where you may write: `cp -r . <elsewhere>`"
REMEDIES = {  # of what DVC says of a folder in which it cannot work
    "is not a git repository": "`git init` makes it one, `dvc config --local core.no_scm true` does without",
    "not inside of a DVC repository": "`dvc init` makes it one, with .git there",
    "Read-only file system": COPY,
    "Permission denied": COPY,
}


@dataclass(frozen=True)
class Pipeline:
    """What DVC knows of the pipeline. `dvc repro --dry` is no help: it calls stages cached that will run, and fails where
    outputs are missing."""

    stages: Sequence[str]  # all, as dvc.yaml has them: none before one on which it depends
    changed: Mapping[str, Any]  # those of them that `dvc status` finds changed, and what of them
    before: Mapping[str, set[str]]  # the stages on which a stage depends

    def out_of_date(self) -> list[str]:
        """The changed stages and all that depend on them. An upper limit: what comes out as before ends the chain there."""
        reached: set[str] = set()
        for stage in self.stages:
            if stage in self.changed or self.before[stage] & reached:
                reached.add(stage)
        return [stage for stage in self.stages if stage in reached]

    def to_run(self, lock: Mapping[str, Any], cache: Path) -> list[str]:
        """Those that are not out of date only because of missing files, which DVC takes from its cache.

        What was run with other parameters may be there, too; that DVC finds out only when it is the stage's turn.
        """
        found: list[str] = []
        for stage in self.out_of_date():
            only_missing = all(map(_only_deleted, self.changed.get(stage, ()))) and _kept(lock.get(stage), cache)
            if not only_missing or self.before[stage] & set(found):
                found.append(stage)
        return found


def _only_deleted(change: object) -> bool:
    """change: `{"changed outs": {"models/eps-8/seed-0": "deleted"}}` and the like, or a word such as "changed command"."""
    if not isinstance(change, Mapping):
        return False
    return all(state == "deleted" for states in change.values() for state in states.values())


def _kept(locked: Mapping[str, Any] | None, cache: Path) -> bool:
    """Whether every output of an entry of dvc.lock is where it belongs or in the cache."""
    if locked is None:
        return False
    outs = [(Path(out["path"]), cache / out["md5"][:2] / out["md5"][2:]) for out in locked.get("outs", ())]
    return all(place.exists() or kept.exists() for place, kept in outs)


def pipeline() -> Pipeline:
    """Asks DVC."""
    status, dag = dvc("status --json", "dag --dot")
    named = [line.split('"')[1::2] for line in dag.splitlines()]  # one name for a stage, two for an arrow
    before = defaultdict(set)
    for first, second in (names for names in named if len(names) == 2):
        before[second].add(first)
    return Pipeline([names[0] for names in named if len(names) == 1], json.loads(status), before)


def dvc(*commands: str) -> list[str]:
    """What dvc prints, of several commands at once: none of them writes. Raises EpsilensError if one fails."""
    pipe = subprocess.PIPE
    try:
        started = [subprocess.Popen(["dvc", *each.split()], stdout=pipe, stderr=pipe, text=True) for each in commands]
    except OSError as error:
        raise EpsilensError(
            f"dvc: cannot be run: {error.strerror}; `source .venv/bin/activate` makes it known"
        ) from None
    answers = [process.communicate() for process in started]
    for command, process, (_, error) in zip(commands, started, answers, strict=True):
        if process.returncode:
            raise failure(command.split()[0], error)
    return [output for output, _ in answers]


def failure(command: str, stderr: str) -> EpsilensError:
    """Why dvc failed, with the command that helps: a DataError where DVC cannot work in this folder at all."""
    lines = [line for line in stderr.splitlines() if line.strip() and "dvc.org" not in line]
    said = next((line for line in lines if line.startswith("ERROR: ")), (lines or ["it failed"])[-1])
    said = said.removeprefix("ERROR: ").removeprefix("unexpected error - ")
    remedy = next((remedy for sign, remedy in REMEDIES.items() if sign in said), None)
    known = f"dvc {command}: {said}"
    return EpsilensError(known) if remedy is None else DataError(f"{known}; {remedy}")


def known(study: str, stages: Iterable[str]) -> tuple[dict[str, float], str]:
    """Seconds of each of these kinds of stage (for one network, where it is of a network), and where they were measured."""
    kinds = {kind(stage) for stage in stages}
    here = medians(line for line in durations() if line["study"] == study)
    recorded = artifacts.METRICS / study / "provenance.json"
    there = artifacts.read_json(recorded).get("seconds", {}) if recorded.exists() else {}
    places = {"here": kinds & set(here), f"where {recorded} was recorded": (kinds - set(here)) & set(there)}
    seconds = {name: time for name, time in {**there, **here}.items() if name in kinds}
    return seconds, " and ".join(place for place, found in places.items() if found)


def kind(stage: str) -> str:
    """`train` of `train@8-0`."""
    return stage.partition("@")[0]


def medians(lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The median of each kind of stage over its networks and its last runs."""
    found = defaultdict(list)
    for line in lines:
        found[kind(line["stage"])].append(line["seconds"])
    return {name: statistics.median(seconds[-RECENT:]) for name, seconds in found.items()}


def told(stages: Sequence[str], of: Sequence[str]) -> list[str]:
    """A line for each kind of these stages. of: all that there are."""
    lines = []
    for name in dict.fromkeys(map(kind, stages)):
        cells = [stage.partition("@")[2] for stage in stages if kind(stage) == name]
        count = sum(kind(stage) == name for stage in of)
        which = f": {', '.join(cells)}" if len(cells) <= NAMED else ""
        lines.append(f"  {name}" if cells == [""] else f"  {name} {len(cells)} of {count} networks{which}")
    return lines


def headline(stages: Sequence[str], seconds: Mapping[str, float], where: str) -> str:
    """How many stages will run, and how long that takes."""
    start = f"to run, at most: {counted(len(stages))}"
    if not seconds:
        return f"{start}, no estimate yet: none of them has run"
    missing = [name for name in dict.fromkeys(map(kind, stages)) if name not in seconds]
    total = sum(OVERHEAD + seconds[kind(stage)] for stage in stages if kind(stage) in seconds)
    but = f", without {', '.join(missing)}, which has not run yet" if missing else ""
    return f"{start}, about {words(total)} by what they took {where}{but}"


def counted(count: int) -> str:
    """`1 stage`, `2 stages`."""
    return f"{count} stage{'' if count == 1 else 's'}"


def words(seconds: float) -> str:
    """`40 s`, `12 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def forecast(found: Pipeline, lock: Mapping[str, Any], cache: Path) -> str:
    """The forecast in words."""
    to_run = found.to_run(lock, cache)
    restored = len(set(found.changed) - set(to_run))
    lines = [f"from DVC's cache: {counted(restored)}"] if restored else []
    if not to_run:
        return "\n".join(lines or ["nothing to run: everything is up to date"])
    study = config.section(params(), "study", StudyConfig).name
    return "\n".join([headline(to_run, *known(study, to_run)), *told(to_run, found.stages), *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", action="store_true", help="the stages of single networks, and nothing else")
    names = parser.parse_args().names
    try:
        found = pipeline()
        if names:
            print(" ".join(stage for stage in found.out_of_date() if "@" in stage))
        else:
            lock = config.read(LOCK)["stages"] if found.changed and LOCK.exists() else {}
            print(forecast(found, lock, project_root() / CACHE))
    except (OSError, ValueError, LookupError, TypeError) as error:  # files that others have written; no reason to stop
        raise EpsilensError(f"no forecast: {error!r}") from None


if __name__ == "__main__":
    run(main)
