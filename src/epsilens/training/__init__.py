"""Adversarial training. The one room that may use another: it trains against `attacks`."""

from epsilens.training.checkpoints import Checkpoints
from epsilens.training.choices import check
from epsilens.training.config import PublishedConfig, TrainConfig, check_published, form
from epsilens.training.distribution import World, joined
from epsilens.training.engine import Epoch, Trainer, precision
from epsilens.training.fit import fit
from epsilens.training.recipes import RECIPES
from epsilens.training.schedules import SCHEDULES

__all__ = [
    "RECIPES",
    "SCHEDULES",
    "Checkpoints",
    "Epoch",
    "PublishedConfig",
    "TrainConfig",
    "Trainer",
    "World",
    "check",
    "check_published",
    "fit",
    "form",
    "joined",
    "precision",
]
