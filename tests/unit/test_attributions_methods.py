"""Closed forms of the attribution methods that are more than a gradient: baselines, squares, Grad-CAM, completeness."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from epsilens.attributions import completeness, explainer
from epsilens.attributions.axioms import completeness_error, verdict
from epsilens.attributions.config import AttributeConfig
from epsilens.attributions.gradients import BASELINES, blurred
from epsilens.errors import ConfigError, DataError
from epsilens.randomness import noise_seeds

N, C, H, W, K = 3, 2, 6, 9, 4
TARGETS = torch.tensor([2, 0, 3])
FACTOR = (TARGETS + 1).view(-1, 1, 1, 1)
SEEDS = noise_seeds(7, torch.tensor([11, 3, 8]))


class Cubic(nn.Module):
    """Logit k is (k + 1) Σ x³."""

    def forward(self, images: Tensor) -> Tensor:
        return images.pow(3).sum(dim=(1, 2, 3))[:, None] * torch.arange(1.0, K + 1, dtype=images.dtype)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(N, C, H, W, dtype=torch.float64)


@pytest.fixture
def training() -> Tensor:
    return torch.randint(0, 256, (5, C, H, W), dtype=torch.uint8)


def conv_net(activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Two convolutions and a linear head, float64."""
    first, second = nn.Conv2d(C, 8, 3, padding=1), nn.Conv2d(8, 6, 3, stride=2)
    layers = (first, activation(), second, activation(), nn.Flatten())
    return nn.Sequential(*layers, nn.LazyLinear(K)).double().eval()


def maps_of(network: nn.Module, name: str, images: Tensor, training: Tensor | None = None, **given: Any) -> Tensor:
    references = None if training is None else lambda: training
    return explainer(network, name, given, 2, references)(images, TARGETS, SEEDS)


def test_the_blur_keeps_flat_images_and_the_mean_of_a_spot_and_is_as_wide_as_said() -> None:
    flat = torch.full((2, 3, 7, 5), 0.3, dtype=torch.float64)
    torch.testing.assert_close(blurred(flat), flat)
    spot = torch.zeros(2, 1, 61, 41, dtype=torch.float64)
    spot[0, 0, 30, 20], spot[1, 0, 25, 22] = 1, 2
    soft, rows = blurred(spot), torch.arange(61, dtype=torch.float64)
    torch.testing.assert_close(soft.sum(dim=(1, 2, 3)), torch.tensor([1.0, 2.0], dtype=torch.float64))
    across = soft[:, 0].sum(dim=2) / soft.sum(dim=(2, 3))
    centre = across @ rows
    torch.testing.assert_close(centre, torch.tensor([30.0, 25.0], dtype=torch.float64))
    width = ((across * (rows - centre[:, None]) ** 2).sum(dim=1)).sqrt()
    torch.testing.assert_close(width, torch.full_like(width, 4.1), rtol=0.02, atol=0)  # a tenth of 41
    torch.testing.assert_close(soft[0, 0], soft[0, 0].flip(0).flip(1))


def test_integrated_gradients_from_the_blurred_image_are_the_difference_of_the_cubes(images: Tensor) -> None:
    start = blurred(images)
    maps = maps_of(Cubic(), "integrated_gradients", images, steps=2, baseline="blur")
    expected = FACTOR * (images - start) * (images**2 + images * start + start**2)
    torch.testing.assert_close(maps, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(expected, FACTOR * (images**3 - start**3))


def test_an_unknown_baseline_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"integrated_gradients\.baseline: found 'white'.*'black' or 'blur'"):
        explainer(Cubic(), "integrated_gradients", {"steps": 2, "baseline": "white"}, 2)


@pytest.mark.parametrize("baseline", ["black", "blur"])
@pytest.mark.parametrize(
    ("activation", "steps", "bound"), [(nn.Softplus, 50, 1e-5), (nn.ReLU, 50, 2e-2), (nn.ReLU, 800, 1e-3)]
)
def test_integrated_gradients_of_a_small_network_are_complete(
    baseline: str, activation: type[nn.Module], steps: int, bound: float
) -> None:
    """For the class whose logit moved furthest. Fifty points integrate a smooth network exactly; at the kinks of ReLU the
    error falls only with the number of points, and a thousandth takes hundreds."""
    images, network = torch.rand(N, C, 12, 9, dtype=torch.float64), conv_net(activation=activation)
    start = BASELINES[baseline]
    targets = (network(images) - network(start(images))).abs().argmax(dim=1)

    def error(name: str, **given: Any) -> Tensor:
        maps = explainer(network, name, given, 3)(images, targets, SEEDS)
        return completeness_error(network, images, start, targets, maps, 2)

    assert (error("integrated_gradients", steps=steps, baseline=baseline) < bound).all()
    assert (error("gradient_x_input") > bound).all()


