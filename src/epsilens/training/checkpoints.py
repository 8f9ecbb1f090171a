"""Checkpoints of a run that may be stopped at any moment.

They live outside DVC's outputs (DVC deletes an output before it runs a stage), in a folder named by everything that
defines the run. Each is written through a temporary file and carries its SHA-256 in its name, so that a half-written
or damaged one is never used; the one before it is kept for that case.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from epsilens.artifacts import write_bytes

NAME = re.compile(r"epoch-(\d{6})-step-(\d{6})-([0-9a-f]{64})\.pt")


@dataclass
class Checkpoints:
    """The checkpoints in one folder; one is due `interval` seconds after the last."""

    folder: Path
    interval: float = 30.0
    _last: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Whether it is time for the next."""
        return time.monotonic() - self._last >= self.interval

    def save(self, epoch: int, step: int, state: dict[str, Any]) -> None:
        """Write the state after `epoch` epochs and `step` steps, and drop all but this and the one before it."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest()
        write_bytes(self.folder / f"epoch-{epoch:06d}-step-{step:06d}-{digest}.pt", content)
        for path in self.newest_first()[2:]:
            path.unlink()
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole, or None. A damaged one is set aside as `*.damaged`, with a warning."""
        for path in self.newest_first():
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == NAME.fullmatch(path.name)[3]:  # type: ignore[index]  # matched below
                return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
            path.rename(path.with_suffix(".damaged"))
            print(f"warning: {path} is damaged; set aside, continuing from what was before it", file=sys.stderr)
        return None

    def clear(self) -> None:
        """Delete the folder: the run has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def newest_first(self) -> list[Path]:
        """All that look whole by their names."""
        return sorted((p for p in self.folder.glob("epoch-*") if NAME.fullmatch(p.name)), reverse=True)
