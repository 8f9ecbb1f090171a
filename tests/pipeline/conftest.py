"""A copy of the project with a toy study: seconds instead of minutes, every stage real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

FILES = (
    "src",
    "stages",
    "studies",
    "scripts",
    "dvc.yaml",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvc/plots",
    ".dvcignore",
    ".gitignore",
)

# What makes the default study small; every section keeps its shape.
TOY: dict[str, Any] = {
    "sweep": {"epsilons": [0, 4], "seeds": [0]},
    "data": {"options": {"train": 120, "test": 60, "size": 16}, "validation": 20, "evaluation": 8},
    "model": {"options": {"width": 4}},
    "train": {"epochs": 2, "batch_size": 20, "validation_steps": 2},
    "attack": {
        "images": 20,
        "epsilon": 4,
        "epsilons": {"linf": [4], "l2": [0.5]},
        "steps": 2,
        "ensemble": {
            "images": 8,
            "attacks": [
                {"name": "apgd_ce", "options": {"iterations": 2}},
                {"name": "square", "options": {"queries": 3}},
            ],
        },
    },
    "attribute": {"gallery": 2, "methods": {"gradient": {}, "random": {}}},
    "score": {
        "metrics": {
            "gini": {},
            "direction_sensitivity": {"radius_255": 4, "samples": 2},
            "relevance_mass_corrected": {},
            "road_gap": {"fractions": [0.5]},
        }
    },
    "report": {"bootstrap": 100},
}
REPLACED = ("methods", "metrics")  # mappings that are taken as they stand, not merged


def overlay(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, key by key."""
    merged = dict(base)
    for key, value in changes.items():
        deeper = isinstance(value, dict) and isinstance(base.get(key), dict) and key not in REPLACED
        merged[key] = overlay(base[key], value) if deeper else value
    return merged


class Project:
    """A working copy in a folder of its own, with its own Git history, DVC cache and MLflow store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def env(self) -> dict[str, str]:
        """The environment of commands there: this one's without settings of DVC, MLflow and the project."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_", "EPSILENS_"))
        }
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
            "EPSILENS_LIVE": "0",
            "EPSILENS_MLFLOW_MODELS": "none",  # exporting networks takes longer than training them here; see test_mlflow
            "OMP_NUM_THREADS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }

    def run(self, *command: str, status: int = 0, **more: str) -> str:
        """Run a command there, with `more` in its environment; its output. Fails if the exit status is another."""
        env = self.env | more
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        output = done.stdout + done.stderr
        assert done.returncode == status, f"{' '.join(command)}: {done.returncode}\n{output}"
        return output

    def repro(self, *arguments: str) -> set[str]:
        """`dvc repro`; the stages that ran."""
        lines = self.run("dvc", "repro", *arguments).splitlines()
        return {line.split("'")[1] for line in lines if line.startswith("Running stage")}

    def params(self, changes: dict[str, Any]) -> None:
        """Lay changes over params.yaml."""
        path = self.folder / "params.yaml"
        changed = overlay(yaml.safe_load(path.read_text(encoding="utf-8")), changes)
        path.write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")

    def commit(self) -> None:
        """Commit all that Git may see."""
        self.run("git", "add", "--all")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "state")


@contextmanager
def started(project: Project, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own, killed with all that it started at the end."""
    env = project.env | {"EPSILENS_CHECKPOINT_SECONDS": "0"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=project.folder, env=env, text=True, stdout=pipe, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            kill(-process.pid)


def kill(pid: int) -> None:
    """kill -9, of a group if negative."""
    with suppress(ProcessLookupError):
        os.killpg(-pid, signal.SIGKILL) if pid < 0 else os.kill(pid, signal.SIGKILL)


def running(project: Project, stage: str) -> list[int]:
    """Processes of a stage in this project's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if f"stages.{stage}".encode() in words and b"python" in words[0]:
                found += [int(process.name)] if (process / "cwd").resolve() == project.folder.resolve() else []
        except OSError:
            continue
    return found


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def make_project(root: Path, folder: Path) -> Project:
    """The toy study, committed, not yet run."""
    for name in FILES:
        source, target = root / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    shutil.copy(root / "studies" / "shapes.yaml", folder / "params.yaml")
    project = Project(folder)
    project.params(TOY)
    project.run("git", "init", "--quiet")
    project.commit()
    return project


@pytest.fixture(scope="session")
def reproduced(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The toy study after one `dvc repro`. Tests copy it or leave it as they find it."""
    project = make_project(root, tmp_path_factory.mktemp("study"))
    project.repro()
    project.commit()
    return project


@pytest.fixture
def project(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of the reproduced toy study that a test may change."""
    shutil.copytree(reproduced.folder, tmp_path / "study", symlinks=True)
    return Project(tmp_path / "study")


Factory = Callable[[Path], Project]


@pytest.fixture(scope="session")
def fresh(root: Path) -> Factory:
    """Makes a toy study that has never run in a given folder."""
    return lambda folder: make_project(root, folder)
