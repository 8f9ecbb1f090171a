"""Methods that change the backward pass of ReLU, and the networks on which they would be silently wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from captum.attr import Saliency
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from epsilens.errors import ConfigError
from epsilens.types import Attributions, Images, Labels, NoiseSeeds

# Operations that are a ReLU if their lower bound, the second argument, is 0.
BOUNDED = ("clamp", "clamp_", "clamp_min", "clamp_min_", "hardtanh", "hardtanh_", "threshold", "threshold_")


def guided_backprop(network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds) -> Attributions:
    """Guided backpropagation (Springenberg et al. 2015, arXiv:1412.6806): the gradient, of which every ReLU lets pass only
    what is positive. A negative control among the methods: it hardly depends on the weights (arXiv:1810.03292)."""
    with _guided(network):
        return Saliency(network).attribute(images, target=targets, abs=False)


@contextmanager
def _guided(network: nn.Module) -> Iterator[None]:
    def guide(_: nn.Module, __: Any, output: Tensor) -> None:
        if output.requires_grad:  # not so where it does not depend on the pixels
            output.register_hook(F.relu)  # of the gradient that arrives at the output

    hooks = [module.register_forward_hook(guide) for module in network.modules() if isinstance(module, nn.ReLU)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def require_relu_modules(network: nn.Module, images: Images, key: str) -> None:
    """Raises ConfigError unless every ReLU that runs on the first image is an nn.ReLU module of its own, and there is one.

    A hook on modules misses a functional ReLU and cannot tell the sites of a shared one apart: the map would silently be
    another. Seen are relu, and clamp, hardtanh (ReLU6) and threshold with the lower bound 0, functional or not. key: the
    method's path in params.yaml. One pass of one image, without gradients.
    """
    calls: Counter[str] = Counter()
    modules = {name: module for name, module in network.named_modules() if isinstance(module, nn.ReLU)}

    def counting(name: str) -> Any:
        return lambda *_: calls.update([name])

    hooks = [module.register_forward_hook(counting(name)) for name, module in modules.items()]
    try:
        with torch.no_grad(), _Rectifiers() as seen:
            network(images[:1].detach())
    finally:
        for hook in hooks:
            hook.remove()
    lines = [f"module {name!r} runs {count} times" for name, count in calls.items() if count > 1]
    functional = seen.count - calls.total()
    lines += [f"{functional} ReLU outside an nn.ReLU module ({', '.join(sorted(seen.names))})"] * (functional > 0)
    if lines or not calls:
        found = "; ".join(lines) or "no ReLU"
        raise ConfigError(
            f"params.yaml: {key}: would be silently wrong on this network: found {found}, expected an nn.ReLU module of its "
            "own for every ReLU; remove the method, or give the network such modules"
        )


class _Rectifiers(TorchDispatchMode):
    """Counts the ReLU operations that run while it is open, inside modules and outside."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.names = 0, set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        bound = args[1] if len(args) > 1 else (kwargs or {}).get("min")
        if name in ("relu", "relu_") or (name in BOUNDED and not isinstance(bound, Tensor) and bound == 0):
            self.count += 1
            self.names.add(name)
        return func(*args, **(kwargs or {}))
