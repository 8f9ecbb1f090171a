"""What dvc.yaml says, for scripts/sweep.py: stages, commands, outputs, and what each result depends on."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from epsilens import artifacts, config
from epsilens.reporting.config import SweepConfig

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(".checkpoints/sweep")  # logs and markers
ELSEWHERE = "track"  # the stage that needs mlflow

Cell = tuple[str, int]


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml; `facts` are checksums of the parameters and the code of it and of the stages before it."""

    name: str
    command: str
    outputs: tuple[str, ...]
    per_network: bool
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Task:
    """A stage at one cell of the grid, or a stage that runs once."""

    stage: Stage
    cell: Cell | None = None

    @property
    def name(self) -> str:
        """`train-4-0`, as its log and its marker are called."""
        return f"{self.stage.name}-{self.cell_name}" if self.cell else self.stage.name

    @property
    def cell_name(self) -> str:
        """`4-0`, or nothing for a stage that runs once."""
        return "-".join(map(str, self.cell or ()))

    @property
    def target(self) -> str:
        """`train@4-0`, as DVC calls it."""
        return self.name.replace("-", "@", 1)

    @property
    def command(self) -> list[str]:
        """The stage's command at this cell, with this Python unless LAUNCH says otherwise."""
        python = shlex.quote(sys.executable)
        text = re.sub(r"^python\b", lambda _: python, self._here(self.stage.command))
        return shlex.split(re.sub(r"\\?\$\{LAUNCH:-python\}", lambda _: os.environ.get("LAUNCH") or python, text))

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Files and folders, from the root of the working copy."""
        return tuple(Path(self._here(output)) for output in self.stage.outputs)

    @property
    def log(self) -> Path:
        """Where what it prints goes."""
        return ROOT / FOLDER / f"{self.name}.log"

    def done(self) -> bool:
        """Whether it has ended, with the present parameters and code, and its outputs are still there."""
        try:
            key = self._marker.read_text(encoding="utf-8")
        except OSError:
            return False
        return key == self._key and all((ROOT / path).exists() for path in self.outputs)

    def mark(self) -> None:
        """Write down that it has ended."""
        artifacts.write_bytes(self._marker, self._key.encode())

    def forget(self) -> None:
        """Take it for not yet run."""
        self._marker.unlink(missing_ok=True)

    @property
    def _marker(self) -> Path:
        return ROOT / FOLDER / f"{self.name}.done"

    @property
    def _key(self) -> str:
        return _digest([self.name, self.stage.command, self.stage.outputs, dict(self.stage.facts)])

    def _here(self, text: str) -> str:
        for name, value in zip(("epsilon", "seed"), self.cell or (), strict=False):
            text = text.replace(f"${{item.{name}}}", str(value))
        return text


def read_plan() -> list[Task]:
    """All tasks of the study in an order in which they can run: the stages of one network follow each other."""
    raw = config.read(ROOT / config.PARAMS)
    stages, tasks = _stages(raw), list[Task]()
    for stage in stages:
        if not stage.per_network:
            tasks.append(Task(stage))
        elif stage == next(other for other in stages if other.per_network):
            grid = config.section(raw, "sweep", SweepConfig).grid()
            tasks += [Task(other, cell) for cell in grid for other in stages if other.per_network]
    return tasks


def _stages(raw: Mapping[str, Any]) -> list[Stage]:
    """The stages of dvc.yaml but `track`; they stand there in an order in which they can run."""
    known = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    facts: dict[str, str] = {}
    stages = []
    for name, entry in known.items():
        if name != ELSEWHERE:
            facts |= {f"params.yaml: {section}": _digest(raw.get(section)) for section in entry["params"]}
            facts |= {str(path.relative_to(ROOT)): artifacts.sha256(path) for path in _code(entry["deps"])}
            outputs = tuple(next(iter(out)) if isinstance(out, dict) else out for out in entry["outs"])
            stages.append(Stage(name, entry["cmd"], outputs, "matrix" in entry, dict(facts)))
    return stages


def _code(deps: Iterable[str]) -> list[Path]:
    """Every file of code among the dependencies of a stage."""
    paths = [ROOT / dep for dep in deps if dep.startswith(("src/", "stages/"))]
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return [file for file in files if file.is_file() and "__pycache__" not in file.parts]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
