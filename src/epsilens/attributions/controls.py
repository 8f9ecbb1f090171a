"""Controls: maps that know nothing of the network. A metric that cannot tell them from a method says nothing about it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from epsilens.randomness import per_image
from epsilens.types import Attributions, Images, Labels, NoiseSeeds


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
