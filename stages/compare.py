"""Revisions or experiments side by side: `python -m stages.compare main exp-abc` -> reports/compare.html.

`workspace` is the working copy as it stands. What is compared are the small tables in metrics/ that Git holds of each
revision: nothing is checked out, and nothing runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from epsilens import artifacts, config
from epsilens.errors import ConfigError, DataError
from epsilens.reporting.compare import Snapshot, check, render, table
from stages.common import run

WORKSPACE = "workspace"  # as in `dvc diff` and its like
EXPERIMENTS = "refs/exps"  # where DVC keeps them: refs/exps/<two digits>/<the rest of the baseline>/<name>


def git(*command: str) -> bytes | None:
    """What a git command prints, or None where it fails. Raises ConfigError where there is no git."""
    try:
        done = subprocess.run(["git", *command], capture_output=True, check=False)
    except OSError as error:
        raise ConfigError(f"compare: git cannot be run: {error.strerror}") from None
    return done.stdout if done.returncode == 0 else None


def experiments() -> dict[str, set[str]]:
    """The commits of DVC's experiments by name: two baselines may each have one of a name."""
    found: dict[str, set[str]] = {}
    listed = (git("for-each-ref", "--format=%(objectname) %(refname)", EXPERIMENTS) or b"").decode()
    for commit, reference in (line.split(" ", 1) for line in listed.splitlines()):
        parts = reference.split("/")
        if len(parts) == 5 and len(parts[2]) == 2:  # others are DVC's own notes
            found.setdefault(parts[4], set()).add(commit)
    return found


def commit_of(revision: str) -> str:
    """The commit of a branch, tag, hash or experiment. Raises ConfigError that lists the experiments there are."""
    if git("rev-parse", "--git-dir") is None:
        raise ConfigError("compare: this folder is in no git repository, so it has no revisions")
    known = experiments()
    if len(known.get(revision, ())) > 1:
        shown = ", ".join(sorted(commit[:7] for commit in known[revision]))
        raise ConfigError(f"compare: {revision}: is the name of several experiments; give one of the commits {shown}")
    if revision in known:
        return next(iter(known[revision]))
    found = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if found is None:
        listed = f"known experiments: {', '.join(sorted(known))}" if known else "there are no experiments"
        raise ConfigError(f"compare: {revision}: is no branch, tag, commit or experiment; {listed}")
    return found.decode().strip()


def content(revision: str, commit: str | None, path: Path) -> bytes:
    """A file of a commit, or of the working copy. Raises DataError if it has none."""
    if commit is None:
        found = path.read_bytes() if path.is_file() else None
    else:
        found = git("show", f"{commit}:./{path.as_posix()}")
    if found is None:
        where = "" if commit is None else f" ({commit[:7]})"
        raise DataError(
            f"compare: {revision}{where}: has no {path}; it was committed without results, or before they had this form: "
            "run `dvc repro` there and commit metrics/"
        )
    return found


def snapshot(revision: str) -> Snapshot:
    """What a revision's files say. Raises ConfigError or DataError."""
    commit = None if revision == WORKSPACE else commit_of(revision)
    tables = [_parsed(revision, commit, path) for path in (artifacts.ACCURACY, artifacts.NETWORKS, artifacts.HEADLINE)]
    parameters = _parsed(revision, commit, config.PARAMS)
    return Snapshot(revision, "as it stands" if commit is None else commit[:7], parameters, *tables)


def _parsed(revision: str, commit: str | None, path: Path) -> Any:
    text = content(revision, commit, path)
    kind = list if path.suffix == ".json" else dict
    try:
        found = json.loads(text) if kind is list else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"compare: {revision}: {path}: cannot be read: {error}") from None
    if not isinstance(found, kind):
        raise DataError(f"compare: {revision}: {path}: found {type(found).__name__}, expected {kind.__name__}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revisions", nargs="*", help="branches, tags, commits, names of experiments, or `workspace`")
    names = list(dict.fromkeys(parser.parse_args().revisions))
    if len(names) < 2:
        raise ConfigError(f'compare: found {len(names)} revision, expected at least two, as in REVS="main exp-abc"')
    snapshots = [snapshot(name) for name in names]
    check(snapshots)
    artifacts.write_bytes(artifacts.COMPARISON, render(snapshots))
    for row in table(snapshots):
        against = "; ".join(f"{other['difference']} {other['verdict']}".strip() for other in row["against"])
        print(f"{row['what']}, training ε = {row['epsilon']:g}: {' | '.join(row['cells'])} | difference {against}")
    print(f"compare: {artifacts.COMPARISON}")


if __name__ == "__main__":
    run(main)
