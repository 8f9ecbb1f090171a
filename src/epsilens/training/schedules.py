"""Learning-rate factors in [0, 1] as functions of progress, the share in [0, 1) of all steps already taken.

A new schedule is one function (its settings keyword-only) and one entry in `SCHEDULES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

Share = Annotated[float, Field(ge=0, lt=1)]


def one_cycle(progress: float, *, warmup: Share) -> float:
    """Linear from 0 to 1 at `warmup`, then linear to 0 (Smith and Topin 2017, arXiv:1708.07120, without the momentum)."""
    return progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)


def multi_step(progress: float, *, milestones: tuple[Share, ...]) -> float:
    """1, divided by ten at each milestone passed."""
    return 0.1 ** sum(progress >= milestone for milestone in milestones)


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts)."""
    return (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Schedule:
    """run: (progress, *, ...) -> share of the learning rate."""

    run: Callable[..., float]
    source: str


SCHEDULES: dict[str, Schedule] = {
    "one_cycle": Schedule(one_cycle, "Smith and Topin 2017, arXiv:1708.07120"),
    "multi_step": Schedule(multi_step, "He et al. 2016, arXiv:1512.03385"),
    "cosine": Schedule(cosine, "Loshchilov and Hutter 2017, arXiv:1608.03983"),
}
