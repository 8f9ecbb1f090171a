"""A network that has learned nothing: the same architecture with fresh weights (Adebayo et al. 2018, arXiv:1810.03292)."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from epsilens.errors import DataError
from epsilens.randomness import derive


def randomised(network: nn.Module, seed: int) -> nn.Module:
    """A copy whose every layer is initialised anew, from `seed` alone, in the way of its own `reset_parameters`.

    Batch normalisation forgets its statistics; buffers of layers without parameters (the normalisation of the pixels) stay.
    The weights are drawn on the CPU, into contiguous memory. Neither the network nor the global generator is touched. Raises
    DataError that names the layer that has parameters of its own and cannot be initialised anew: half of a network must not
    pass for a whole.
    """
    for name, module in network.named_modules():
        if next(module.parameters(recurse=False), None) is not None and not hasattr(module, "reset_parameters"):
            raise DataError(
                f"network: layer {name!r} ({type(module).__name__}) has parameters and no reset_parameters, so its weights "
                "cannot be randomised"
            )
    devices = {tensor.device for tensor in (*network.parameters(), *network.buffers())}
    copy = deepcopy(network).cpu().to(memory_format=torch.contiguous_format)  # draws fill memory in its order
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "randomised"))
        for module in copy.modules():
            getattr(module, "reset_parameters", lambda: None)()
    return copy.to(devices.pop()) if len(devices) == 1 else copy
