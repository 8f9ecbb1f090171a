"""Attributions from gradients, by captum: of the target's logit with respect to the pixels, sign kept.

All share one signature, `(network, images, targets, seeds, *, options) -> Attributions`.
"""

from __future__ import annotations

from typing import Annotated

import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from pydantic import Field
from torch import nn

from epsilens.randomness import per_image
from epsilens.types import Attributions, Images, Labels, NoiseSeeds

Count = Annotated[int, Field(ge=1)]


def gradient(network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds) -> Attributions:
    """The gradient of the target's logit (Simonyan et al. 2014, arXiv:1312.6034), without the absolute value."""
    return Saliency(network).attribute(images, target=targets, abs=False)


def gradient_x_input(network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds) -> Attributions:
    """Gradient times pixel (Shrikumar et al. 2016, arXiv:1605.01713): zero on black, by definition."""
    return InputXGradient(network).attribute(images, target=targets)


def integrated_gradients(
    network: nn.Module, images: Images, targets: Labels, seeds: NoiseSeeds, *, steps: Count
) -> Attributions:
    """Gradients along the straight path from black, `steps` Gauss-Legendre points (Sundararajan et al. 2017,
    arXiv:1703.01365). They sum to h(x) - h(0) up to the error of the quadrature (and, in float64, up to 1e-7: captum
    rounds the weights of the points to float32). One pass holds one point of every image: memory as for the gradient.
    """
    method = IntegratedGradients(network, multiply_by_inputs=True)
    return method.attribute(
        images, target=targets, n_steps=steps, method="gausslegendre", internal_batch_size=len(images)
    )


def smoothgrad(
    network: nn.Module,
    images: Images,
    targets: Labels,
    seeds: NoiseSeeds,
    *,
    samples: Count,
    sigma: Annotated[float, Field(gt=0)],
) -> Attributions:
    """Mean gradient over `samples` noisy copies, standard deviation `sigma` in pixel units (Smilkov et al. 2017,
    arXiv:1706.03825). The copies are not clipped to [0, 1], as in the paper.

    captum's NoiseTunnel draws from the global generator, so that an image's noise depends on its batch mates; here each
    image has noise of its own, and captum's gradient is averaged over it.
    """
    noise = per_image(torch.randn, (samples, *images.shape[1:]), seeds, "smoothgrad")
    total = torch.zeros_like(images)
    for k in range(samples):
        total += gradient(network, images + sigma * noise[:, k].to(images), targets, seeds)
    return total / samples
