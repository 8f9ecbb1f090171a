"""Adversarial training (Madry et al. 2018, arXiv:1706.06083) with weight averaging and exact resumption."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from epsilens.attacks import ThreatModel, margins, pgd
from epsilens.errors import NumericError
from epsilens.randomness import generator
from epsilens.training.augment import augment
from epsilens.training.checkpoints import Checkpoints
from epsilens.training.config import TrainConfig
from epsilens.training.modes import frozen
from epsilens.training.schedule import learning_rate
from epsilens.types import Images, Labels, Samples


@dataclass(frozen=True)
class Epoch:
    """One line of a training history. Accuracies are of the averaged weights, on the validation split, in [0, 1]."""

    epoch: int
    loss: float
    learning_rate: float
    validation_accuracy: float
    validation_robust_accuracy: float  # PGD at the training budget; the plain accuracy at epsilon 0


class Trainer:
    """A network in training. All its randomness follows from (seed, epoch), so that an epoch can be repeated alone."""

    def __init__(self, network: nn.Module, threat: ThreatModel, config: TrainConfig, *, seed: int) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.threat, self.config, self.seed = threat, config, seed
        self.device = next(network.parameters()).device
        self.optimiser = torch.optim.SGD(
            network.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=True,
        )

    def epoch(self, number: int, train: Samples, validation: Samples) -> Epoch:
        """Train for one epoch and validate. Raises NumericError at the first loss that is not finite."""
        count = max(1, len(train) // self.config.batch_size)
        batches = tqdm(self._batches(number, train), f"epoch {number + 1}", count, leave=False, disable=None)
        total = torch.zeros((), device=self.device)
        rate = 0.0
        noise = generator(self.seed, "start", number)
        self.network.train()
        for step, (images, labels) in enumerate(batches):
            taken = number * count + step
            rate = learning_rate(taken / (self.config.epochs * count), self.config)
            loss = self._step(images.to(torch.float32) / 255, labels, noise, rate, taken)
            if not loss.isfinite():
                raise NumericError(f"training: the loss is {loss.item()} in epoch {number + 1}, step {step + 1}")
            total += loss
        accuracy, robust = self.validate(validation)
        return Epoch(number + 1, float(total) / count, rate, accuracy, robust)

    def _batches(self, number: int, train: Samples) -> Iterator[tuple[Tensor, Labels]]:
        """Full batches of one epoch, uint8 [B, C, H, W]: the last, smaller one is left out unless it is the only one."""
        g = generator(self.seed, "epoch", number)
        size = min(self.config.batch_size, len(train))
        order = torch.randperm(len(train), generator=g)
        for i in range(0, len(train) - size + 1, size):
            index = order[i : i + size]
            images = augment(
                train.images[index].to(self.device), crop=self.config.crop, flip=self.config.flip, generator=g
            )
            yield images, train.labels[index].to(self.device)

    def _step(self, images: Images, labels: Labels, noise: torch.Generator, rate: float, taken: int) -> Tensor:
        adversarial = self._attack(images, labels, noise)
        loss = F.cross_entropy(self.network(adversarial), labels, label_smoothing=self.config.label_smoothing)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()
        self._update_average(taken)
        return loss.detach()

    def _attack(self, images: Images, labels: Labels, noise: torch.Generator) -> Images:
        if self.threat.epsilon == 0:
            return images
        start = images
        if self.config.random_start:
            start = self.threat.random_start(images, torch.rand(images.shape, generator=noise).to(images))
        size = self.config.step_factor * self.threat.epsilon / self.config.steps
        with frozen(self.network) as network:
            return pgd(network, images, labels, self.threat, start, steps=self.config.steps, step_size=size)

    @torch.no_grad()
    def _update_average(self, taken: int) -> None:
        """Exponential average of weights and batch statistics; the decay grows so that the first steps are forgotten."""
        decay = min(self.config.averaging, (1 + taken) / (10 + taken))
        for mean, value in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def validate(self, validation: Samples) -> tuple[float, float]:
        """Accuracy of the averaged weights, clean and under PGD at the training budget."""
        clean, robust = 0, 0
        size = self.config.step_factor * self.threat.epsilon / self.config.validation_steps
        for i in range(0, len(validation), 250):
            batch = validation[i : i + 250]
            images, labels = batch.pixels().to(self.device), batch.labels.to(self.device)
            steps = self.config.validation_steps
            adversarial = pgd(self.average, images, labels, self.threat, images, steps=steps, step_size=size)
            with torch.no_grad():
                clean += int((margins(self.average(images), labels) > 0).sum())
                robust += int((margins(self.average(adversarial), labels) > 0).sum())
        return clean / len(validation), robust / len(validation)

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])


def fit(
    trainer: Trainer,
    train: Samples,
    validation: Samples,
    checkpoints: Checkpoints,
    on_epoch: Callable[[Epoch], None],
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Train to the end, from the last checkpoint if there is one: (state of the best epoch, history).

    The best epoch is the first with the highest robust validation accuracy; its averaged weights are returned.
    history: one dict an epoch, the fields of Epoch and `kept`.
    """
    state: dict[str, Any] = {"history": [], "best": trainer.average.state_dict()}
    found = checkpoints.load()
    if found is not None:
        state = found
        trainer.restore(state["trainer"])
        print(f"continuing after epoch {len(state['history'])}")
    for number in range(len(state["history"]), trainer.config.epochs):
        epoch = trainer.epoch(number, train, validation)
        best = max((e["validation_robust_accuracy"] for e in state["history"]), default=-1.0)
        if epoch.validation_robust_accuracy > best:
            state["best"] = copy.deepcopy(trainer.average.state_dict())
        state["history"].append(asdict(epoch))
        on_epoch(epoch)
        checkpoints.save(number + 1, {**state, "trainer": trainer.state()})
    accuracies = [e["validation_robust_accuracy"] for e in state["history"]]
    kept = accuracies.index(max(accuracies))
    history = [{**e, "kept": i == kept} for i, e in enumerate(state["history"])]
    return state["best"], history
