"""Attacks under explicit threat models.

A new attack is one function with the signature of `worst_case` (its settings keyword-only) and one entry in `ATTACKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from epsilens.attacks.config import AttackConfig, check
from epsilens.attacks.pgd import margins, pgd, worst_case
from epsilens.attacks.threat import ThreatModel
from epsilens.randomness import noise_seeds
from epsilens.types import Images, Model, Samples

__all__ = [
    "ATTACKS",
    "Attack",
    "ThreatModel",
    "attack_margins",
    "check",
    "clean_margins",
    "margins",
    "pgd",
    "worst_case",
]


@dataclass(frozen=True)
class Attack:
    """run: (predict, images, labels, threat, seeds, *, ...) -> (adversarial images, margins)."""

    run: Callable[..., tuple[Images, Tensor]]
    source: str


ATTACKS: dict[str, Attack] = {
    "pgd": Attack(worst_case, "Madry et al. 2018, arXiv:1706.06083; worst case over iterates and restarts"),
}


@torch.no_grad()
def clean_margins(predict: Model, samples: Samples, batch_size: int) -> Tensor:
    """Margins on the images as they are, [N]."""
    return torch.cat(
        [
            margins(predict(samples[i : i + batch_size].pixels()), samples.labels[i : i + batch_size])
            for i in range(0, len(samples), batch_size)
        ]
    )


def attack_margins(predict: Model, samples: Samples, threat: ThreatModel, config: AttackConfig) -> Tensor:
    """Worst-case margins under PGD, [N]; each perturbation is verified against the threat model."""
    found = []
    for i in range(0, len(samples), config.batch_size):
        batch = samples[i : i + config.batch_size]
        _, margin = ATTACKS["pgd"].run(
            predict,
            batch.pixels(),
            batch.labels,
            threat,
            noise_seeds(config.seed, batch.ids),
            steps=config.steps,
            step_size=config.step_factor * threat.epsilon / config.steps,
            restarts=config.restarts,
        )
        found.append(margin)
    return torch.cat(found)
