"""One network in training: steps, epochs, validation, and the state from which it continues to the same bits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsilens.attacks import ThreatModel, margins, pgd
from epsilens.errors import NumericError
from epsilens.progress import progress
from epsilens.randomness import derive
from epsilens.training.augment import augment
from epsilens.training.choices import recipe, schedule
from epsilens.training.config import TrainConfig
from epsilens.training.distribution import World
from epsilens.training.recipes import Batch, standard
from epsilens.types import Model, Samples

VALIDATION_BATCH = 250  # images; larger ones are slower on a CPU
VALIDATION_STEP_FACTOR = 2.5  # step size = 2.5 * epsilon / steps, as robustness evaluates
CHECKED_EVERY = 50  # steps between looks at the losses, each of which makes the host wait for a GPU


class View(Protocol):
    """A frozen copy of a network in eval mode that can be brought up to date; `models.folding.Folded` is one."""

    predict: nn.Module

    def refresh(self) -> None:
        """Take over the network's present weights."""
        ...


@dataclass(frozen=True)
class Epoch:
    """One line of a training history. Accuracies are of the averaged weights, on the validation split, in [0, 1]."""

    epoch: int
    loss: float
    learning_rate: float
    validation_accuracy: float
    validation_robust_accuracy: float  # PGD at the training budget; the plain accuracy at epsilon 0


