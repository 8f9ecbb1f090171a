"""Attributions: how much each pixel counted. With respect to the pixel input, sign kept, `[N, C, H, W]`.

A new method is one function `(network, images, targets, seeds, *, options)` and one entry in `ATTRIBUTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from epsilens.attributions import controls, gradients
from epsilens.attributions.config import AttributeConfig
from epsilens.attributions.modes import borrowed
from epsilens.errors import ConfigError, NumericError
from epsilens.registry import choose, options
from epsilens.types import Attributions, Explainer, Images, Labels, NoiseSeeds


@dataclass(frozen=True)
class Attribution:
    """A method, or a control that every method is to be held against."""

    function: Callable[..., Attributions]
    kind: Literal["method", "control"]
    label: str
    source: str


ATTRIBUTIONS: dict[str, Attribution] = {
    "gradient": Attribution(gradients.gradient, "method", "Gradient", "arXiv:1312.6034"),
    "gradient_x_input": Attribution(gradients.gradient_x_input, "method", "Gradient × input", "arXiv:1605.01713"),
    "integrated_gradients": Attribution(
        gradients.integrated_gradients, "method", "Integrated gradients", "arXiv:1703.01365"
    ),
    "smoothgrad": Attribution(gradients.smoothgrad, "method", "SmoothGrad", "arXiv:1706.03825"),
    "random": Attribution(controls.random, "control", "Random", "uniform noise"),
    "sobel": Attribution(controls.sobel, "control", "Sobel edges", "of the image alone; cf. arXiv:1810.03292"),
}


def check(config: AttributeConfig) -> None:
    """Raises one ConfigError for all unknown methods, wrong labels and wrong options."""
    lines = []
    for name, given in config.methods.items():
        key = f"attribute.methods.{name}"
        try:
            options(choose(ATTRIBUTIONS, name, key).function, given, key)
        except ConfigError as error:
            lines.append(str(error))
    if lines:
        raise ConfigError("\n".join(lines))


def explainer(network: nn.Module, name: str, given: Mapping[str, Any], batch_size: int) -> Explainer:
    """`name` with its options as a function of (images, targets, seeds), in batches.

    network: explained in eval mode with frozen parameters, and left as it is found. No image gives no map. Raises
    ConfigError for an unknown name or wrong options and, when called, NumericError if a map is not finite.
    """
    key = f"attribute.methods.{name}"
    function = choose(ATTRIBUTIONS, name, key).function
    checked = options(function, given, key)

    def explain(images: Images, targets: Labels, seeds: NoiseSeeds) -> Attributions:
        parts = [images.new_empty(0, *images.shape[1:])]
        with borrowed(network):
            for i in range(0, len(images), batch_size):
                batch = images[i : i + batch_size].detach().clone().requires_grad_()
                part = function(network, batch, targets[i : i + batch_size], seeds[i : i + batch_size], **checked)
                parts.append(part.detach().to(images.dtype))
        maps = torch.cat(parts)
        if not maps.isfinite().all():
            raise NumericError(f"{name}: an attribution is NaN or infinite")
        return maps

    return explain


def explainers(network: nn.Module, config: AttributeConfig) -> dict[str, Explainer]:
    """Every configured method, by its name in params.yaml."""
    return {name: explainer(network, name, given, config.batch_size) for name, given in config.methods.items()}
