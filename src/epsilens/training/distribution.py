"""One training in several processes (torchrun), with the gradients of a single one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from epsilens.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of one training, and which of them this is. Process 0 reads checkpoints and writes results."""

    device: str
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def part(self, batch: Tensor) -> Tensor:
        """This process's equal share of a global batch `[B, ...]`. Raises ConfigError if B cannot be shared equally."""
        share, rest = divmod(len(batch), self.size)
        if rest:
            problem = f"found {len(batch)}, expected a multiple of {self.size} processes"
            raise ConfigError(f"params.yaml: train.batch_size: {problem}")
        return batch[self.rank * share : (self.rank + 1) * share]

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def from_first(self, value: T) -> T:
        """The value that process 0 has."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, device=torch.device(self.device))
        return held[0]

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network as it is trained: with gradients averaged over the processes."""
        return DistributedDataParallel(network, forward_sync_buffers=False) if self.size > 1 else network

    def synchronised(self, network: nn.Module) -> nn.Module:
        """The network with batch statistics over the global batch; names of weights stay what they were."""
        if self.size == 1:
            return network
        for name, child in network.named_children():
            if type(child) is nn.BatchNorm2d and child.affine and child.track_running_stats and child.momentum:
                setattr(network, name, SynchronisedBatchNorm2d.of(child))
            elif isinstance(child, _BatchNorm):
                raise ConfigError(f"model: {name}: {child} cannot be synchronised; train it in one process")
            else:
                self.synchronised(child)
        return network


@contextmanager
def joined(device: str) -> Iterator[World]:
    """The world that torchrun describes in the environment (RANK, LOCAL_RANK, WORLD_SIZE), or one of a single process."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device)
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield World(device, dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all processes (equally large), on any device; torch's own is for GPUs only."""

    batch_norm_in_eval = True  # see models.folding

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> SynchronisedBatchNorm2d:
        """With the weights and statistics of `norm`, shared."""
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made._parameters, made._buffers, made.training = norm._parameters, norm._buffers, norm.training
        return made

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        mean, variance = (value.float().view(1, -1, 1, 1) for value in self._statistics(input.float()))
        scale = self.weight.view(1, -1, 1, 1) * torch.rsqrt(variance + self.eps)
        return torch.addcmul(self.bias.view(1, -1, 1, 1), input.float() - mean, scale).to(input.dtype)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel over all processes, float64 [C], in one exchange; the running ones follow.

        In float64, because the difference of two squares is taken, from the running mean, which all processes share.
        """
        centre = self.running_mean.double()  # type: ignore[union-attr]  # `synchronised` sees to it
        variance, mean = (value.double() for value in torch.var_mean(x, (0, 2, 3), correction=0))
        sums = _SumOverProcesses.apply(torch.stack([mean - centre, variance + (mean - centre) ** 2]))
        shift, square = sums / dist.get_world_size()
        mean, variance = centre + shift, (square - shift**2).clamp_min(0)
        count = dist.get_world_size() * x.numel() / x.shape[1]
        with torch.no_grad():
            self.num_batches_tracked += 1  # type: ignore[operator]  # as above
            self.running_mean.lerp_(mean.float(), self.momentum)  # type: ignore[union-attr, arg-type]  # as above
            self.running_var.lerp_((variance * count / (count - 1)).float(), self.momentum)  # type: ignore[union-attr, arg-type]
        return mean, variance


class _SumOverProcesses(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]  # one input, one gradient
        return _SumOverProcesses.apply(gradient)
