"""The same network at another temperature."""

from __future__ import annotations

from torch import nn

from epsilens.types import Images, Logits


class Tempered(nn.Module):
    """Logits divided by a temperature (Guo et al. 2017, arXiv:1706.04599): the same predictions, less sure above 1."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, images: Images) -> Logits:
        return self.network(images) / self.temperature
