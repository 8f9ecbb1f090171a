"""What `dvc repro` would run now, and about how long it takes: from how long the same stages took before."""

import argparse
import json
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from epsilens import artifacts, config
from epsilens.errors import DataError, EpsilensError
from epsilens.reporting.config import StudyConfig
from stages.common import durations, params, run

NAMED = 6  # networks that are named one by one
COPY = "copy the folder to where you may write: `cp -r . <elsewhere>`"
REMEDIES = {  # of what DVC says of a folder in which it cannot work
    "is not a git repository": "`git init` makes it one, `dvc config --local core.no_scm true` does without",
    "not inside of a DVC repository": "`dvc init` makes it one, with .git there",
    "Read-only file system": COPY,
    "Permission denied": COPY,
}


def out_of_date() -> list[str]:
    """Stages that `dvc status` finds changed, and all that depend on them, in the order of the pipeline.

    An upper limit: what is in DVC's cache is only checked out, and what comes out as before ends the chain there.
    """
    changed = set(json.loads(_dvc("status", "--json")))
    after = defaultdict(set)
    edges = [line.split('"')[1::2] for line in _dvc("dag", "--dot").splitlines() if "->" in line]
    for before, dependent in edges:
        after[before].add(dependent)
    reached, todo = set(), changed
    while todo:
        reached |= todo
        todo = {stage for before in todo for stage in after[before]} - reached
    return [stage for stage in _dvc("stage", "list", "--name-only").split() if stage in reached]


def _dvc(*arguments: str) -> str:
    try:
        done = subprocess.run(["dvc", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise EpsilensError(
            f"dvc: cannot be run: {error.strerror}; `source .venv/bin/activate` makes it known"
        ) from None
    if done.returncode:
        raise failure(arguments[0], done.stderr)
    return done.stdout


def failure(command: str, stderr: str) -> EpsilensError:
    """Why dvc failed, with the command that helps: a DataError where DVC cannot work in this folder at all."""
    lines = [line for line in stderr.splitlines() if line.strip() and "dvc.org" not in line]
    said = next((line for line in lines if line.startswith("ERROR: ")), (lines or ["it failed"])[-1])
    said = said.removeprefix("ERROR: ").removeprefix("unexpected error - ")
    remedy = next((remedy for sign, remedy in REMEDIES.items() if sign in said), None)
    known = f"dvc {command}: {said}"
    return EpsilensError(known) if remedy is None else DataError(f"{known}; {remedy}")


def known(study: str) -> tuple[Mapping[str, float], str]:
    """Seconds of each stage (of one network, where it is of a network), and where they were measured."""
    here = medians(line for line in durations() if line["study"] == study)
    recorded = artifacts.METRICS / study / "provenance.json"
    there = artifacts.read_json(recorded).get("seconds", {}) if recorded.exists() else {}
    return {**there, **here}, "here" if here else f"where {Path(recorded)} was recorded"


def medians(lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The median of each stage over its networks and runs."""
    found = defaultdict(list)
    for line in lines:
        found[line["stage"].partition("@")[0]].append(line["seconds"])
    return {stage: statistics.median(seconds) for stage, seconds in found.items()}


def told(stages: list[str], seconds: Mapping[str, float], where: str) -> str:
    """The forecast in words."""
    if not stages:
        return "nothing to run: everything is up to date"
    groups = defaultdict(list)
    for stage in stages:
        name, _, cell = stage.partition("@")
        groups[name].append(cell)
    lines = [f"to run, at most: {len(stages)} stages"]
    for name, cells in groups.items():
        of = f" {', '.join(cells)}" if len(cells) <= NAMED else f" {len(cells)} networks"
        lines.append(f"  {name}{of if cells != [''] else ''}")
    missing = [name for name in groups if name not in seconds]
    total = sum(seconds.get(name, 0.0) * len(cells) for name, cells in groups.items())
    if total:
        but = f", without {', '.join(missing)}, which has not run yet" if missing else ""
        lines[0] += f", about {words(total)} by what they took {where}{but}"
    return "\n".join(lines)


def words(seconds: float) -> str:
    """`40 s`, `12 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", action="store_true", help="the stages of single networks, and nothing else")
    names = parser.parse_args().names
    study, stages = config.section(params(), "study", StudyConfig).name, out_of_date()
    print(" ".join(stage for stage in stages if "@" in stage) if names else told(stages, *known(study)))


if __name__ == "__main__":
    run(main)
