"""Threat models: which perturbations count as small. Budgets are converted to pixel units here, and nowhere else."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from robustness.attack_steps import AttackerStep, L2Step, LinfStep
from torch import Tensor

from epsilens.errors import ConfigError, NumericError
from epsilens.types import Images

UNITS = {"linf": 1 / 255, "l2": 1.0}  # of a budget as the literature writes it, in pixel units


class _L2Step(L2Step):
    """That of `robustness`, for gradients of any memory layout and any size: overconfident networks have tiny ones."""

    def step(self, x: Images, grad: Tensor) -> Images:
        largest = norms(grad, "linf").view(-1, 1, 1, 1).clamp_min(torch.finfo(grad.dtype).tiny)
        direction = grad / largest  # so that no square of it underflows
        return x + direction / norms(direction, "l2").view(-1, 1, 1, 1).clamp_min(1) * self.step_size


STEPS: dict[str, type[AttackerStep]] = {"linf": LinfStep, "l2": _L2Step}
ROUNDING = 2.5e-7  # of x + delta - x in 32 bits for pixels in [0, 1], a pixel


@dataclass(frozen=True)
class ThreatModel:
    """All x' in [0, 1] with ||x' - x|| <= epsilon; `epsilon` in pixel units."""

    norm: str
    epsilon: float

    @classmethod
    def of(cls, norm: str, budget: float) -> ThreatModel:
        """From a budget as it is written: Linf in 1/255, L2 in [0, 1]-pixel norm.

        Raises ConfigError for an unknown norm and for a budget that is negative, not finite, or (Linf) above 255.
        """
        if norm not in UNITS:
            raise ConfigError(f"found norm {norm!r}, known are {', '.join(UNITS)}")
        if not math.isfinite(budget) or budget < 0 or (norm == "linf" and budget > 255):
            allowed = "0 to 255, in 1/255" if norm == "linf" else "0 or more, in [0, 1]-pixel norm"
            raise ConfigError(f"found budget {budget!r}, allowed for {norm} is {allowed}")
        return cls(norm, budget * UNITS[norm])

    def steps(self, images: Images, step_size: float | Tensor) -> AttackerStep:
        """The step and projection of `robustness` around `images`, step size in pixel units, one or [N, 1, 1, 1]."""
        return STEPS[self.norm](images, self.epsilon, step_size)

    def random_start(self, images: Images, noise: Tensor) -> Images:
        """A point of the threat model from uniform noise in [0, 1): uniform in the cube for Linf, on the sphere for L2
        (as in robustness), then clipped to [0, 1]."""
        direction = 2 * noise - 1
        if self.norm == "l2":
            normal = torch.special.ndtri(noise.clamp(1e-6, 1 - 1e-6))
            direction = normal / norms(normal, "l2").view(-1, 1, 1, 1)
        return (images + self.epsilon * direction).clamp(0, 1)

    def measure(self, images: Images, adversarial: Images) -> Tensor:
        """Norm of each perturbation, [N], in pixel units."""
        return norms(adversarial - images, self.norm)

    def verify(self, images: Images, adversarial: Images) -> None:
        """Raises NumericError if a perturbation lies outside the threat model, leaves [0, 1], or is NaN."""
        if len(images) == 0:
            return
        largest = float(self.measure(images, adversarial).max())
        low, high = float(adversarial.min()), float(adversarial.max())
        # Written so that a NaN fails every comparison and so raises.
        slack = ROUNDING * (1 if self.norm == "linf" else math.sqrt(images[0].numel())) + 1e-6 * self.epsilon
        if not (largest <= self.epsilon + slack and low >= 0 and high <= 1):
            raise NumericError(
                f"an attack left its threat model: largest {self.norm} norm {largest:.6f} (allowed {self.epsilon:.6f}), "
                f"pixels {low:.4f} to {high:.4f} (allowed 0 to 1)"
            )


def norms(delta: Tensor, norm: str) -> Tensor:
    """Norm of each perturbation, [N]."""
    flat = delta.flatten(1)
    return flat.abs().amax(dim=1) if norm == "linf" else torch.linalg.vector_norm(flat, dim=1)
