"""Attacks under explicit threat models.

A new attack is one function with the signature of `worst_case` (its options keyword-only) and one entry in `ATTACKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from epsilens.attacks.apgd import apgd, apgd_ce, apgd_dlr, apgd_t
from epsilens.attacks.config import AttackConfig, Member, ThreatConfig
from epsilens.attacks.ensemble import (
    SURVIVED,
    Attacker,
    Ledger,
    Setting,
    attack_margins,
    clean_margins,
    open_ledger,
    run,
)
from epsilens.attacks.fab import fab, fab_t
from epsilens.attacks.losses import margins
from epsilens.attacks.pgd import pgd, worst_case
from epsilens.attacks.square import square
from epsilens.attacks.threat import ThreatModel
from epsilens.errors import ConfigError
from epsilens.randomness import derive
from epsilens.registry import choose, options
from epsilens.types import Images, Labels, Model, NoiseSeeds

__all__ = [
    "ATTACKS",
    "STANDARD",
    "SURVIVED",
    "Attack",
    "Ledger",
    "Setting",
    "ThreatModel",
    "apgd",
    "attack_margins",
    "bound",
    "check",
    "check_classes",
    "clean_margins",
    "ensemble_name",
    "fab",
    "gate_facts",
    "margins",
    "open_ledger",
    "pgd",
    "run",
    "worst_case",
]


@dataclass(frozen=True)
class Attack:
    """run: (predict, images, labels, threat, seeds, *, ...) -> (adversarial images, margins [N])."""

    run: Callable[..., tuple[Images, Tensor]]
    source: str
    classes: int = 2  # that it needs at least
    gradients: bool = True  # whether it uses them


ATTACKS: dict[str, Attack] = {
    "pgd": Attack(worst_case, "Madry et al. 2018, arXiv:1706.06083; worst case over iterates and restarts"),
    "apgd_ce": Attack(apgd_ce, "Croce and Hein 2020, arXiv:2003.01690"),
    "apgd_dlr": Attack(apgd_dlr, "Croce and Hein 2020, arXiv:2003.01690", classes=3),
    "apgd_t": Attack(apgd_t, "Croce and Hein 2020, arXiv:2003.01690", classes=4),
    "fab_t": Attack(fab_t, "Croce and Hein 2020, arXiv:1907.02044"),
    "square": Attack(square, "Andriushchenko et al. 2020, arXiv:1912.00049", gradients=False),
}

# AutoAttack, "standard" version (Croce and Hein 2020, arXiv:2003.01690, section 5 and the authors' code).
STANDARD: dict[str, dict[str, int]] = {
    "apgd_ce": {"iterations": 100},
    "apgd_t": {"iterations": 100, "targets": 9},
    "fab_t": {"iterations": 100, "targets": 9},
    "square": {"queries": 5000},
}


def ensemble_name(members: Sequence[Member]) -> str:
    """`autoattack` for the standard protocol, attack for attack and number for number; `ensemble` for anything else."""
    given = [(member.name, member.options) for member in members]
    return "autoattack" if given == list(STANDARD.items()) else "ensemble"


def bound(name: str, given: Mapping[str, Any], key: str) -> Attacker:
    """An attack of the registry with its options; an @label gives it noise of its own.

    Raises ConfigError that lists what is wrong with the options.
    """
    attack = choose(ATTACKS, name, key)
    run = partial(attack.run, **options(attack.run, given, f"{key}.{name}"))
    label = name.partition("@")[2]

    def again(predict: Model, images: Images, labels: Labels, threat: ThreatModel, seeds: NoiseSeeds) -> Any:
        return run(predict, images, labels, threat, torch.tensor([derive(int(seed), label) for seed in seeds]))

    return again if label else run


def gate_facts(attacks: Sequence[str], ledger: Ledger, plain: Tensor) -> dict[str, float]:
    """The checks of `masking` that compare attacks: `gap` to the margins `plain` [N] under PGD, and `square`, what attacks
    without gradients broke after attacks with them (nothing, if there was none such)."""
    survived = ledger.broken_by == SURVIVED
    facts = {"gap": float((plain > 0).double().mean() - survived.double().mean())}
    with_gradients = [ATTACKS[name.partition("@")[0]].gradients for name in attacks]
    blind = [number for number, uses in enumerate(with_gradients, 1) if not uses and any(with_gradients[: number - 1])]
    if blind:
        facts["square"] = float(torch.isin(ledger.broken_by, torch.tensor(blind).to(plain.device)).double().mean())
    return facts


def check_classes(attacks: Sequence[str], classes: int) -> None:
    """Raises ConfigError that names every attack that needs more classes than there are."""
    lines = [
        f"params.yaml: attack.ensemble.attacks.{name}: needs {needed} classes or more, the data set has {classes}"
        for name in attacks
        if (needed := choose(ATTACKS, name, "attack.ensemble.attacks").classes) > classes
    ]
    if lines:
        raise ConfigError("\n".join(lines))


def check(threat: ThreatConfig, attack: AttackConfig, trained: tuple[float, ...]) -> None:
    """Raises ConfigError that names every budget the threat model does not allow, and every wrong attack or option."""
    budgets = [("sweep.epsilons", threat.norm, budget) for budget in trained]
    budgets += [(f"attack.epsilons.{norm}", norm, b) for norm, found in attack.epsilons.items() for b in found]
    lines = []
    for key, norm, budget in budgets:
        try:
            ThreatModel.of(norm, budget)
        except ConfigError as error:
            lines.append(f"params.yaml: {key}: {error}")
    if attack.epsilon not in attack.epsilons.get(threat.norm, ()):
        lines.append(
            f"params.yaml: attack.epsilon: found {attack.epsilon:g}, expected one of attack.epsilons.{threat.norm}"
        )
    for member in attack.ensemble.attacks:
        try:
            bound(member.name, member.options, "attack.ensemble.attacks")
        except ConfigError as error:
            lines.append(str(error))
    if lines:
        raise ConfigError("\n".join(lines))
