"""The worst case over a sequence of attacks, each on the images that withstood those before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from epsilens.attacks.losses import margins
from epsilens.attacks.threat import ThreatModel
from epsilens.batches import Batches
from epsilens.progress import Done, untold
from epsilens.randomness import noise_seeds
from epsilens.types import Images, Labels, Model, NoiseSeeds, Samples

Attacker = Callable[[Model, Images, Labels, ThreatModel, NoiseSeeds], tuple[Images, Tensor]]

SURVIVED, CLEAN = -1, 0  # in `broken_by`; the attacks of the sequence are 1, 2, ...


@dataclass(frozen=True)
class Setting:
    """Under which attacks are run.

    search: the network in the form that attacks may use (folded, compiled); judge: the network itself, which has the last
    word on what they find; seed: of noise that is per image.
    """

    search: Model
    judge: Model
    threat: ThreatModel
    seed: int
    batch_size: int


@dataclass
class Ledger:
    """What is known of each image, [N] each."""

    margins: Tensor  # the smallest that any attack has found
    broken_by: Tensor  # int64: SURVIVED, CLEAN (wrong without an attack), or the number of the attack, from 1
    done: Tensor  # int64: how many attacks of the sequence it has gone through

    def finished(self, attacks: int) -> int:
        """How many pairs of image and attack, of `attacks` an image, are no more to be computed."""
        return int(torch.where(self.broken_by == SURVIVED, self.done, attacks).sum())


def open_ledger(judge: Model, samples: Samples, batch_size: int) -> Ledger:
    """Before any attack."""
    found = clean_margins(judge, samples, batch_size)
    broken_by = torch.where(found > 0, SURVIVED, CLEAN)
    return Ledger(found, broken_by, torch.zeros_like(broken_by))


@torch.no_grad()
def clean_margins(judge: Model, samples: Samples, batch_size: int) -> Tensor:
    """Margins on the images as they are, [N]."""

    def compute(part: slice) -> Tensor:
        return margins(judge(samples[part].pixels()), samples[part].labels)

    return torch.cat([found for _, found in Batches(batch_size).of(compute, len(samples))])


def attack_margins(attack: Attacker, samples: Samples, setting: Setting, done: Done = untold) -> Tensor:
    """Margins under one attack, [N]; each perturbation is verified against the threat model. done: told of images."""
    parts = Batches(setting.batch_size).of(lambda part: _judged(attack, samples[part], setting), len(samples), done)
    return torch.cat([found for _, found in parts])


def run(
    attacks: Sequence[Attacker], samples: Samples, setting: Setting, ledger: Ledger, save: Callable[[Ledger], None]
) -> None:
    """Go on from `ledger` to the end of the sequence; `save` sees it after every batch of every attack."""
    for number, attack in enumerate(attacks, 1):
        todo = ((ledger.broken_by == SURVIVED) & (ledger.done < number)).nonzero().flatten()
        for rows, found in Batches(setting.batch_size).of(
            partial(_judged_of, attack, samples, setting, todo), len(todo)
        ):
            part = todo[rows]
            ledger.margins[part] = torch.minimum(ledger.margins[part], found)
            ledger.broken_by[part[found <= 0]] = number
            ledger.done[part] = number
            save(ledger)


def _judged_of(attack: Attacker, samples: Samples, setting: Setting, todo: Tensor, rows: slice) -> Tensor:
    return _judged(attack, samples[todo[rows]], setting)


@torch.no_grad()
def _judged(attack: Attacker, samples: Samples, setting: Setting) -> Tensor:
    """Margins that `judge` gives to what the attack finds, [N]. Where `search` takes an image for broken and `judge` does
    not (rounding, at the boundary), the attack is repeated on `judge` itself."""
    images, labels, seeds = samples.pixels(), samples.labels, noise_seeds(setting.seed, samples.ids)
    found, claimed = attack(setting.search, images, labels, setting.threat, seeds)
    doubtful = ((claimed <= 0) & (margins(setting.judge(found), labels) > 0)).nonzero().flatten()
    if len(doubtful):
        again = images[doubtful], labels[doubtful], setting.threat, seeds[doubtful.cpu()]
        found[doubtful], _ = attack(setting.judge, *again)
    setting.threat.verify(images, found)
    return margins(setting.judge(found), labels)
