"""The gate against masked gradients: whether a robust accuracy may be believed (Carlini et al. 2019, arXiv:1902.06705;
the flags of AutoAttack and RobustBench).

A check is a number, a limit above which it fails, and an entry in `CHECKS`; a new one is measured in `probe`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from epsilens.attacks.losses import cross_entropy, margins
from epsilens.attacks.pgd import pgd, worst_case
from epsilens.attacks.threat import ThreatModel
from epsilens.batches import Batches
from epsilens.types import Images, Labels, Logits, Model, NoiseSeeds

CARLINI, AUTOATTACK = "Carlini et al. 2019, arXiv:1902.06705", "Croce and Hein 2020, arXiv:2003.01690"
WONG = "Wong et al. 2020, arXiv:2001.03994"


@dataclass(frozen=True)
class Check:
    """What is measured (label), above which value it fails (limit), and who asks for it.

    of_images: whether the number is a share of the images measured, so that one image alone may not decide.
    """

    label: str
    limit: float
    source: str
    of_images: bool = True


# Limits: gap, twice the 3.5 to 4.5 points of networks known to be sound; square and random_output, those of AutoAttack's own
# flags; large_budget, half of chance for ten classes; the others, what sound networks stay far below.
CHECKS: dict[str, Check] = {
    "gap": Check("accuracy under PGD minus accuracy under the ensemble", 0.08, "RobustBench, arXiv:2010.09670"),
    "square": Check("share broken by Square alone, after attacks with gradients", 0.002, AUTOATTACK),
    "zero_gradients": Check("share of images where the loss has no gradient at all", 0.01, AUTOATTACK),
    "saturated_gradients": Check(
        "share of pixels at 0 or 1 with a gradient only inside", 0.01, CARLINI, of_images=False
    ),
    "random_output": Check(
        "largest difference of two passes, relative to the logits", 1e-4, AUTOATTACK, of_images=False
    ),
    "probabilities": Check("share of images whose output is a distribution, not logits", 0.5, AUTOATTACK),
    "loss_stalls": Check("fall of the margin that PGD lacks of one full step's", 0.05, CARLINI, of_images=False),
    "large_budget": Check("accuracy under PGD where every image may become grey", 0.05, CARLINI),
    "restarts": Check("accuracy that four random restarts of PGD take away", 0.05, CARLINI),
    "catastrophic_overfitting": Check("epochs in which robust validation accuracy collapsed", 0, WONG, of_images=False),
}

INSIDE = 1 / 16  # of the way from 0 to 1: beyond clamps a little inside the range
RESTARTS = 4


def probe(
    predict: Model, images: Images, labels: Labels, threat: ThreatModel, seeds: NoiseSeeds, *,
    steps: int, step_factor: float, batch_size: int,
) -> dict[str, float]:  # fmt: skip
    """The checks that need the network alone, by name; PGD with the settings of the study.

    predict: the network itself, for what is folded or compiled may hide what is looked for.
    """

    def look(part: slice) -> dict[str, Tensor]:
        return _look(predict, images[part], labels[part], threat, seeds[part], steps, step_factor)

    each = [found for _, found in Batches(batch_size).of(look, len(images))]
    found = {name: torch.cat([part[name] for part in each]).double() for name in each[0]}
    mean = {name: float(values.mean()) for name, values in found.items()}
    fall = {steps: mean["margin"] - mean.pop(f"margin after {steps}") for steps in ("one step", "all steps")}
    many, single = fall["all steps"], fall["one step"]
    mean.pop("margin")
    return mean | {
        "random_output": float(found["random_output"].max()),
        "loss_stalls": 1.0 if many <= 0 else max(0.0, 1 - many / max(many, single)),
        "restarts": mean.pop("once") - mean["restarts"],
    }


def _look(
    predict: Model, x: Images, y: Labels, threat: ThreatModel, seeds: NoiseSeeds, steps: int, step_factor: float
) -> dict[str, Tensor]:
    """What `probe` makes its numbers of, [N] each."""
    attack = {"steps": steps, "step_factor": step_factor}
    grey = ThreatModel(threat.norm, 0.5 if threat.norm == "linf" else 0.5 * math.sqrt(x[0].numel()))

    @torch.no_grad()
    def margin(count: int, size: float) -> Tensor:  # the cross entropy of a confident network is 0 in 32 bits
        last = pgd(predict, x, y, threat, x, steps=count, step_size=size) if count else x
        return margins(predict(last), y)

    return {
        "zero_gradients": _gradient(predict, x, y, cross_entropy).flatten(1).abs().amax(dim=1) == 0,
        "saturated_gradients": _saturation(predict, x, y),
        "random_output": _difference(predict, x),
        "probabilities": _distributions(predict, x),
        "margin": margin(0, 0.0),
        "margin after one step": margin(1, threat.epsilon),
        "margin after all steps": margin(steps, step_factor * threat.epsilon / steps),
        "large_budget": _survivors(predict, x, y, grey, seeds, **attack, restarts=1),
        "once": _survivors(predict, x, y, threat, seeds, **attack, restarts=1),
        "restarts": _survivors(predict, x, y, threat, seeds, **attack, restarts=1 + RESTARTS),
    }


def verdict(measured: Mapping[str, float], images: int) -> dict[str, Any]:
    """`sound`, the `flags` that failed, and every check with its value, limit and source; what was not measured is None.

    images: how many were measured. One image alone never fails a check that counts images.
    """
    checks = []
    for name, check in CHECKS.items():
        limit = max(check.limit, 1 / images) if check.of_images else check.limit
        value = measured.get(name)
        failed = value is not None and not value <= limit  # so that NaN fails
        known = {"name": name, "label": check.label, "source": check.source}
        checks.append({**known, "limit": limit, "value": value, "failed": failed})
    flags = [check["name"] for check in checks if check["failed"]]
    return {"sound": not flags, "flags": flags, "checks": checks}


def _survivors(
    predict: Model, images: Images, labels: Labels, threat: ThreatModel, seeds: NoiseSeeds, **attack: Any
) -> Tensor:
    found, _ = worst_case(predict, images, labels, threat, seeds, **attack)
    threat.verify(images, found)
    with torch.no_grad():
        return margins(predict(found), labels) > 0


def _gradient(predict: Model, images: Images, labels: Labels, loss: Callable[[Logits, Labels], Tensor]) -> Tensor:
    inputs = images.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(loss(predict(inputs), labels).sum(), inputs)[0]


def _saturation(predict: Model, images: Images, labels: Labels) -> Tensor:
    """Images made of 0 and 1 only, against the same a little inside: a clamp in the network shows as gradients that are
    there inside and gone at the bound. On margins, so that a saturated softmax is not mistaken for it."""
    bound = images.round()
    at, inside = (_gradient(predict, x, labels, margins) for x in (bound, bound.clamp(INSIDE, 1 - INSIDE)))
    return ((at == 0) & (inside != 0)).flatten(1).double().mean(dim=1)


@torch.no_grad()
def _difference(predict: Model, images: Images) -> Tensor:
    first, second = predict(images), predict(images)
    return (first - second).norm(dim=1) / first.norm(dim=1).clamp_min(1e-10)


@torch.no_grad()
def _distributions(predict: Model, images: Images) -> Tensor:
    logits = predict(images)
    return (logits >= 0).all(dim=1) & ((logits.sum(dim=1) - 1).abs() < 1e-5)
