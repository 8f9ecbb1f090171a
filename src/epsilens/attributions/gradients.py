"""Attributions from gradients, by captum: of the target's logit with respect to the pixels, sign kept.

All share one signature, `(network, images, targets, seeds, *, options) -> Attributions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Literal

import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from epsilens.errors import DataError
from epsilens.randomness import per_image
from epsilens.types import Attributions, Images, Labels, NoiseSeeds

Count = Annotated[int, Field(ge=1)]
Width = Annotated[float, Field(gt=0)]

BLUR = 0.1  # standard deviation of the blurred baseline, in shorter sides: 3 pixels of 32, 22 of 224
REACH = 3  # standard deviations at which the Gaussian is cut off


def gradient(network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds) -> Attributions:
    """The gradient of the target's logit (Simonyan et al. 2014, arXiv:1312.6034), without the absolute value."""
    return Saliency(network).attribute(images, target=targets, abs=False)


def gradient_x_input(network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds) -> Attributions:
    """Gradient times pixel (Shrikumar et al. 2016, arXiv:1605.01713): zero on black, by definition."""
    return InputXGradient(network).attribute(images, target=targets)


def blurred(images: Images) -> Images:
    """Each image under a Gaussian of `BLUR` times its shorter side; borders are replicated, a flat image stays itself."""
    count, channels, height, width = images.shape
    sigma = BLUR * min(height, width)
    reach = int(REACH * sigma + 1)
    bell = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).to(images) / sigma) ** 2)
    bell = bell / bell.sum()
    padded = F.pad(images, (reach,) * 4, mode="replicate").reshape(count * channels, 1, height + 2 * reach, -1)
    across = F.conv2d(padded, bell.view(1, 1, 1, -1))
    return F.conv2d(across, bell.view(1, 1, -1, 1)).view_as(images)


BASELINES: dict[str, Callable[[Images], Images]] = {"black": torch.zeros_like, "blur": blurred}


def integrated_gradients(
    network: nn.Module,
    images: Images,
    targets: Labels,
    seeds: NoiseSeeds,
    *,
    steps: Count,
    baseline: Literal["black", "blur"] = "black",
) -> Attributions:
    """Gradients along the straight path from the baseline, `steps` Gauss-Legendre points (Sundararajan et al. 2017,
    arXiv:1703.01365). They sum to h(x) - h(baseline) up to the error of the quadrature (and, in float64, up to 1e-7:
    captum rounds the weights of the points to float32). One pass holds one point of every image: memory as for the gradient.

    baseline: black, which gives nothing to a black pixel, or the image's own `blurred` copy, which gives nothing to a plain
    area.
    """
    start = BASELINES[baseline](images.detach())
    method = IntegratedGradients(network, multiply_by_inputs=True)
    return method.attribute(
        images, start, target=targets, n_steps=steps, method="gausslegendre", internal_batch_size=len(images)
    )


def expected_gradients(
    network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds, references: Tensor, *, samples: Count
) -> Attributions:
    """Integrated gradients in expectation over training images as baselines (Erion et al. 2021, arXiv:1906.10670).

    Each image draws `samples` of the references (uint8 [M, C, H, W]), with replacement, and one point on the path from
    each: in the k-th of `samples` equal parts of [0, 1], which leaves the expectation as it is and lowers its variance. In
    expectation the maps sum to h(x) minus the mean of h over the references. Raises DataError if the references are not
    images of this size.
    """
    if not len(references) or references.shape[1:] != images.shape[1:]:
        raise DataError(
            f"expected gradients: found references of shape {list(references.shape)}, expected one or more training images "
            f"of shape {list(images.shape[1:])}"
        )
    chosen = per_image(partial(torch.randint, len(references)), (samples,), seeds, "references")  # [N, samples]
    within = per_image(torch.rand, (samples,), seeds, "positions").to(images)
    total = torch.zeros_like(images)
    for k in range(samples):
        start = references[chosen[:, k].to(references.device)].to(images) / 255
        position = ((k + within[:, k]) / samples).view(-1, 1, 1, 1)
        slope = gradient(network, start + position * (images - start), targets, seeds)
        total += (images.detach() - start) * slope
    return total / samples


def smoothgrad(
    network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds, *, samples: Count, sigma: Width
) -> Attributions:
    """Mean gradient over `samples` noisy copies, standard deviation `sigma` in pixel units (Smilkov et al. 2017,
    arXiv:1706.03825). The copies are not clipped to [0, 1], as in the paper.

    captum's NoiseTunnel draws from the global generator, so that an image's noise depends on its batch mates; here each
    image has noise of its own, and captum's gradient is averaged over it.
    """
    total = torch.zeros_like(images)
    for slope in _noisy_gradients(network, images, targets, seeds, samples, sigma):
        total += slope
    return total / samples


def smoothgrad_squared(
    network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds, *, samples: Count, sigma: Width
) -> Attributions:
    """Mean squared gradient over the noisy copies of `smoothgrad` (Hooker et al. 2019, arXiv:1806.10758): >= 0."""
    total = torch.zeros_like(images)
    for slope in _noisy_gradients(network, images, targets, seeds, samples, sigma):
        total += slope.square()
    return total / samples


def _noisy_gradients(
    network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds, samples: int, sigma: float
) -> Iterator[Attributions]:
    noise = per_image(torch.randn, (samples, *images.shape[1:]), seeds, "smoothgrad")
    for k in range(samples):
        yield gradient(network, images + sigma * noise[:, k].to(images), targets, seeds)
