"""Train one network at one epsilon and seed, under torchrun in several processes; or read one that others have trained."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from epsilens import artifacts, config, models
from epsilens.attacks import ThreatModel
from epsilens.attacks.config import ThreatConfig
from epsilens.data.manifest import read_manifest, read_split
from epsilens.errors import ConfigError
from epsilens.models import checkpoints as networks
from epsilens.models import foreign
from epsilens.models.config import ModelConfig
from epsilens.models.folding import Folded
from epsilens.processes import sole_writer
from epsilens.randomness import derive
from epsilens.training import (
    Checkpoints,
    Epoch,
    PublishedConfig,
    TrainConfig,
    Trainer,
    check_published,
    fit,
    form,
    joined,
    precision,
)
from epsilens.types import Model
from stages.common import alone, cell, data_root, deterministic, device, params, project_root, run, run_key

CODE = (
    "stages/train.py",
    "src/epsilens/*.py",
    "src/epsilens/attacks/*.py",
    "src/epsilens/models/*.py",
    "src/epsilens/training/*.py",
)
COMPILE_MODES = ("", "default", "reduce-overhead", "max-autotune")


def follow_live() -> None:
    """Start the follower that shows the curves in MLflow while training runs; EPSILENS_LIVE=0 does without."""
    if os.environ.get("EPSILENS_LIVE") == "0":
        return
    command = [sys.executable, "-m", "stages.live"]
    quiet = subprocess.DEVNULL
    subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


class Progress:
    """One line an epoch on the terminal and in the folder of the run, where the live follower finds it."""

    def __init__(self, folder: Path, epochs: int, cell: dict[str, object]) -> None:
        self.path, self.epochs, self.cell = folder / "history.jsonl", epochs, cell
        self.started, self.seen = time.monotonic(), 0

    def __call__(self, epoch: Epoch) -> None:
        self.seen += 1
        left = (time.monotonic() - self.started) / self.seen * (self.epochs - epoch.epoch)
        print(
            f"epoch {epoch.epoch}/{self.epochs}: loss {epoch.loss:.3f}, validation {epoch.validation_accuracy:.3f}, "
            f"under PGD {epoch.validation_robust_accuracy:.3f}, {left:.0f} s left",
            flush=True,
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**self.cell, **asdict(epoch)}) + "\n")


def card(model: ModelConfig, norm: str, epsilon: float) -> dict[str, Any]:
    """What a reader of the weights must know; `models.checkpoints.load` rebuilds the network from it."""
    facts = read_manifest(artifacts.PREPARED)
    return {
        "architecture": model.name,
        "options": model.options,
        **{name: facts[name] for name in ("class_names", "mean", "std", "channels", "height", "width")},
        "threat": {"norm": norm, "epsilon": epsilon},
    }


def origin(settings: TrainConfig, seed: int) -> dict[str, Any]:
    """What a network was trained by and on."""
    splits = read_manifest(artifacts.PREPARED)["splits"]
    return {
        "training": {**settings.model_dump(), "seed": seed, "precision": precision(settings, device())},
        "data": {name: splits[name]["sha256"] for name in ("train", "validation")},
    }


def compiled() -> Callable[[nn.Module], Model]:
    """torch.compile in the mode that EPSILENS_COMPILE names, or nothing: how a step is computed is no parameter."""
    mode = os.environ.get("EPSILENS_COMPILE", "")
    if mode not in COMPILE_MODES:
        raise ConfigError(f"EPSILENS_COMPILE: found {mode!r}, allowed are {', '.join(map(repr, COMPILE_MODES))}")
    return (lambda network: torch.compile(network, mode=mode)) if mode else (lambda network: network)


def checkpoint_seconds() -> float:
    """EPSILENS_CHECKPOINT_SECONDS: between two checkpoints."""
    given = os.environ.get("EPSILENS_CHECKPOINT_SECONDS", "30")
    try:
        return float(given)
    except ValueError:
        raise ConfigError(f"EPSILENS_CHECKPOINT_SECONDS: found {given!r}, expected a number of seconds") from None


@contextmanager
def first_alone(scratch: Path, doing: str) -> Iterator[None]:
    """The first process holds the locks, and starts the follower."""
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    with alone(scratch, doing):
        follow_live()
        yield


def build(identity: Mapping[str, Any], seed: int) -> nn.Sequential:
    """The network of a card, untrained."""
    shape = (len(identity["class_names"]), identity["mean"], identity["std"])
    return models.build(identity["architecture"], identity["options"], *shape, derive(seed, "weights"))


def write(cell: tuple[str, int], state: Mapping[str, Tensor], identity: Mapping[str, Any], history: list[Any]) -> None:
    """The outputs of the stage."""
    folder = artifacts.cell(artifacts.MODELS, *cell)
    networks.save(folder, state, identity)
    artifacts.write_json(folder / artifacts.HISTORY, history)
    artifacts.seal(folder)


def train(settings: TrainConfig, identity: Mapping[str, Any], cell: tuple[str, int], study: str) -> None:
    """Train one network, from its last checkpoint if there is one."""
    text, seed = cell
    identity = {**identity, **origin(settings, seed)}
    processes = os.environ.get("WORLD_SIZE", "1")
    key = run_key(CODE, identity, device(), processes, os.environ.get("EPSILENS_COMPILE"))
    scratch = project_root() / ".checkpoints" / f"train-{text}-{seed}-{key}"
    # The locks come first: a process group would answer a busy one with errors of its own.
    with first_alone(scratch, f"trains epsilon {text}, seed {seed}"), joined(device()) as world:
        network, threat = build(identity, seed), ThreatModel.of(identity["threat"]["norm"], float(text))
        # Nearly all shapes are the same. What it chooses may differ from run to run; without a GPU it means nothing.
        torch.backends.cudnn.benchmark = not deterministic()
        trainer = Trainer(network, threat, settings, seed=seed, world=world, view=Folded, compiled=compiled())
        progress = Progress(scratch, settings.epochs, {"study": study, "epsilon": text, "seed": seed})
        train, validation = (read_split(artifacts.PREPARED, name) for name in ("train", "validation"))
        checkpoints = Checkpoints(scratch, checkpoint_seconds())
        state, history = fit(trainer, train, validation, checkpoints, progress)
        if world.first:
            write(cell, state, {**identity, "kept": next(e for e in history if e["kept"])}, history)
            checkpoints.clear()


def adopt(settings: PublishedConfig, identity: Mapping[str, Any], cell: tuple[str, int]) -> None:
    """Read one published network; it has no history."""
    text, seed = cell
    check_published(settings, (float(text),), (seed,))
    with sole_writer(Path(".checkpoints") / f"train-{text}-{seed}.lock", f"reads epsilon {text}"):
        found = foreign.read(data_root() / settings.checkpoints[float(text)])
        mean, std = foreign.normalisation(found, settings.mean, settings.std, identity["channels"])
        identity = {**identity, "mean": mean, "std": std, "checkpoint": found.facts}
        network = build(identity, seed)
        foreign.fill(network, found, identity["architecture"])
        write(cell, network.state_dict(), identity, [])
    print(f"{found.path.name}: layout {found.facts['layout']}, SHA-256 {found.facts['sha256']}")


def main() -> None:
    text, epsilon, seed = cell(__doc__)
    raw = params()
    settings = config.section(raw, "train", form(raw))
    model = config.section(raw, "model", ModelConfig)
    norm = config.section(raw, "threat", ThreatConfig).norm
    identity = card(model, norm, epsilon)
    if isinstance(settings, TrainConfig):
        # The study's name labels the live curves only; as a parameter of this stage it would retrain when renamed.
        train(settings, identity, (text, seed), raw["study"]["name"])
    elif os.environ.get("RANK", "0") == "0":  # of several processes one reads
        adopt(settings, identity, (text, seed))


if __name__ == "__main__":
    run(main)
