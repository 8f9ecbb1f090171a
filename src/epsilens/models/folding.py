"""Batch norm folded into convolutions, for networks that are differentiated or read in eval mode many times over."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights


class Folded:
    """A frozen copy of a network in eval mode, with each batch norm folded into the convolution before it.

    `predict` is the copy: the same function up to rounding, with less to read and write. `refresh` takes over the
    network's present weights and batch statistics. torch.fx finds which batch norm follows which convolution; the copy's
    own code runs. What cannot be found or is not safe to fold (shared or parametrised weights, hooks, a second reader, a
    subclass with a forward of its own) is copied as it is.

    dtype: of the weights of convolutions and linear layers, where autocast would convert them each time.
    """

    predict: nn.Module

    def __init__(self, network: nn.Module, dtype: torch.dtype | None = None) -> None:
        self.predict = copy.deepcopy(network).eval().requires_grad_(False)
        self._network = network
        self._folds = _pairs(self.predict)
        for conv, norm in self._folds.items():
            own = self.predict.get_submodule(conv)
            assert isinstance(own, nn.Conv2d)
            if own.bias is None:
                own.bias = nn.Parameter(own.weight.new_zeros(own.out_channels), requires_grad=False)
            self.predict.set_submodule(norm, nn.Identity())
        for module in self.predict.modules():
            if dtype is not None and isinstance(module, nn.Conv2d | nn.Linear):
                module.to(dtype)
        self.predict.eval()
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Make `predict` the function that the network is now, in eval mode."""
        held, values = _tensors(self.predict), _tensors(self._network)
        for conv, norm in self._folds.items():
            eps = self._network.get_submodule(norm).eps
            statistics = values[f"{norm}.running_mean"], values[f"{norm}.running_var"], eps
            scale = values.get(f"{norm}.weight"), values.get(f"{norm}.bias")
            weights = values.pop(f"{conv}.weight"), values.pop(f"{conv}.bias", None)
            weight, bias = fuse_conv_bn_weights(*weights, *statistics, *scale)  # type: ignore[arg-type]  # eps is a float
            held[f"{conv}.weight"].copy_(weight)
            held[f"{conv}.bias"].copy_(bias)
        for name, value in values.items():
            if name in held:
                held[name].copy_(value)


def _pairs(network: nn.Module) -> dict[str, str]:
    """For each convolution whose batch norm can be folded into it: the name of that batch norm."""
    try:
        graph = fx.Tracer.trace(_Tracer(), network)
    except (
        Exception
    ):  # control flow that depends on values: fx raises types of its own, and whatever the network raises
        return {}
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    owners = Counter(id(value) for _, value in network.named_parameters(remove_duplicate=False))

    def alone(name: str) -> bool:
        module = network.get_submodule(name)
        hooks = (
            module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        )
        shared = any(owners[id(value)] > 1 for value in module.parameters())
        return calls[name] == 1 and name not in read and not (hooks or shared or parametrize.is_parametrized(module))

    pairs = {}
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv, norm = str(before.target), str(node.target)
        plain = type(network.get_submodule(conv)) is nn.Conv2d and _is_batch_norm(network.get_submodule(norm))
        if plain and alone(conv) and alone(norm):
            pairs[conv] = norm
    return pairs


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_batch_norm(m) or super().is_leaf_module(m, module_qualified_name)


def _is_batch_norm(module: nn.Module) -> bool:
    """Whether it is, in eval mode, batch norm with statistics: a subclass has to say so by `batch_norm_in_eval`."""
    known = type(module) is nn.BatchNorm2d or getattr(module, "batch_norm_in_eval", False)
    return known and getattr(module, "running_mean", None) is not None


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, under each of their names."""
    return dict(network.named_parameters(remove_duplicate=False)) | dict(network.named_buffers(remove_duplicate=False))
