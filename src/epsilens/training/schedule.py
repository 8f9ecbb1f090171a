"""Learning-rate factors in [0, 1] as functions of progress, the share of all steps already taken."""

from __future__ import annotations

from epsilens.training.config import TrainConfig


def one_cycle(progress: float, warmup: float) -> float:
    """Linear from 0 to 1 at `warmup`, then linear to 0 (Smith and Topin 2017, arXiv:1708.07120, without the momentum)."""
    return progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)


def multi_step(progress: float, milestones: tuple[float, ...]) -> float:
    """1, divided by ten at each milestone passed."""
    return 0.1 ** sum(progress >= milestone for milestone in milestones)


def learning_rate(progress: float, config: TrainConfig) -> float:
    """The learning rate at `progress` in [0, 1)."""
    if config.schedule == "one_cycle":
        return config.learning_rate * one_cycle(progress, config.warmup)
    return config.learning_rate * multi_step(progress, config.milestones)
