"""Batch norm folded into convolutions, for networks that are differentiated or read in eval mode many times over."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights


class Folded:
    """A frozen copy of a network in eval mode, with each batch norm folded into the convolution before it.

    `predict` is the copy: the same function up to rounding, with less to read and write. `refresh` takes over the
    network's present weights and batch statistics. A network that torch.fx cannot trace is copied as it is, and so is
    a batch norm that does not follow a convolution of its own.

    dtype: of the floating-point weights of convolutions and linear layers, where autocast would convert them each time.
    """

    predict: nn.Module

    def __init__(self, network: nn.Module, dtype: torch.dtype | None = None) -> None:
        self.predict, folds = _fold(copy.deepcopy(network).eval().requires_grad_(False))
        modules = dict(network.named_modules())
        own = dict(self.predict.named_modules())
        self._folds: list[Any] = [(own[conv], modules[conv], modules[norm]) for conv, norm in folds.items()]
        folded = {f"{conv}.{name}" for conv in folds for name in ("weight", "bias")}
        held = _tensors(self.predict)
        self._copies = [
            (held[name], value) for name, value in _tensors(network).items() if name in held.keys() - folded
        ]
        for module in self.predict.modules():
            if dtype is not None and isinstance(module, nn.Conv2d | nn.Linear):
                module.to(dtype)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Make `predict` the function that the network is now, in eval mode."""
        for own, conv, norm in self._folds:
            statistics = norm.running_mean, norm.running_var, norm.eps
            weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics, norm.weight, norm.bias)
            own.weight.copy_(weight)
            own.bias.copy_(bias)
        for own, value in self._copies:
            own.copy_(value)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _BatchNorm) or super().is_leaf_module(m, module_qualified_name)


def _fold(network: nn.Module) -> tuple[nn.Module, dict[str, str]]:
    """The network without the batch norms that can be folded, and for each convolution the batch norm that followed it."""
    try:
        traced = fx.GraphModule(network, _Tracer().trace(network))
    except (
        Exception
    ):  # control flow that depends on values: fx raises types of its own, and whatever the network raises
        return network, {}
    folds = {}
    modules = dict(traced.named_modules())
    calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    for node in traced.graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], _BatchNorm):
            continue
        before = node.args[0]
        if (
            before.op == "call_module"
            and isinstance(conv := modules[before.target], nn.Conv2d)
            and len(before.users) == 1
            and calls.count(before.target) == calls.count(node.target) == 1
            and modules[node.target].track_running_stats
        ):
            if conv.bias is None:
                conv.bias = nn.Parameter(conv.weight.new_zeros(conv.out_channels), requires_grad=False)
            folds[before.target] = node.target
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.recompile()
    traced.delete_all_unused_submodules()
    return traced.eval(), folds


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return dict(network.named_parameters()) | dict(network.named_buffers())
