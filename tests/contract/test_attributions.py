"""Closed forms of every attribution and control, and what every member of ATTRIBUTIONS keeps to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from epsilens.attributions import ATTRIBUTIONS, explainer
from epsilens.errors import NumericError
from epsilens.metrics.recalled import Recalled
from epsilens.randomness import noise_seeds
from epsilens.types import Explainer
from tests.options import METHODS as OPTIONS

N, C, H, W, K = 3, 2, 5, 4, 4
TARGETS = torch.tensor([2, 0, 3])
SEEDS = noise_seeds(7, torch.tensor([11, 3, 8]))

every_member = pytest.mark.parametrize("name", ATTRIBUTIONS)
every_shape = pytest.mark.parametrize("shape", [(1, 9, 6), (3, 6, 8)])


class Linear(nn.Module):
    """Logits <w_k, x> + b_k, with weights of both signs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(K, C, H, W, dtype=torch.float64), requires_grad=False)
        self.bias = nn.Parameter(torch.randn(K, dtype=torch.float64), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", images, self.weight) + self.bias


class Cubic(nn.Module):
    """Logit k is (k + 1) Σ x³: its integrated gradient from black is (k + 1) x³."""

    def forward(self, images: Tensor) -> Tensor:
        return images.pow(3).sum(dim=(1, 2, 3))[:, None] * torch.arange(1.0, K + 1, dtype=images.dtype)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(N, C, H, W, dtype=torch.float64)


@pytest.fixture
def linear() -> Linear:
    return Linear()


def ready(network: nn.Module, name: str, shape: tuple[int, ...], batch_size: int = 2, **given: Any) -> Explainer:
    """The member with its options of these tests, and training images of this shape."""
    training = torch.randint(0, 256, (6, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return explainer(network, name, given or OPTIONS.get(name, {}), batch_size, lambda: training)


def maps_of(network: nn.Module, name: str, images: Tensor, batch_size: int = 2, **given: Any) -> Tensor:
    return ready(network, name, tuple(images.shape[1:]), batch_size, **given)(images, TARGETS, SEEDS)


def test_gradient_of_a_linear_network_is_the_weight_row_of_the_target(linear: Linear, images: Tensor) -> None:
    torch.testing.assert_close(maps_of(linear, "gradient", images), linear.weight[TARGETS], rtol=0, atol=0)


@pytest.mark.parametrize(("name", "given"), [("gradient_x_input", {}), ("integrated_gradients", {"steps": 7})])
def test_on_a_linear_network_pixel_times_weight_sums_to_the_logit_above_black(
    name: str, given: dict[str, Any], linear: Linear, images: Tensor
) -> None:
    maps = maps_of(linear, name, images, **given)
    torch.testing.assert_close(maps, images * linear.weight[TARGETS], rtol=1e-6, atol=1e-9)  # captum: float32 steps
    above = (linear(images) - linear(torch.zeros_like(images))).gather(1, TARGETS[:, None])[:, 0]
    torch.testing.assert_close(maps.sum(dim=(1, 2, 3)), above, rtol=1e-6, atol=1e-6)


def test_smoothgrad_of_a_linear_network_is_the_weight_row(linear: Linear, images: Tensor) -> None:
    torch.testing.assert_close(maps_of(linear, "smoothgrad", images), linear.weight[TARGETS])


def test_the_gradient_is_of_the_logit_and_not_of_the_probability(images: Tensor) -> None:
    """Of (k + 1) Σ x³ it is 3 (k + 1) x²; a softmax would mix in the other classes."""
    expected = 3 * (TARGETS + 1).view(-1, 1, 1, 1) * images**2
    torch.testing.assert_close(maps_of(Cubic(), "gradient", images), expected)


@pytest.mark.parametrize(("steps", "exact"), [(1, False), (2, True), (50, True)])
def test_two_gauss_legendre_points_integrate_a_cubic_network_exactly(images: Tensor, steps: int, exact: bool) -> None:
    expected = (TARGETS + 1).view(-1, 1, 1, 1) * images**3
    maps = maps_of(Cubic(), "integrated_gradients", images, steps=steps)
    assert torch.allclose(maps, expected, rtol=1e-6) == exact


def test_integrated_gradients_are_complete_within_one_percent_on_a_relu_network() -> None:
    """For the class whose logit moved furthest from black: the relative error of one that hardly moved says nothing."""
    images = torch.rand(N, C, 12, 9, dtype=torch.float64)
    layers = (nn.Conv2d(C, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten())
    network = nn.Sequential(*layers, nn.Linear(16 * 10 * 7, K)).double().eval().requires_grad_(False)
    rise = network(images) - network(torch.zeros_like(images))
    targets = rise.abs().argmax(dim=1)
    above = rise.gather(1, targets[:, None])[:, 0]

    def error(name: str, options: dict[str, Any]) -> float:
        maps = explainer(network, name, options, 2)(images, targets, SEEDS)
        return float((maps.sum(dim=(1, 2, 3)) / above - 1).abs().max())

    assert error("integrated_gradients", {"steps": 50}) < 0.01
    assert error("gradient_x_input", {}) > 0.05  # the network is far from linear


def test_integrated_gradients_keep_to_the_batch_size() -> None:
    """As many images in one pass as were asked for, however many steps there are."""
    seen: list[int] = []
    network = Cubic()
    network.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    maps_of(network, "integrated_gradients", torch.rand(N, C, H, W), batch_size=2, steps=9)
    assert max(seen) <= 2


def test_smoothgrad_averages_the_gradient_over_unclipped_noise_of_the_given_width() -> None:
    """Of Σ x³ the expected gradient is 3 (x² + σ²) with noise that is not clipped: on black it is 3 σ² > 0."""
    black = torch.zeros(N, C, 40, 30, dtype=torch.float64)
    maps = maps_of(Cubic(), "smoothgrad", black, samples=20, sigma=0.2)
    means = maps.mean(dim=(1, 2, 3)) / (TARGETS + 1)
    torch.testing.assert_close(means, torch.full_like(means, 3 * 0.2**2), rtol=0.05, atol=0)


def test_smoothgrad_noise_has_both_signs(images: Tensor) -> None:
    """3 (x + d)² averages to 3 x² + 6 x E[d] + 3 σ²: with one-signed noise the middle term would show."""
    grey = torch.full((N, C, 40, 30), 0.5, dtype=torch.float64)
    means = maps_of(Cubic(), "smoothgrad", grey, samples=20, sigma=0.1).mean(dim=(1, 2, 3)) / (TARGETS + 1)
    torch.testing.assert_close(means, torch.full_like(means, 3 * (0.25 + 0.01)), rtol=0.01, atol=0)


def test_random_is_uniform_between_minus_one_and_one(linear: Linear) -> None:
    maps = maps_of(linear, "random", torch.zeros(N, 3, 60, 50, dtype=torch.float64))
    assert maps.min() >= -1
    assert maps.max() < 1
    for part in maps:  # each of 9000 values: quartiles of U(-1, 1) within 5 standard errors
        quartiles = part.flatten().quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
        torch.testing.assert_close(quartiles, torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64), rtol=0, atol=0.055)


def test_random_depends_on_the_images_own_seed_alone(linear: Linear, images: Tensor) -> None:
    explain = explainer(linear, "random", {}, 2)
    maps, order = explain(images, TARGETS, SEEDS), torch.tensor([2, 0, 1])
    assert torch.equal(explain(1 - images[order], 0 * TARGETS, SEEDS[order]), maps[order])
    assert not torch.equal(maps[0], maps[1])
    assert not torch.equal(explain(images, TARGETS, SEEDS + 1), maps)


def test_sobel_answers_on_both_sides_of_a_step_and_nowhere_else(linear: Linear) -> None:
    images = torch.zeros(N, C, H, W, dtype=torch.float64)
    images[0, 0, :, 2:] = 0.5  # a vertical edge, first channel
    images[1, 1, 3:, :] = -0.25  # a horizontal edge that falls, second channel
    expected = torch.zeros_like(images)
    expected[0, 0, :, 1:3] = 4 * 0.5
    expected[1, 1, 2:4, :] = 4 * 0.25
    torch.testing.assert_close(maps_of(linear, "sobel", images), expected)


def test_sobel_of_an_oblique_ramp_is_the_length_of_its_slope(linear: Linear) -> None:
    rows, columns = torch.arange(H, dtype=torch.float64)[:, None], torch.arange(W, dtype=torch.float64)
    images = (0.03 * rows + 0.04 * columns).expand(N, C, H, W)
    expected = torch.full_like(images, 8 * 0.05)
    expected[:, :, :, [0, -1]] = 8 * (0.03**2 + 0.02**2) ** 0.5  # a replicated border halves the slope across it
    torch.testing.assert_close(maps_of(linear, "sobel", images)[:, :, 1:-1], expected[:, :, 1:-1])


class Broken(nn.Module):
    """Σ √x has an infinite slope on black pixels, and √ of a negative one is NaN."""

    def forward(self, images: Tensor) -> Tensor:
        return images.sqrt().sum(dim=(1, 2, 3))[:, None].expand(-1, K)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_map_that_is_not_finite_is_an_error_with_the_name_of_its_method(images: Tensor, value: float) -> None:
    images[1, 0, 2, 3] = value
    with pytest.raises(NumericError, match="gradient@mine"):
        maps_of(Broken(), "gradient@mine", images)


def network_of(channels: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    pooled = (nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, K))
    layers = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), *pooled)
    return layers.to(dtype).eval().requires_grad_(False)


def state_of(network: nn.Module) -> tuple[Any, ...]:
    """Everything that an explanation borrows: modes, flags, gradients, hooks; and a copy of the weights and buffers."""
    modules, parameters = list(network.modules()), list(network.parameters())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        [module.training for module in modules],
        [parameter.requires_grad for parameter in parameters],
        [parameter.grad is None for parameter in parameters],
        [[dict(getattr(module, hook)) for hook in hooks] for module in modules],
        {name: value.tolist() for name, value in network.state_dict().items()},
    )


