"""Controls: maps that do not explain the network. A metric that cannot tell them from a method says nothing about it.

Some know the image alone. Others are made of a method's map (`explain`, which their option `of` names) so that they share
all but what makes it an explanation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from epsilens.attributions.randomise import randomised
from epsilens.randomness import per_image
from epsilens.types import Attributions, Images, Labels, NoiseSeeds

Method = Callable[[nn.Module, Images, Labels, NoiseSeeds], Attributions]
Of = Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=1)]  # one method to its options
Seed = Annotated[int, Field(ge=0)]


def random(network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds) -> Attributions:
    """Uniform noise in [-1, 1), drawn for each image from its own seed."""
    return 2 * per_image(torch.rand, tuple(images.shape[1:]), seeds, "random control").to(images) - 1


def sobel(network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds) -> Attributions:
    """Magnitude of the Sobel gradient of each channel: the edges of the image (borders are replicated)."""
    count, channels, height, width = images.shape
    smooth, slope = images.new_tensor([1.0, 2.0, 1.0]), images.new_tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([smooth[:, None] * slope, slope[:, None] * smooth])[:, None]  # [2, 1, 3, 3]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate").reshape(count * channels, 1, height + 2, width + 2)
    return torch.linalg.vector_norm(F.conv2d(padded, kernels), dim=1).view_as(images)


def deviation(network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds) -> Attributions:
    """|x - mean|, the mean of each channel over the image's own pixels: what stands out in colour. Zero if it is flat."""
    return (images - images.mean(dim=(2, 3), keepdim=True)).abs()


def blurred_random(
    network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds, explain: Method, *, of: Of
) -> Attributions:
    """Noise that is as blurry as the real map: its spectrum with the phases of white noise, drawn from the image's seed.

    Every channel keeps its power spectrum, and any two channels their cross spectrum, because all are turned by the same
    phases (Prichard and Theiler 1994, doi:10.1103/PhysRevLett.73.951). Where the map is large is lost.
    """
    height, width = images.shape[2:]
    noise = per_image(torch.randn, (1, height, width), seeds, "blurred random control").to(images)
    phases = torch.fft.rfft2(noise).angle()  # [N, 1, H, W // 2 + 1]
    spectrum = torch.fft.rfft2(explain(network, images, targets, seeds))
    return torch.fft.irfft2(spectrum * torch.polar(torch.ones_like(phases), phases), s=(height, width))


def inverse(
    network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds, explain: Method, *, of: Of
) -> Attributions:
    """The ranking of the real map upside down: 1 - rank / n of the pixel's weight (sum of absolute values over channels),
    from 0 for the largest of n pixels to 1 - 1/n for the smallest; equal weights share their mean rank. All zero where the
    real map is. Shared evenly among the channels, so that it is the pixel's weight.
    """
    weights = explain(network, images, targets, seeds).detach().double().abs().sum(dim=1).flatten(1)  # [N, n]
    turned = (1 - _mean_ranks(weights) / weights.shape[1]) * (weights.amax(dim=1, keepdim=True) > 0)
    return (turned.view(len(images), 1, *images.shape[2:]) / images.shape[1]).expand_as(images)


def on_randomised(
    network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds, explain: Method, *, of: Of, seed: Seed
) -> Attributions:
    """The real method, of the same class, on the network that `untrained` made of the one under study."""
    return explain(network, images, targets, seeds)


def untrained(network: nn.Module, *, of: Of, seed: Seed) -> nn.Module:
    """The network of `on_randomised`: the same one for all trained networks of one architecture."""
    return randomised(network, seed)


def _mean_ranks(values: Tensor) -> Tensor:
    """Ranks 1..n of each row, ascending; equal values share the mean of theirs."""
    ordered = values.sort(dim=1).values
    below, upto = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return (below + upto + 1).double() / 2