def test_the_completeness_error_is_relative_and_of_each_image(images: Tensor) -> None:
    start, black = torch.zeros_like, torch.zeros_like(images)
    exact = FACTOR * images**3
    scaled = exact * torch.tensor([1.1, 1.0, 0.5]).view(-1, 1, 1, 1)
    found = completeness_error(Cubic(), images, start, TARGETS, scaled, 2)
    torch.testing.assert_close(found, torch.tensor([0.1, 0.0, 0.5], dtype=torch.float64), rtol=1e-6, atol=1e-12)
    still = completeness_error(Cubic(), black, start, TARGETS, scaled * torch.tensor([1.0, 0, 0]).view(-1, 1, 1, 1), 2)
    assert still[0] == torch.inf
    assert still[1:].isnan().all()
    assert completeness_error(Cubic(), images[:0], start, TARGETS[:0], exact[:0], 2).shape == (0,)


def test_completeness_is_measured_of_the_methods_that_promise_it_and_against_their_own_baseline(images: Tensor) -> None:
    path = {"integrated_gradients@blur": {"steps": 2, "baseline": "blur"}, "integrated_gradients": {"steps": 1}}
    config = AttributeConfig(batch_size=2, gallery=0, seed=0, methods={"gradient": {}, **path})
    maps = {name: maps_of(Cubic(), name, images, **given) for name, given in config.methods.items()}
    found = completeness(Cubic(), config, images, TARGETS, maps)
    assert set(found) == set(path)
    assert found["integrated_gradients@blur"].max() < 1e-6
    torch.testing.assert_close(
        found["integrated_gradients"], torch.full((N,), 0.25).double()
    )  # 3 x (x/2)² is 3/4 of x³


def test_the_network_is_given_back_by_the_measure_of_completeness(images: Tensor) -> None:
    network = conv_net()
    network(images)
    network.train().requires_grad_(True)
    completeness_error(network, images, torch.zeros_like, TARGETS, images, 2)
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_verdict_warns_above_five_percent() -> None:
    fine = verdict("ig", torch.tensor([0.01, 0.05, torch.nan], dtype=torch.float64))
    assert fine == "ig: completeness error 1.00% in the median"
    bad = verdict("ig", torch.tensor([0.01, 0.0501, torch.inf], dtype=torch.float64))
    assert bad.startswith("warning: ig: completeness error 5.01% in the median, above 5% on 2 of 3 images")


def test_expected_gradients_of_a_linear_network_are_pixels_above_the_drawn_references_times_the_weights(
    images: Tensor, training: Tensor
) -> None:
    weight = torch.randn(K, C, H, W, dtype=torch.float64)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, K)).double()
    linear.get_parameter("1.weight").data = weight.flatten(1)
    above = maps_of(linear, "expected_gradients", images, training[2:3], samples=3)  # one reference: nothing to draw
    torch.testing.assert_close(above, (images - training[2] / 255.0) * weight[TARGETS], rtol=1e-6, atol=1e-6)


def test_expected_gradients_of_one_reference_are_integrated_gradients_from_it(images: Tensor, training: Tensor) -> None:
    start = training[:1].double() / 255
    maps = maps_of(Cubic(), "expected_gradients", images, training[:1], samples=400)
    torch.testing.assert_close(maps, FACTOR * (images**3 - start**3), rtol=0, atol=0.005)  # one point in each 400th


def test_expected_gradients_are_complete_in_expectation(images: Tensor, training: Tensor) -> None:
    """Within five standard errors: they sum to the logit minus its mean over the references."""
    network = conv_net()
    gain = network(images) - network(training.double() / 255).mean(dim=0)
    rounds = [
        explainer(network, "expected_gradients", {"samples": 20}, 9, lambda: training)(images, TARGETS, SEEDS + k)
        for k in range(60)
    ]
    sums = torch.stack(rounds).sum(dim=(2, 3, 4))
    off = sums.mean(dim=0) - gain.gather(1, TARGETS[:, None])[:, 0]
    assert (off.abs() < 5 * sums.std(dim=0) / 60**0.5).all()
    assert (sums.std(dim=0) > 0).all()


def test_every_image_draws_its_own_references(training: Tensor) -> None:
    images = torch.rand(1, C, H, W, dtype=torch.float64).expand(N, -1, -1, -1)
    maps = explainer(Cubic(), "expected_gradients", {"samples": 1}, 2, lambda: training)(images, 0 * TARGETS, SEEDS)
    assert not torch.allclose(maps[0], maps[1])