@every_member
@every_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps_are_finite_detached_and_shaped_like_the_images(
    name: str, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    images = torch.rand(N, *shape, dtype=dtype)
    maps = maps_of(network_of(shape[0], dtype), name, images)
    assert (maps.shape, maps.dtype, maps.device) == (images.shape, images.dtype, images.device)
    assert not maps.requires_grad
    assert maps.isfinite().all()
    some = maps.flatten(1).abs().amax(dim=1) > 0
    assert some.any() if name == "grad_cam" else some.all()  # it is rectified: zero where all speaks against the target


@every_member
def test_arguments_are_not_written_into(name: str) -> None:
    images, targets, seeds = torch.rand(N, 3, 6, 8), TARGETS.clone(), SEEDS.clone()
    copies = images.clone(), targets.clone(), seeds.clone()
    options = {**OPTIONS.get(name, {})}
    ready(network_of(3), name, (3, 6, 8), 5, **options)(images, targets, seeds)
    assert all(torch.equal(a, b) for a, b in zip((images, targets, seeds), copies, strict=True))
    assert not images.requires_grad
    assert images.grad is None
    assert options == OPTIONS.get(name, {})


@every_member
@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_given_back_as_it_was(name: str, training: bool) -> None:
    """Also one that was handed over in training mode, and one of whose layers is in another mode than the rest."""
    network = network_of(3)
    if training:
        network.train().requires_grad_(True)
        network.get_submodule("0").eval()
    network.register_forward_hook(lambda *_: None)
    before = state_of(network)
    maps_of(network, name, torch.rand(N, 3, 6, 8))
    assert state_of(network) == before


@pytest.mark.parametrize("name", [name for name, entry in ATTRIBUTIONS.items() if entry.kind == "method"])
def test_the_network_is_given_back_after_an_error(name: str) -> None:
    network = network_of(3).train().requires_grad_(True)
    before = state_of(network)
    with pytest.raises(RuntimeError):  # there is no such class
        ready(network, name, (3, 6, 8))(torch.rand(N, 3, 6, 8), TARGETS + 7, SEEDS)
    assert state_of(network) == before


@every_member
def test_the_forward_pass_is_the_networks_own(name: str) -> None:
    """What hears it (metrics/recalled.py) hears the logits of the images, in a batch as in the last of several."""
    network, images = network_of(3), torch.rand(N, 3, 6, 8)
    expected = network(images)
    explain, predict = ready(network, name, (3, 6, 8), N), Recalled(network)
    explain(images, TARGETS, SEEDS)
    assert torch.equal(predict(images), expected)


@every_member
@every_shape
def test_a_batch_is_as_one_by_one(name: str, shape: tuple[int, int, int]) -> None:
    network, images = network_of(shape[0]), torch.rand(N, *shape)
    whole = maps_of(network, name, images, batch_size=N)
    for size in (1, 2, 9):
        torch.testing.assert_close(maps_of(network, name, images, batch_size=size), whole, rtol=0, atol=1e-6)


@every_member
def test_order_and_batch_mates_do_not_matter(name: str) -> None:
    network, images, order = network_of(3), torch.rand(N, 3, 6, 8), torch.tensor([2, 0, 1])
    run = ready(network, name, (3, 6, 8))
    whole = run(images, TARGETS, SEEDS)
    moved = run(images[order], TARGETS[order], SEEDS[order])
    torch.testing.assert_close(moved, whole[order], rtol=0, atol=1e-6)
    torch.testing.assert_close(run(images[1:2], TARGETS[1:2], SEEDS[1:2]), whole[1:2], rtol=0, atol=1e-6)


@every_member
def test_the_same_seed_gives_the_same_map_whatever_the_global_generator(name: str) -> None:
    network, images = network_of(3), torch.rand(N, 3, 6, 8)
    first = maps_of(network, name, images)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(maps_of(network, name, images), first)
    assert torch.equal(torch.get_rng_state(), state)


@every_member
def test_gradients_may_be_switched_off_around_it(name: str) -> None:
    network, images = network_of(3), torch.rand(N, 3, 6, 8)
    with torch.no_grad():
        inside = maps_of(network, name, images)
    assert torch.equal(inside, maps_of(network, name, images))


@every_member
def test_no_image_gives_no_map(name: str) -> None:
    nothing = torch.rand(0, 3, 6, 8)
    maps = ready(network_of(3), name, (3, 6, 8))(nothing, TARGETS[:0], SEEDS[:0])
    assert maps.shape == nothing.shape


@pytest.mark.parametrize("name", [n for n, entry in ATTRIBUTIONS.items() if entry.kind == "control" and not entry.of])
def test_a_control_that_is_of_no_method_knows_nothing_of_network_and_target(name: str) -> None:
    images = torch.rand(N, 3, 6, 8)
    run, again = ready(network_of(3), name, (3, 6, 8)), ready(network_of(3), name, (3, 6, 8))
    assert torch.equal(run(images, TARGETS, SEEDS), again(images, (TARGETS + 1) % K, SEEDS))


def test_whoever_is_made_of_another_member_is_a_control_and_says_so() -> None:
    of = [name for name in ATTRIBUTIONS if "of" in OPTIONS.get(name, {})]
    assert of == [name for name, entry in ATTRIBUTIONS.items() if entry.of]
    assert {ATTRIBUTIONS[name].kind for name in of} == {"control"}


@pytest.mark.parametrize("name", [n for n, entry in ATTRIBUTIONS.items() if entry.kind == "method"])
def test_a_method_explains_the_target_that_it_is_given(name: str) -> None:
    network, images = network_of(3), torch.rand(N, 3, 6, 8)
    run = ready(network, name, (3, 6, 8))
    assert not torch.allclose(run(images, TARGETS, SEEDS), run(images, (TARGETS + 1) % K, SEEDS))


@every_member
def test_an_image_of_saturated_pixels_is_explained_like_any_other(name: str) -> None:
    """No clamp in the differentiated path: with one, pixels at 0 and 1 would get no gradient."""
    images = torch.rand(N, 3, 6, 8).round()
    maps = maps_of(network_of(3), name, images)
    if ATTRIBUTIONS[name].kind == "method" and name not in ("gradient_x_input", "integrated_gradients", "grad_cam"):
        assert (maps.abs().sum(dim=1) > 0).all()
    assert maps.isfinite().all()
