"""Attributions: how much each pixel counted. With respect to the pixel input, sign kept, `[N, C, H, W]`.

A new method is one function `(network, images, targets, seeds, *, options)` and one entry in `ATTRIBUTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from epsilens.attributions import cam, controls, gradients, rectifiers
from epsilens.attributions.axioms import completeness_error
from epsilens.attributions.config import AttributeConfig
from epsilens.attributions.modes import borrowed
from epsilens.batches import Batches
from epsilens.errors import ConfigError, DataError, NumericError
from epsilens.progress import Done, untold
from epsilens.registry import choose, options
from epsilens.types import Attributions, Explainer, Images, Labels, NoiseSeeds, Scores

References = Callable[[], Tensor]  # reads the training images, uint8 [M, C, H, W]


@dataclass(frozen=True)
class Attribution:
    """A method, or a control that every method is to be held against.

    references: the function's fifth argument is the training images. of: it is another method, the one that the option `of`
    names. relu_modules: networks whose ReLUs are not modules of their own are refused. complete: the maps sum to what the
    logit gains from the baseline that the option `baseline` names. prepare: (network, *, options) -> the network to explain.
    """

    function: Callable[..., Attributions]
    kind: Literal["method", "control"]
    label: str
    source: str
    references: bool = False
    of: bool = False
    relu_modules: bool = False
    complete: bool = False
    prepare: Callable[..., nn.Module] | None = None


ATTRIBUTIONS: dict[str, Attribution] = {
    "gradient": Attribution(gradients.gradient, "method", "Gradient", "arXiv:1312.6034"),
    "gradient_x_input": Attribution(gradients.gradient_x_input, "method", "Gradient × input", "arXiv:1605.01713"),
    "integrated_gradients": Attribution(
        gradients.integrated_gradients, "method", "Integrated gradients", "arXiv:1703.01365", complete=True
    ),
    "expected_gradients": Attribution(
        gradients.expected_gradients, "method", "Expected gradients", "arXiv:1906.10670", references=True
    ),
    "smoothgrad": Attribution(gradients.smoothgrad, "method", "SmoothGrad", "arXiv:1706.03825"),
    "smoothgrad_squared": Attribution(gradients.smoothgrad_squared, "method", "SmoothGrad squared", "arXiv:1806.10758"),
    "grad_cam": Attribution(cam.grad_cam, "method", "Grad-CAM", "arXiv:1610.02391"),
    "guided_backprop": Attribution(
        rectifiers.guided_backprop, "method", "Guided backpropagation", "arXiv:1412.6806", relu_modules=True
    ),
    "random": Attribution(controls.random, "control", "Random", "uniform noise"),
    "blurred_random": Attribution(
        controls.blurred_random, "control", "Random, as blurry", "doi:10.1103/PhysRevLett.73.951", of=True
    ),
    "sobel": Attribution(controls.sobel, "control", "Sobel edges", "of the image alone; cf. arXiv:1810.03292"),
    "deviation": Attribution(controls.deviation, "control", "|x − mean|", "of the image alone; cf. arXiv:1905.04172"),
    "randomised": Attribution(
        controls.on_randomised, "control", "Random weights", "arXiv:1810.03292", of=True, prepare=controls.untrained
    ),
    "inverse": Attribution(controls.inverse, "control", "Inverse ranking", "1 - rank / n of the real map", of=True),
}
METHODS = {name: entry for name, entry in ATTRIBUTIONS.items() if entry.kind == "method"}


@dataclass(frozen=True)
class Bound:
    """A member of the registry with its options, checked; `of`: the method that it is made of."""

    key: str
    entry: Attribution
    options: Mapping[str, Any]
    of: Bound | None

    @property
    def relu_modules(self) -> bool:
        """Whether it, or what it is made of, hooks ReLU."""
        return self.entry.relu_modules or (self.of is not None and self.of.relu_modules)

    def ready(self, references: References | None) -> controls.Method:
        """As a function of (network, images, targets, seeds). Raises DataError if it needs training images and has none."""
        given: list[Any] = [self.of.ready(references)] if self.of else []
        if self.entry.references:
            if references is None:
                raise DataError(f"params.yaml: {self.key}: needs training images as references, found none")
            given.append(references())
        return lambda network, images, targets, seeds: self.entry.function(
            network, images, targets, seeds, *given, **self.options
        )


def bind(name: str, given: Mapping[str, Any], key: str, known: Mapping[str, Attribution] = ATTRIBUTIONS) -> Bound:
    """Raises ConfigError for an unknown name or wrong options, also of the method that a control is made of."""
    entry = choose(known, name, key)
    checked = options(entry.function, given, key)
    inner = (
        [bind(method, its, f"{key}.of.{method}", METHODS) for method, its in checked["of"].items()] if entry.of else []
    )
    return Bound(key, entry, checked, *inner or [None])


def check(config: AttributeConfig) -> None:
    """Raises one ConfigError for all unknown methods, wrong labels and wrong options."""
    lines = []
    for name, given in config.methods.items():
        try:
            bind(name, given, f"attribute.methods.{name}")
        except ConfigError as error:
            lines.append(str(error))
    if lines:
        raise ConfigError("\n".join(lines))


def explainer(
    network: nn.Module,
    name: str,
    given: Mapping[str, Any],
    batch_size: int,
    references: References | None = None,
    done: Done = untold,
) -> Explainer:
    """`name` with its options as a function of (images, targets, seeds), in batches.

    network: explained in eval mode with frozen parameters, and left as it is found. No image gives no map. references: asked
    for training images by the methods that need them, and by no other. done: told of maps. Raises ConfigError for an unknown
    name or wrong options and, when called, for a network on which the method would be silently wrong; NumericError if a map
    is not finite.
    """
    bound = bind(name, given, f"attribute.methods.{name}")
    function = bound.ready(references)
    batches = Batches(batch_size)
    explained = bound.entry.prepare(network, **bound.options) if bound.entry.prepare else network

    def explain(images: Images, targets: Labels, seeds: NoiseSeeds) -> Attributions:
        parts = [images.new_empty(0, *images.shape[1:])]
        with borrowed(explained):
            if bound.relu_modules and len(images):
                rectifiers.require_relu_modules(explained, images, bound.key)

            def compute(part: slice) -> Attributions:
                batch = images[part].detach().clone().requires_grad_()
                return function(explained, batch, targets[part], seeds[part]).detach().to(images.dtype)

            parts += [part for _, part in batches.of(compute, len(images), done)]
        maps = torch.cat(parts)
        if not maps.isfinite().all():
            raise NumericError(f"{name}: an attribution is NaN or infinite")
        return maps

    return explain


def explainers(
    network: nn.Module, config: AttributeConfig, references: References | None = None, done: Done = untold
) -> dict[str, Explainer]:
    """Every configured method, by its name in params.yaml. done: told of maps."""
    size = config.batch_size
    return {name: explainer(network, name, given, size, references, done) for name, given in config.methods.items()}


def completeness(
    network: nn.Module, config: AttributeConfig, images: Images, targets: Labels, maps: Mapping[str, Attributions]
) -> dict[str, Scores]:
    """The completeness error of every image, for the configured methods that promise to be complete."""
    bound = {name: bind(name, given, f"attribute.methods.{name}") for name, given in config.methods.items()}
    baselines, size = gradients.BASELINES, config.batch_size
    return {
        name: completeness_error(network, images, baselines[each.options["baseline"]], targets, maps[name], size)
        for name, each in bound.items()
        if each.entry.complete
    }
