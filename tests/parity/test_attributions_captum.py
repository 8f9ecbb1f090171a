"""The same maps as captum 0.9.0 gives on a residual network, where captum has the method."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from captum.attr import (
    GradientShap,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    NoiseTunnel,
    Saliency,
)
from torch import Tensor, nn

from epsilens.attributions import explainer
from epsilens.attributions.gradients import blurred
from epsilens.models import build
from epsilens.randomness import noise_seeds

N, K = 3, 4
SHAPE = (12, 16)
TARGETS = torch.tensor([2, 0, 3])
SEEDS = noise_seeds(7, torch.tensor([11, 3, 8]))


@pytest.fixture(params=[1, 3])
def channels(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def network(channels: int) -> nn.Module:
    built = build("small_resnet", {"width": 4, "stem_stride": 1}, K, [0.5] * channels, [0.2] * channels, seed=1)
    return built.eval().requires_grad_(False)


@pytest.fixture
def images(channels: int) -> Tensor:
    return torch.rand(N, channels, *SHAPE)


def maps_of(network: nn.Module, name: str, images: Tensor, **given: Any) -> Tensor:
    return explainer(network, name, given, 2)(images, TARGETS, SEEDS)


def asked(images: Tensor) -> dict[str, Any]:
    return {"inputs": images.clone().requires_grad_(), "target": TARGETS}


def test_gradients(network: nn.Module, images: Tensor) -> None:
    expected = Saliency(network).attribute(**asked(images), abs=False)
    torch.testing.assert_close(maps_of(network, "gradient", images), expected, rtol=1e-5, atol=1e-7)
    expected = InputXGradient(network).attribute(**asked(images)).detach()
    torch.testing.assert_close(maps_of(network, "gradient_x_input", images), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("baseline", ["black", "blur"])
def test_integrated_gradients(network: nn.Module, images: Tensor, baseline: str) -> None:
    start = blurred(images) if baseline == "blur" else torch.zeros_like(images)
    settings = {"baselines": start, "n_steps": 20, "method": "gausslegendre"}
    expected = IntegratedGradients(network).attribute(**asked(images), **settings)
    maps = maps_of(network, "integrated_gradients", images, steps=20, baseline=baseline)
    torch.testing.assert_close(maps, expected.detach(), rtol=1e-4, atol=1e-6)


def test_guided_backprop(network: nn.Module, images: Tensor) -> None:
    with warnings.catch_warnings(action="ignore"):  # captum says that it sets hooks
        expected = GuidedBackprop(network).attribute(**asked(images))
    maps = maps_of(network, "guided_backprop", images)
    torch.testing.assert_close(maps, expected.detach(), rtol=1e-5, atol=1e-7)
    assert (maps - maps_of(network, "gradient", images)).abs().amax() > 1e-3 * maps.abs().amax()


def test_grad_cam(network: nn.Module, images: Tensor) -> None:
    """Of the output of the last residual block."""
    layer = network.get_submodule("1.features")
    low = LayerGradCam(network, layer).attribute(**asked(images), relu_attributions=True)
    assert isinstance(low, Tensor)
    assert low.shape[2:] != images.shape[2:]
    expected = LayerAttribution.interpolate(low.detach(), SHAPE, "bilinear")
    assert expected.any()
    torch.testing.assert_close(maps_of(network, "grad_cam", images).sum(dim=1, keepdim=True), expected)


@pytest.mark.parametrize(("name", "kind"), [("smoothgrad", "smoothgrad"), ("smoothgrad_squared", "smoothgrad_sq")])
def test_smoothgrad_in_the_mean(network: nn.Module, images: Tensor, name: str, kind: str) -> None:
    """Other draws: equal to within what two halves of captum's own samples differ by."""
    settings = {"nt_samples": 60, "nt_samples_batch_size": 20, "nt_type": kind, "stdevs": 0.1}
    halves = [NoiseTunnel(Saliency(network)).attribute(**asked(images), **settings, abs=False) for _ in range(2)]
    spread = (halves[0] - halves[1]).flatten(1).norm(dim=1)
    maps = maps_of(network, name, images, samples=120, sigma=0.1)
    off = (maps - (halves[0] + halves[1]) / 2).flatten(1).norm(dim=1)
    assert (off < 1.5 * spread).all()  # 1/sqrt(2) of it is expected
    assert (off < 0.3 * maps.flatten(1).norm(dim=1)).all()


def test_expected_gradients_in_the_mean(network: nn.Module, images: Tensor, channels: int) -> None:
    """captum calls it GradientShap, and adds noise to the images unless told not to."""
    training = torch.randint(0, 256, (5, channels, *SHAPE), dtype=torch.uint8)
    settings = {"baselines": training / 255, "n_samples": 100, "stdevs": 0.0}
    halves = [GradientShap(network).attribute(**asked(images), **settings).detach() for _ in range(2)]
    spread = (halves[0] - halves[1]).flatten(1).norm(dim=1)
    maps = explainer(network, "expected_gradients", {"samples": 200}, 3, lambda: training)(images, TARGETS, SEEDS)
    off = (maps - (halves[0] + halves[1]) / 2).flatten(1).norm(dim=1)
    assert (off < 1.5 * spread).all()
    assert (off < 0.3 * maps.flatten(1).norm(dim=1)).all()
