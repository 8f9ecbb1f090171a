"""Adversarial training. The one room that may use another: it trains against `attacks`."""

from epsilens.training.checkpoints import Checkpoints
from epsilens.training.config import TrainConfig
from epsilens.training.engine import Epoch, Trainer, fit
from epsilens.training.modes import frozen

__all__ = ["Checkpoints", "Epoch", "TrainConfig", "Trainer", "fit", "frozen"]
