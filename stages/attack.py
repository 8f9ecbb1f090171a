"""Accuracy of one network: clean on every test split; on the test split under PGD at every budget of both norms, and under
the ensemble at the headline budget; and whether these accuracies may be believed."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from epsilens import artifacts, attacks, config
from epsilens.attacks import Ledger, Setting, ThreatModel, masking
from epsilens.attacks.config import AttackConfig, ThreatConfig
from epsilens.data.manifest import read_manifest, read_split
from epsilens.data.splits import part_of
from epsilens.models.checkpoints import CARD, load
from epsilens.models.folding import Folded
from epsilens.progress import Done, progress, say
from epsilens.randomness import noise_seeds
from epsilens.types import Samples
from stages.common import alone, cell, device, params, project_root, run, run_key

NOT_TESTED = ("train", "validation", "evaluation")  # evaluation is a part of test
ROOMS = ("attacks", "data", "models")
CODE = ("stages/attack.py", "stages/common.py", "src/epsilens/*.py", *(f"src/epsilens/{room}/*.py" for room in ROOMS))


@dataclass(frozen=True)
class Rows:
    """The table of one network: a row for each image and attack."""

    known: Mapping[str, Any]
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, samples: Samples, margins: Tensor, broken_by: list[str], **facts: Any) -> None:
        """The rows of one attack (`broken_by`: "" for an image that withstood it), and a line on the terminal."""
        same = {name: [value] * len(samples) for name, value in {**self.known, **facts}.items()}
        own = {"image": samples.ids.tolist(), "correct": (margins > 0).tolist(), "margin": margins.tolist()}
        for name, column in {**same, **own, "broken_by": broken_by}.items():
            self.columns.setdefault(name, []).extend(column)
        known = f"{facts['split']}, {facts['attack']} at {facts['norm']} {facts['budget']:g}"
        say(f"{known}: accuracy {float((margins > 0).double().mean()):.4f} of {len(samples)} images")

    def add_single(self, samples: Samples, margins: Tensor, clean: Tensor, **facts: Any) -> None:
        """The rows of an attack on its own."""
        pairs = zip((clean <= 0).tolist(), (margins <= 0).tolist(), strict=True)
        broken_by = ["clean" if wrong else facts["attack"] if broken else "" for wrong, broken in pairs]
        self.add(samples, margins, broken_by, **facts)


@dataclass(frozen=True)
class Evaluation:
    """One network under attack. What is finished lies in `scratch`, where an interrupted run finds it."""

    network: nn.Module
    norm: str
    settings: AttackConfig
    rows: Rows
    scratch: Path

    def clean(self, split: str, samples: Samples) -> None:
        """Accuracy without an attack."""
        found = attacks.clean_margins(self.network, samples, self.settings.batch_size)
        self.rows.add_single(samples, found, found, split=split, attack="clean", norm=self.norm, budget=0.0)

    def pgd(self, samples: Samples) -> Tensor:
        """PGD at every budget of both norms; the margins at the headline budget, [N]."""
        known, headline = {"split": "test", "attack": "pgd"}, (self.norm, self.settings.epsilon)
        clean = attacks.clean_margins(self.network, samples, self.settings.batch_size)
        found, count = {}, len(samples) * sum(map(len, self.settings.epsilons.values()))
        with progress("pgd", count, "images") as done:
            for norm, budgets in self.settings.epsilons.items():
                for budget in (0.0, *budgets):  # at budget 0: clean, on the very images that are attacked
                    margins = self._pgd(samples, norm, budget, done).to(clean) if budget else clean
                    self.rows.add_single(samples, margins, clean, **known, norm=norm, budget=budget)
                    found[norm, budget] = margins
        return found[headline]

    def setting(self, threat: ThreatModel) -> Setting:
        """How attacks are run on this network."""
        search = Folded(self.network).predict
        return Setting(search, self.network, threat, self.settings.seed, self.settings.batch_size)

    def _pgd(self, samples: Samples, norm: str, budget: float, done: Done) -> Tensor:
        given = self.settings.model_dump(include={"steps", "step_factor", "restarts"})
        attack, setting = attacks.bound("pgd", given, "attack"), self.setting(ThreatModel.of(norm, budget))

        def compute() -> Mapping[str, Tensor]:
            return {"margins": attacks.attack_margins(attack, samples, setting, done)}

        return artifacts.remembered(self.scratch / f"pgd-{norm}-{budget!r}", compute)["margins"]

    def ensemble(self, samples: Samples) -> Ledger:
        """The ensemble at the headline budget, attack after attack."""
        chosen, path = self.settings.ensemble.attacks, self.scratch / "ensemble"
        members = [attacks.bound(each.name, each.options, "attack.ensemble.attacks") for each in chosen]
        setting = self.setting(ThreatModel.of(self.norm, self.settings.epsilon))
        begun = artifacts.remembered(path, lambda: vars(attacks.open_ledger(self.network, samples, setting.batch_size)))
        ledger = Ledger(**{name: column.to(samples.labels.device) for name, column in begun.items()})
        with progress(attacks.ensemble_name(chosen), len(samples) * len(chosen), "attacks on an image") as done:
            told = 0

            def save(ledger: Ledger) -> None:
                nonlocal told
                artifacts.remember(path, vars(ledger))
                finished = ledger.finished(len(chosen))
                done(finished - told)
                told = finished

            attacks.run(members, samples, setting, ledger, save)
        names = ["clean", *(each.name for each in chosen), ""]  # SURVIVED is the last
        facts = {"split": "test", "attack": attacks.ensemble_name(chosen), "norm": self.norm}
        broken_by = [names[number] for number in ledger.broken_by.tolist()]
        self.rows.add(samples, ledger.margins, broken_by, **facts, budget=self.settings.epsilon)
        return ledger

    def gate(self, samples: Samples, plain: Tensor, ledger: Ledger, history: Sequence[Any]) -> dict[str, Any]:
        """Whether to believe it. plain: margins under PGD at the headline budget, [N]; history: of the training."""
        images, seeds = samples.pixels(), noise_seeds(self.settings.seed, samples.ids)
        threat = ThreatModel.of(self.norm, self.settings.epsilon)
        given = self.settings.model_dump(include={"steps", "step_factor", "batch_size"})
        measured = masking.probe(self.network, images, samples.labels, threat, seeds, **given)
        measured |= attacks.gate_facts([each.name for each in self.settings.ensemble.attacks], ledger, plain)
        if history:
            measured["catastrophic_overfitting"] = sum(epoch["catastrophic_overfitting"] for epoch in history)
        found = masking.verdict(measured, len(samples))
        print("gate:", "sound" if found["sound"] else "NOT SOUND: " + ", ".join(found["flags"]), flush=True)
        return found


def main() -> None:
    text, epsilon, seed = cell(__doc__)
    raw = params()
    settings = config.section(raw, "attack", AttackConfig)
    norm = config.section(raw, "threat", ThreatConfig).norm
    manifest, folder = read_manifest(artifacts.PREPARED), artifacts.sealed(artifacts.cell(artifacts.MODELS, text, seed))
    attacks.check_classes([each.name for each in settings.ensemble.attacks], len(manifest["class_names"]))
    network = load(folder, device())
    tested = {name: manifest["splits"][name] for name in manifest["splits"] if name not in NOT_TESTED}
    history = artifacts.read_json(folder / artifacts.HISTORY)
    key = run_key(CODE, settings.model_dump_json(), norm, tested, artifacts.read_json(folder / CARD), device())
    scratch = project_root() / ".checkpoints" / f"attack-{text}-{seed}-{key}"
    test = read_split(artifacts.PREPARED, "test")
    attacked = part_of(test, settings.images, settings.seed, "attack.images")
    strongly = part_of(attacked, settings.ensemble.images, settings.seed, "attack.ensemble.images").to(device())
    with alone(scratch, f"attacks epsilon {text}, seed {seed}"):
        evaluation = Evaluation(network, norm, settings, Rows({"epsilon": epsilon, "seed": seed}), scratch)
        for split in tested:
            evaluation.clean(split, read_split(artifacts.PREPARED, split).to(device()))
        plain = evaluation.pgd(attacked.to(device()))[torch.isin(attacked.ids, strongly.ids.cpu())]
        verdict = evaluation.gate(strongly, plain, evaluation.ensemble(strongly), history)
        folder = artifacts.cell(artifacts.ATTACKS, text, seed)
        artifacts.write_rows(folder / artifacts.ROWS, evaluation.rows.columns)
        artifacts.write_json(folder / artifacts.GATE, verdict)
        artifacts.seal(folder)
        shutil.rmtree(scratch)


if __name__ == "__main__":
    run(main)
