"""Accuracy of one network: clean on every test split, and under attack at every budget on the test split."""

from typing import Any

from torch import Tensor

from epsilens import artifacts, config
from epsilens.attacks import ThreatModel, attack_margins, clean_margins
from epsilens.attacks.config import AttackConfig, ThreatConfig
from epsilens.data.manifest import read_manifest, read_split
from epsilens.data.splits import part_of
from epsilens.models.checkpoints import load
from epsilens.types import Samples
from stages.common import cell, device, params, run

NOT_TESTED = ("train", "validation", "evaluation")  # evaluation is a part of test


def main() -> None:
    text, epsilon, seed = cell(__doc__)
    raw = params()
    settings = config.section(raw, "attack", AttackConfig)
    norm = config.section(raw, "threat", ThreatConfig).norm
    network = load(artifacts.cell(artifacts.MODELS, text, seed), device())
    rows: list[dict[str, Any]] = []

    def add(split: str, samples: Samples, attack: str, budget: float, margins: Tensor) -> None:
        known = {"epsilon": epsilon, "seed": seed, "split": split, "attack": attack, "budget": budget}
        pairs = zip(samples.ids.tolist(), margins.tolist(), strict=True)
        rows.extend({**known, "image": image, "correct": margin > 0, "margin": margin} for image, margin in pairs)
        accuracy = float((margins > 0).float().mean())
        print(f"{split}, {attack} at {norm} {budget:g}: accuracy {accuracy:.4f} of {len(samples)} images", flush=True)

    for split in read_manifest(artifacts.PREPARED)["splits"]:
        if split not in NOT_TESTED:
            samples = read_split(artifacts.PREPARED, split).to(device())
            add(split, samples, "clean", 0.0, clean_margins(network, samples, settings.batch_size))
    test = read_split(artifacts.PREPARED, "test")
    attacked = part_of(test, settings.images, settings.seed, "attack.images").to(device())
    for budget in (0.0, *settings.epsilons):  # at budget 0: clean, on the very images that are attacked
        margins = attack_margins(network, attacked, ThreatModel.of(norm, budget), settings)
        add("test", attacked, "pgd", budget, margins)
    table = artifacts.cell(artifacts.ATTACKS, text, seed) / artifacts.ROWS
    artifacts.write_rows(table, {name: [row[name] for row in rows] for name in rows[0]})


if __name__ == "__main__":
    run(main)
