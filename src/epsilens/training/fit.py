"""A whole training: epochs, checkpoints, the choice of the epoch that is kept, and the ways in which it may fail."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from epsilens.errors import DataError, NumericError
from epsilens.training.checkpoints import Checkpoints
from epsilens.training.engine import Epoch, Trainer
from epsilens.types import Samples

COLLAPSE = 0.5  # of the best robust accuracy: in arXiv:2001.03994 it fell from about .4 to under .1 within an epoch
CLEAN_KEPT = 0.9  # of the clean accuracy then; if that falls too, training has merely lost its way
SURE = 3.0  # standard errors of the difference of the two accuracies: a few images more or less are no collapse

History = Sequence[Mapping[str, Any]]


def fit(
    trainer: Trainer,
    train: Samples,
    validation: Samples,
    checkpoints: Checkpoints,
    on_epoch: Callable[[Epoch], None],
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Train to the end, from the last checkpoint if there is one: (state of the best epoch, history).

    The best epoch is the first with the highest robust validation accuracy; its averaged weights are returned.
    history: one dict an epoch, the fields of Epoch and `kept`, `catastrophic_overfitting`. Only the first process of
    several writes checkpoints and is told of epochs. Raises NumericError with the last good checkpoint's place.
    """
    state: dict[str, Any] = {"history": [], "best": trainer.average.state_dict()}
    found = trainer.world.from_first(checkpoints.load() if trainer.world.first else None)
    if found is not None:
        state = found
        _restore(trainer, state.pop("trainer"))

    def save_if_due() -> None:
        if trainer.world.first and checkpoints.due():
            trainer.check_losses()
            trainer.check_weights()
            checkpoints.save(trainer.number, trainer.step, {**state, "trainer": trainer.state()})

    train, validation = train.to(trainer.world.device), validation.to(trainer.world.device)
    try:
        while trainer.number < trainer.config.epochs and not exhausted(state["history"], trainer.config.patience):
            epoch = trainer.epoch(train, validation, save_if_due)
            _take_down(state, trainer, epoch, len(validation))
            if trainer.world.first:
                on_epoch(epoch)
            save_if_due()
    except NumericError as error:
        raise NumericError(f"{error}; {_last(checkpoints)}") from None
    kept = _best(state["history"])["epoch"]
    return state["best"], [{**entry, "kept": entry["epoch"] == kept} for entry in state["history"]]


def _restore(trainer: Trainer, state: dict[str, Any]) -> None:
    try:
        trainer.restore(state)
    except (RuntimeError, ValueError, KeyError) as error:
        raise DataError(f"the last checkpoint is not of this network; delete it: {error}") from None
    _say(trainer, f"continuing after epoch {trainer.number}, step {trainer.step}")


def _take_down(state: dict[str, Any], trainer: Trainer, epoch: Epoch, images: int) -> None:
    """Add an epoch to the history, and keep its weights if they are the best."""
    history = state["history"]
    if epoch.validation_robust_accuracy > _best(history)["validation_robust_accuracy"]:
        state["best"] = copy.deepcopy(trainer.average.state_dict())
    collapsed = has_collapsed(history, epoch, images)
    if collapsed:
        _say(trainer, f"warning: catastrophic overfitting: {_fall(history, epoch)}", sys.stderr)
    state["history"] = [*history, {**asdict(epoch), "catastrophic_overfitting": collapsed}]


def exhausted(history: History, patience: int) -> bool:
    """Whether `patience` epochs in a row brought no better robust validation accuracy (0: never)."""
    return bool(patience) and len(history) - _best(history)["epoch"] >= patience


def has_collapsed(history: History, epoch: Epoch, images: int) -> bool:
    """Catastrophic overfitting: robust accuracy is below half of its best while the clean one is about what it was.

    images: how many the accuracies are of; a fall within their sampling error does not count.
    """
    best = _best(history)
    then, now = best["validation_robust_accuracy"], epoch.validation_robust_accuracy
    error = math.sqrt((abs(then) * (1 - then) + now * (1 - now)) / images)
    clean_stands = epoch.validation_accuracy >= CLEAN_KEPT * best["validation_accuracy"]
    return now < COLLAPSE * then and then - now > SURE * error and clean_stands


def _best(history: History) -> Mapping[str, Any]:
    """The first entry with the highest robust validation accuracy; before the first epoch, one that any is better than."""
    none = {"epoch": 0, "validation_accuracy": 0.0, "validation_robust_accuracy": -1.0}
    return max(history, key=lambda entry: entry["validation_robust_accuracy"], default=none)


def _fall(history: History, epoch: Epoch) -> str:
    best = _best(history)
    return (
        f"robust validation accuracy fell from {best['validation_robust_accuracy']:.3f} (epoch {best['epoch']}) to "
        f"{epoch.validation_robust_accuracy:.3f} (epoch {epoch.epoch}); the better epoch is kept"
    )


def _last(checkpoints: Checkpoints) -> str:
    newest = checkpoints.newest_first()[:1]
    return f"the last good checkpoint is {newest[0]}" if newest else "there is no checkpoint yet"


def _say(trainer: Trainer, text: str, file: Any = None) -> None:
    if trainer.world.first:
        print(text, file=file, flush=True)
