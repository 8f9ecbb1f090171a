"""Networks: normalisation is the first layer, pixels in [0, 1] go in, logits come out.

A new architecture is one function `(channels, classes, *, options) -> nn.Module` and one entry in `MODELS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from epsilens.models.config import ModelConfig
from epsilens.models.resnet import imagenet_resnet18, imagenet_resnet50, resnet18, resnet50, small_resnet
from epsilens.registry import choose, options
from epsilens.types import Images


@dataclass(frozen=True)
class Architecture:
    """A factory and where it comes from."""

    build: Callable[..., nn.Module]
    source: str


MODELS: dict[str, Architecture] = {
    "small_resnet": Architecture(small_resnet, "He et al. 2016, arXiv:1512.03385, one block a stage"),
    "resnet18": Architecture(resnet18, "He et al. 2016, arXiv:1512.03385, stem for small images"),
    "resnet50": Architecture(resnet50, "He et al. 2016, arXiv:1512.03385, stem for small images"),
    "imagenet_resnet18": Architecture(imagenet_resnet18, "He et al. 2016, arXiv:1512.03385, as torchvision has it"),
    "imagenet_resnet50": Architecture(imagenet_resnet50, "He et al. 2016, arXiv:1512.03385, as torchvision has it"),
}


class Normalise(nn.Module):
    """(x - mean) / std by channel. No clamp: it would zero the gradient of saturated pixels."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: Images) -> Tensor:
        return (images - self.mean) / self.std


def check(config: ModelConfig) -> None:
    """Raises ConfigError for an unknown architecture or wrong options."""
    options(choose(MODELS, config.name, "model.name").build, config.options, "model.options")


def layers(config: ModelConfig) -> int:
    """How many convolutions and linear layers the network has. Raises ConfigError as `check` does."""
    factory = choose(MODELS, config.name, "model.name").build
    with torch.device("meta"):  # shapes only, no memory
        network = factory(3, 2, **options(factory, config.options, "model.options"))
    return sum(weight.dim() > 1 for weight in network.parameters())


def build(
    name: str, given: Mapping[str, Any], classes: int, mean: Sequence[float], std: Sequence[float], seed: int
) -> nn.Sequential:
    """A freshly initialised network with its normalisation; the weights depend on `seed` alone.

    mean, std: one number a channel, in [0, 1] pixel units.
    """
    factory = choose(MODELS, name, "model.name").build
    checked = options(factory, given, "model.options")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = factory(len(mean), classes, **checked)
    return nn.Sequential(Normalise(mean, std), network)
