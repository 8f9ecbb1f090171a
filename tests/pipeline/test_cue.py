"""The premise of the default study: its standard network uses the cue."""

from __future__ import annotations

from pathlib import Path

from epsilens import config, data
from epsilens.attacks import ThreatModel, clean_margins
from epsilens.data.config import DataConfig
from epsilens.data.manifest import channel_statistics
from epsilens.data.splits import split
from epsilens.models import build
from epsilens.models.config import ModelConfig
from epsilens.models.folding import Folded
from epsilens.randomness import derive
from epsilens.training import Checkpoints, TrainConfig, Trainer, World, fit


def test_the_standard_network_of_the_default_study_depends_on_the_cue(root: Path, tmp_path: Path) -> None:
    raw = config.read(root / "studies" / "shapes.yaml")
    settings = config.section(raw, "data", DataConfig)
    model = config.section(raw, "model", ModelConfig)
    source = data.load(settings, tmp_path)
    parts = split(source, settings)
    mean, std = channel_statistics(parts["train"].images)
    network = build(model.name, model.options, len(source.class_names), mean, std, derive(0, "weights"))
    train, threat = config.section(raw, "train", TrainConfig), ThreatModel.of("linf", 0)
    trainer = Trainer(network, threat, train, seed=0, world=World("cpu"), view=Folded)
    state, _ = fit(trainer, parts["train"], parts["validation"], Checkpoints(tmp_path / "run"), lambda epoch: None)
    network.load_state_dict(state)
    network.eval()
    accuracies = {
        name: float((clean_margins(network, parts[name], 500) > 0).float().mean())
        for name in ("test", "test_without_cue")
    }
    assert accuracies["test"] > 0.85, accuracies
    assert accuracies["test_without_cue"] < 0.35, accuracies