class Trainer:
    """A network in training, at a place in its run: `number` epochs are done and `step` steps of the present one.

    All randomness follows from (seed, epoch, step), so that the place is all there is to know of it.

    view: (network, type of its weights or None) -> the frozen copy that is attacked.
    compiled: wraps a network for speed (torch.compile), at unchanged mathematics.
    """

    def __init__(
        self,
        network: nn.Module,
        threat: ThreatModel,
        config: TrainConfig,
        *,
        seed: int,
        world: World,
        view: Callable[[nn.Module, torch.dtype | None], View],
        compiled: Callable[[nn.Module], Model] = lambda network: network,
    ) -> None:
        network = network.to(device=world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs
        self.network = world.synchronised(network)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        pairs = list(zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._averaged = [mean for mean, _ in floats], [value for _, value in floats]
        self._counted = [pair for pair in pairs if not pair[0].is_floating_point()]
        self.threat, self.config, self.seed, self.world = threat, config, seed, world
        self.number, self.step, self.losses = 0, 0, torch.zeros(0)
        self.autocast = precision(config, world.device) == "bfloat16"
        dtype = torch.bfloat16 if self.autocast else None
        self._attacked, self._judged = view(self.network, dtype), view(self.average, dtype)
        self._trained = compiled(world.parallel(self.network))
        self._attack_predict, self._judge_predict = compiled(self._attacked.predict), compiled(self._judged.predict)
        self._loss = recipe(config) if threat.epsilon else standard
        self._factor = schedule(config)
        self._criterion = partial(F.cross_entropy, label_smoothing=config.label_smoothing)
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=True,
            fused=True,
        )

    def epoch(self, train: Samples, validation: Samples, after_step: Callable[[], None]) -> Epoch:
        """The rest of the present epoch, and its validation; `train` and `validation` are on the device.

        Raises NumericError at a loss that is not finite (on a GPU up to CHECKED_EVERY steps later).
        """
        size = min(self.config.batch_size, len(train))
        count = len(train) // size
        if self.step == 0:
            self.losses = torch.zeros(count, device=self.world.device)
        self.network.train()
        what = f"epoch {self.number + 1}/{self.config.epochs}"
        with progress(what, count, "steps", begun=self.step, shown=self.world.first) as done:
            for batch in self._batches(train, size):
                taken = self.number * count + self.step
                self.losses[self.step] = self.descend(batch, self._rate(taken, count), taken)
                self.step += 1
                if self.world.device == "cpu" or self.step % CHECKED_EVERY == 0 or self.step == count:
                    self.check_losses()
                after_step()
                done(1)
        rate = self._rate(self.number * count + count - 1, count)
        accuracy, robust = self.validate(validation)
        self.number, self.step = self.number + 1, 0
        return Epoch(self.number, float(self.losses.mean()), rate, accuracy, robust)

    def _rate(self, taken: int, count: int) -> float:
        """The learning rate after `taken` steps, of `count` an epoch."""
        return self.config.learning_rate * self._factor(taken / (self.config.epochs * count))

    def check_weights(self) -> None:
        """Raises NumericError if a weight or an average is not finite: an update may overflow after a finite loss."""
        for tensors in self._averaged:
            if not torch.stack([tensor.isfinite().all() for tensor in tensors]).all():
                raise NumericError(f"training: a weight is not finite in epoch {self.number + 1}, step {self.step}")

    def check_losses(self) -> None:
        """Raises NumericError if a loss of this epoch is not finite."""
        wrong = (~self.losses[: self.step].isfinite()).nonzero()
        if len(wrong):
            step = int(wrong[0])
            raise NumericError(
                f"training: the loss is {self.losses[step].item()} in epoch {self.number + 1}, step {step + 1}"
            )

    def _batches(self, train: Samples, size: int) -> Iterator[Batch]:
        """The epoch's full batches from the present step on, this process's share of each.

        The last, smaller one is left out. Draws are made for the global batch, whoever trains on which part of it.
        """
        g = torch.Generator(self.world.device)
        g.manual_seed(derive(self.seed, "order", self.number))
        order = torch.randperm(len(train), generator=g, device=self.world.device)
        for i in range(self.step * size, len(train) - size + 1, size):
            seed = derive(self.seed, "step", self.number, i // size)
            g.manual_seed(seed)
            torch.manual_seed(seed + self.world.rank)  # for layers with noise of their own (dropout)
            index = order[i : i + size]
            images = augment(train.images[index], crop=self.config.crop, flip=self.config.flip, generator=g)
            pixels = self.world.part(images).to(torch.float32) / 255
            whole = images.shape

            def noise(whole: torch.Size = whole, g: torch.Generator = g) -> Tensor:
                return self.world.part(torch.rand(whole, generator=g, device=g.device))

            yield Batch(pixels, self.world.part(train.labels[index]), noise)

    def descend(self, batch: Batch, rate: float, taken: int) -> Tensor:
        """One step of the weights and their average; the loss over the global batch."""
        if self.threat.epsilon:
            self._attacked.refresh()
        with torch.autocast(self.world.device.partition(":")[0], torch.bfloat16, enabled=self.autocast):
            loss = self._loss(self._trained, self._attack_predict, batch, self.threat, self._criterion)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()
        self._update_average(taken)
        return self.world.sum(loss.detach()) / self.world.size

    @torch.no_grad()
    def _update_average(self, taken: int) -> None:
        """Exponential average of weights and batch statistics; the decay grows so that the first steps are forgotten."""
        decay = min(self.config.averaging, (1 + taken) / (10 + taken))
        torch._foreach_lerp_(*self._averaged, 1 - decay)  # type: ignore[attr-defined]  # as torch.optim.swa_utils has it
        for mean, value in self._counted:
            mean.copy_(value)

    def validate(self, validation: Samples) -> tuple[float, float]:
        """Accuracy of the averaged weights, clean and under PGD at the training budget."""
        self._judged.refresh()
        predict, steps = self._judge_predict, self.config.validation_steps
        size = VALIDATION_STEP_FACTOR * self.threat.epsilon / steps
        right = torch.zeros(2, device=self.world.device)
        mine = validation[self.world.rank :: self.world.size]
        with torch.autocast(self.world.device.partition(":")[0], torch.bfloat16, enabled=self.autocast):
            for i in range(0, len(mine), VALIDATION_BATCH):
                images, labels = mine[i : i + VALIDATION_BATCH].pixels(), mine.labels[i : i + VALIDATION_BATCH]
                adversarial = pgd(predict, images, labels, self.threat, images, steps=steps, step_size=size)
                with torch.no_grad():
                    found = [(margins(predict(x), labels) > 0).sum() for x in (images, adversarial)]
                right += torch.stack(found)
        clean, robust = (self.world.sum(right) / len(validation)).tolist()
        return clean, robust

    def state(self) -> dict[str, Any]:
        """All that the rest of the run depends on."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "number": self.number,
            "step": self.step,
            "losses": self.losses,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.number, self.step = state["number"], state["step"]
        self.losses = state["losses"].to(self.world.device)


def precision(config: TrainConfig, device: str) -> str:
    """float32 or bfloat16: what `auto` is on a device."""
    if config.precision != "auto":
        return config.precision
    return (
        "bfloat16"
        if device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
        else "float32"
    )
