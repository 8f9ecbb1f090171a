"""A network that has learned nothing: the same architecture with fresh weights (Adebayo et al. 2018, arXiv:1810.03292)."""

from __future__ import annotations

from copy import deepcopy
from typing import Literal

import torch
from torch import Tensor, nn

from epsilens.errors import ConfigError, DataError
from epsilens.randomness import derive


def randomised(network: nn.Module, seed: int, layers: int | Literal["all"] = "all") -> nn.Module:
    """A copy whose layers are initialised anew, from `seed` alone, in the way of their own `reset_parameters`.

    layers: how many convolutions and linear layers, counted from the output in the order in which the network names them;
    what comes after the first of these, like normalisation, is begun anew with them, and what comes before is as it was
    learned. With one seed a layer has the same fresh weights whatever the number: the network is randomised from the top
    down. Batch normalisation forgets its statistics; buffers of layers without parameters (the normalisation of the pixels)
    stay. The weights are drawn on the CPU, into contiguous memory. Neither the network nor the global generator is touched.

    Raises ConfigError for more layers than there are; DataError that names the layer that has parameters of its own and
    cannot be initialised anew: half of a network must not pass for a whole.
    """
    for name, module in network.named_modules():
        if next(module.parameters(recurse=False), None) is not None and not hasattr(module, "reset_parameters"):
            raise DataError(
                f"network: layer {name!r} ({type(module).__name__}) has parameters and no reset_parameters, so its weights "
                "cannot be randomised"
            )
    learned = {} if layers == "all" else _below(network, layers)
    devices = {tensor.device for tensor in (*network.parameters(), *network.buffers())}
    copy = deepcopy(network).cpu().to(memory_format=torch.contiguous_format)  # draws fill memory in its order
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "randomised"))
        for module in copy.modules():
            getattr(module, "reset_parameters", lambda: None)()
    copy.load_state_dict(learned, strict=False)
    return copy.to(devices.pop()) if len(devices) == 1 else copy


def _below(network: nn.Module, layers: int) -> dict[str, Tensor]:
    """Parameters and buffers of what comes before the last `layers` convolutions and linear layers."""
    begun = [(name, module) for name, module in network.named_modules() if hasattr(module, "reset_parameters")]
    weighing = [i for i, (_, part) in enumerate(begun) if any(w.dim() > 1 for w in part.parameters(recurse=False))]
    if layers > len(weighing):
        raise ConfigError(
            f"params.yaml: score.metrics.randomisation: layers: found {layers}, expected 1 to {len(weighing)}, the "
            "convolutions and linear layers of this network, or all"
        )
    below = begun[: weighing[-layers]]
    parts = (
        (name, (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))) for name, part in below
    )
    return {f"{name}.{key}": value for name, tensors in parts for key, value in tensors}
