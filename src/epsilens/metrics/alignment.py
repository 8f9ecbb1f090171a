"""Alignment: how far an explanation looks like the image itself."""

from __future__ import annotations

import torch
from torch import Tensor

from epsilens.metrics.weights import known
from epsilens.types import Attributions, Images, Scores


def gradient_alignment(attributions: Attributions, images: Images) -> Scores:
    """|<x, g>| / ||g||, `[N]` in [0, ||x||] (Etmann et al. 2019, arXiv:1905.04172): the length of x along g.

    For a network that is linear near x, and without a bias, the distance to the boundary. NaN for an all-zero map.
    """
    g = known(attributions.double()).flatten(1)
    return (images.double().flatten(1) * g).sum(dim=1).abs() / torch.linalg.vector_norm(g, dim=1)


def image_cosine(attributions: Attributions, images: Images) -> Scores:
    """|cosine| of g and x - mean, the mean of each channel of the image, `[N]` in [0, 1].

    Free of the brightness and the contrast of the image, which gradient_alignment is not. 1 when the map is the image in
    positive or in negative. NaN for an all-zero map and for an image without contrast.
    """
    x = images.double()
    contrast = _without_mean(x).flatten(1)
    g = known(attributions.double()).flatten(1)
    scale = torch.linalg.vector_norm(contrast, dim=1) * torch.linalg.vector_norm(g, dim=1)
    return (contrast * g).sum(dim=1).abs() / scale


def _without_mean(images: Tensor) -> Tensor:
    """x - mean, exactly 0 where a channel is constant: a mean that is rounded would leave a contrast."""
    constant = images.amax(dim=(2, 3), keepdim=True) == images.amin(dim=(2, 3), keepdim=True)
    return (images - images.mean(dim=(2, 3), keepdim=True)).masked_fill(constant, 0)
