"""Grad-CAM: coarse by construction, so a control for whatever rewards blurry maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsilens.errors import ConfigError
from epsilens.types import Attributions, Images, Labels, NoiseSeeds


def grad_cam(network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds) -> Attributions:
    """Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391): the channels of the last convolution, weighed by their mean
    gradients, summed, rectified, enlarged bilinearly (corners not aligned) and shared evenly among the image's channels, so
    that a pixel's weight is the map's value there. All zero where every place speaks against the target.

    The last convolution is the last nn.Conv2d to run, with what follows at its size (normalisation, the sum of a residual
    block, ReLU): a block's shortcut alone would be half of a feature. Raises ConfigError for a network without one.
    """
    with _features(network) as found:
        logits = network(images)
    if not found:
        raise ConfigError("grad_cam: found no nn.Conv2d in the network, expected one or more; remove the method")
    [features] = found  # [N, K, h, w]
    (slopes,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), features)
    cam = F.relu((slopes.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1, keepdim=True)).detach()
    large = F.interpolate(cam, tuple(images.shape[2:]), mode="bilinear", align_corners=False)
    return large.expand_as(images) / images.shape[1]


@contextmanager
def _features(network: nn.Module) -> Iterator[list[Tensor]]:
    """While it is open, the list holds the output of the last convolution and of what follows it at its size."""
    found: list[Tensor] = []
    following = False

    def watch(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal following
        same = following and isinstance(output, Tensor) and output.shape == found[0].shape
        following = isinstance(module, nn.Conv2d) or same
        if following:
            found[:] = [output]

    hooks = [module.register_forward_hook(watch) for module in network.modules()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
