"""The worst case over a sequence of attacks, each on the images that withstood those before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from epsilens.attacks.losses import margins
from epsilens.attacks.threat import ThreatModel
from epsilens.randomness import noise_seeds
from epsilens.types import Model, Samples

SURVIVED, CLEAN = -1, 0  # in `broken_by`; attack number k of the sequence is k + 1


@dataclass
class Ledger:
    """What is known of each image, [N] each."""

    margins: Tensor  # the smallest that any attack has found
    broken_by: Tensor  # int64: SURVIVED, CLEAN (wrong without an attack), or 1 + the number of the attack
    done: Tensor  # int64: how many attacks of the sequence it has gone through


def open_ledger(judge: Model, samples: Samples, batch_size: int) -> Ledger:
    """Before any attack."""
    found = clean_margins(judge, samples, batch_size)
    broken_by = torch.where(found > 0, SURVIVED, CLEAN)
    return Ledger(found, broken_by, torch.zeros_like(broken_by))


@torch.no_grad()
def clean_margins(judge: Model, samples: Samples, batch_size: int) -> Tensor:
    """Margins on the images as they are, [N]."""
    parts = torch.arange(len(samples)).split(batch_size)
    return torch.cat([margins(judge(samples[part].pixels()), samples[part].labels) for part in parts])


def attack_margins(
    attack: Callable[..., Any], search: Model, judge: Model, samples: Samples, threat: ThreatModel,
    *, seed: int, batch_size: int,
) -> Tensor:  # fmt: skip
    """Margins under one attack, [N]; each perturbation is verified against the threat model.

    search: the network in the form that the attack may use (folded, compiled); judge: the network itself, which has the
    last word on what the attack found. Noise is per image.
    """
    parts = torch.arange(len(samples)).split(batch_size)
    return torch.cat([_judged(attack, search, judge, samples[part], threat, seed) for part in parts])


def run(
    attacks: Mapping[str, Callable[..., Any]], search: Model, judge: Model, samples: Samples, threat: ThreatModel,
    ledger: Ledger, *, seed: int, batch_size: int, save: Callable[[Ledger], None],
) -> None:  # fmt: skip
    """Go on from `ledger` to the end of the sequence; `save` sees it after every batch of every attack.

    search, judge: as in `attack_margins`. An image counts as broken where `judge` says so.
    """
    for number, attack in enumerate(attacks.values()):
        todo = ((ledger.broken_by == SURVIVED) & (ledger.done <= number)).nonzero().flatten()
        for part in todo.split(batch_size) if len(todo) else ():
            found = _judged(attack, search, judge, samples[part], threat, seed)
            ledger.margins[part] = torch.minimum(ledger.margins[part], found)
            ledger.broken_by[part[found <= 0]] = number + 1
            ledger.done[part] = number + 1
            save(ledger)


@torch.no_grad()
def _judged(
    attack: Callable[..., Any], search: Model, judge: Model, samples: Samples, threat: ThreatModel, seed: int
) -> Tensor:
    """Margins that `judge` gives to what the attack finds, [N]. Where `search` takes an image for broken and `judge` does
    not (rounding, at the boundary), the attack is repeated on `judge` itself."""
    images, labels, seeds = samples.pixels(), samples.labels, noise_seeds(seed, samples.ids)
    found, claimed = attack(search, images, labels, threat, seeds)
    doubtful = ((claimed <= 0) & (margins(judge(found), labels) > 0)).nonzero().flatten()
    if len(doubtful):
        found[doubtful], _ = attack(judge, images[doubtful], labels[doubtful], threat, seeds[doubtful.cpu()])
    threat.verify(images, found)
    return margins(judge(found), labels)
