"""A network is borrowed for an explanation and given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def borrowed(network: nn.Module) -> Iterator[None]:
    """Eval mode, frozen parameters, gradients switched on; all of it restored on the way out, whatever happened.

    In training mode batch normalisation would mix the images of a batch, and learn from them.
    """
    modes = [(module, module.training) for module in network.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    try:
        network.eval().requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