def test_references_are_asked_for_by_those_who_need_them_alone(images: Tensor) -> None:
    def refuse() -> Tensor:
        raise AssertionError("nobody asked")

    for name in ("gradient", "random"):
        explainer(Cubic(), name, {}, 2, refuse)(images, TARGETS, SEEDS)
    with pytest.raises(DataError, match="expected_gradients: needs training images"):
        explainer(Cubic(), "expected_gradients", {"samples": 2}, 2)
    with pytest.raises(DataError, match=r"inverse\.of\.expected_gradients: needs training images"):
        explainer(Cubic(), "inverse", {"of": {"expected_gradients": {"samples": 2}}}, 2)


@pytest.mark.parametrize("shape", [(0, C, H, W), (4, C + 1, H, W), (4, C, W, H)])
def test_references_of_another_shape_are_refused(images: Tensor, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"expected gradients: found references of shape"):
        maps_of(Cubic(), "expected_gradients", images, torch.zeros(shape, dtype=torch.uint8), samples=2)


def test_smoothgrad_squared_is_the_mean_square_of_the_very_gradients_of_smoothgrad(images: Tensor) -> None:
    given = {"samples": 1, "sigma": 0.2}
    once = maps_of(Cubic(), "smoothgrad", images, **given)
    torch.testing.assert_close(maps_of(Cubic(), "smoothgrad_squared", images, **given), once**2)


def test_smoothgrad_squared_adds_the_variance_of_the_gradient() -> None:
    """Of Σ x³ at grey x the gradient is 3 (x + d)², and its mean square 9 (x⁴ + 6 x² σ² + 3 σ⁴)."""
    grey = torch.full((N, C, 40, 30), 0.5, dtype=torch.float64)
    means = maps_of(Cubic(), "smoothgrad_squared", grey, samples=30, sigma=0.2).mean(dim=(1, 2, 3)) / (TARGETS + 1) ** 2
    expected = 9 * (0.5**4 + 6 * 0.5**2 * 0.2**2 + 3 * 0.2**4)
    torch.testing.assert_close(means, torch.full_like(means, expected), rtol=0.02, atol=0)


class Pooled(nn.Module):
    """A 1x1 convolution with given weights, ReLU, the mean over places, a head with given weights."""

    def __init__(self, filters: Tensor, head: Tensor) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(filters.shape[1], len(filters), 1, stride=3, bias=False), nn.ReLU()
        self.conv.weight.data = filters[:, :, None, None]
        self.head = nn.Linear(len(filters), len(head), bias=False)
        self.head.weight.data = head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.conv(images)).mean(dim=(2, 3)))


def test_grad_cam_is_the_rectified_class_activation_map_enlarged(images: Tensor) -> None:
    """With a mean over h·w places the mean gradient of a channel is its weight in the head / (h·w)."""
    filters, head = torch.randn(5, C, dtype=torch.float64), torch.randn(K, 5, dtype=torch.float64)
    features = torch.einsum("kc,nchw->nkhw", filters, images[:, :, ::3, ::3]).relu()  # [N, 5, 2, 3]
    cam = torch.einsum("nk,nkhw->nhw", head[TARGETS], features).relu() / 6
    maps = maps_of(Pooled(filters, head), "grad_cam", images)
    assert maps.shape == images.shape
    large = nn.functional.interpolate(cam[:, None], (H, W), mode="bilinear")[:, 0]
    torch.testing.assert_close(maps.abs().sum(dim=1), large)
    assert torch.equal(maps[:, 0], maps[:, 1])


def test_grad_cam_of_what_speaks_against_the_target_everywhere_is_zero(images: Tensor) -> None:
    network = Pooled(torch.ones(2, C).double(), -torch.ones(K, 2).double())
    assert not maps_of(network, "grad_cam", images).any()


def test_grad_cam_takes_the_sum_of_a_residual_block_and_not_its_shortcut(images: Tensor) -> None:
    """The shortcut's convolution is the last to run; what follows it at its size is the feature."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.shortcut, self.relu = (
                nn.Conv2d(C, 4, 3, padding=1),
                nn.Conv2d(C, 4, 1),
                nn.ReLU(inplace=True),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.body(x) + self.shortcut(x))

    block, head = Block().double(), nn.Linear(4, K).double()
    network = nn.Sequential(block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    features = block(images).detach()
    cam = torch.einsum("nk,nkhw->nhw", head.weight[TARGETS].detach(), features).relu() / (H * W)
    torch.testing.assert_close(maps_of(network, "grad_cam", images).sum(dim=1), cam)


def test_grad_cam_of_a_network_without_a_convolution_is_refused(images: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"grad_cam: found no nn\.Conv2d"):
        maps_of(nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, K)).double(), "grad_cam", images)
