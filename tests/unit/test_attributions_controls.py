"""Closed forms of the controls, and of the network that has learned nothing."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from epsilens.attributions import check, explainer
from epsilens.attributions.config import AttributeConfig
from epsilens.attributions.randomise import randomised
from epsilens.errors import ConfigError, DataError
from epsilens.models import build
from epsilens.randomness import noise_seeds

N, C, K = 3, 3, 4
TARGETS = torch.tensor([2, 0, 3])
SEEDS = noise_seeds(7, torch.tensor([11, 3, 8]))
GRADIENT: dict[str, Any] = {"of": {"gradient": {}}}


class Given(nn.Module):
    """A network whose gradient is the given map, whatever the image and class."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images: Tensor) -> Tensor:
        return (images * self.maps).sum(dim=(1, 2, 3))[:, None].expand(-1, K)


def control(name: str, maps: Tensor, seeds: Tensor = SEEDS, **given: Any) -> Tensor:
    """The control made of these maps [N, C, H, W], all images in one batch."""
    run = explainer(Given(maps), name, {**GRADIENT, **given}, len(maps))
    return run(torch.rand_like(maps), torch.zeros(len(maps), dtype=torch.int64), seeds)


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 5), (9, 6), (1, 4)])
def test_blurred_random_has_the_spectra_of_the_real_map_within_and_between_channels(height: int, width: int) -> None:
    maps = torch.randn(N, C, height, width, dtype=torch.float64)
    noise = control("blurred_random", maps)
    real, other = torch.fft.fft2(maps), torch.fft.fft2(noise)
    torch.testing.assert_close(other.abs(), real.abs())
    torch.testing.assert_close(other[:, 0] * other[:, 1].conj(), real[:, 0] * real[:, 1].conj())
    assert (noise - maps).abs().amax(dim=(1, 2, 3)).min() > 0.1


def test_blurred_random_of_a_single_pixel_is_white_and_of_a_constant_constant() -> None:
    maps = torch.zeros(2, 1, 16, 12, dtype=torch.float64)
    maps[0, 0, 5, 7], maps[1] = 3, 2
    noise = control("blurred_random", maps, SEEDS[:2])
    torch.testing.assert_close(torch.fft.fft2(noise[0]).abs(), torch.full((1, 16, 12), 3.0).double())
    assert (noise[0].abs() > 0.01).double().mean() > 0.9  # spread all over
    torch.testing.assert_close(noise[1].abs(), maps[1])


def test_blurred_random_forgets_where_and_draws_from_the_images_own_seed() -> None:
    """Over many images its correlation with the real map is that of independent maps."""
    count = 400
    maps = torch.randn(1, 1, 10, 8, dtype=torch.float64).expand(count, -1, -1, -1)
    noise = control("blurred_random", maps, noise_seeds(1, torch.arange(count)))
    flat, real = noise.flatten(1), maps.flatten(1) - maps.mean()
    flat = flat - flat.mean(dim=1, keepdim=True)
    correlation = (flat * real).sum(dim=1) / (flat.norm(dim=1) * real.norm(dim=1))
    assert abs(float(correlation.mean())) < 5 * float(correlation.std()) / count**0.5
    power = (
        torch.fft.fft2(maps[0]).abs().flatten()[1:] ** 2
    )  # each cosine of a phase has the variance 1/2, and comes twice
    assert float(correlation.std()) == pytest.approx(float(power.norm() / power.sum()), rel=0.15)
    assert torch.equal(control("blurred_random", maps[:3]), control("blurred_random", maps[:3]))
    assert not torch.equal(control("blurred_random", maps[:3]), control("blurred_random", maps[:3], SEEDS + 1))


def test_deviation_is_the_distance_from_the_images_own_mean_in_each_channel() -> None:
    images = torch.tensor([[[[0.0, 0.4], [0.2, 0.6]], [[1.0, 1.0], [1.0, 1.0]]]], dtype=torch.float64)
    expected = torch.tensor([[[[0.3, 0.1], [0.1, 0.3]], [[0.0, 0.0], [0.0, 0.0]]]], dtype=torch.float64)
    torch.testing.assert_close(explainer(Given(images), "deviation", {}, 2)(images, TARGETS[:1], SEEDS[:1]), expected)


def test_inverse_turns_the_ranking_of_pixel_weights_upside_down() -> None:
    first = torch.tensor([[[1.0, -4.0, 0.5], [0.0, 3.0, -0.5]], [[-1.0, 4.0, 0.0], [0.0, 0.0, 0.0]]])
    weights = torch.tensor([[2.0, 8.0, 0.5], [0.0, 3.0, 0.5]])
    assert torch.equal(first.abs().sum(dim=0), weights)
    turned = control("inverse", torch.stack([first, first.flip(2) * 7]).double(), SEEDS[:2])
    expected = 1 - torch.tensor([[4.0, 6.0, 2.5], [1.0, 5.0, 2.5]], dtype=torch.float64) / 6
    torch.testing.assert_close(turned.sum(dim=1), torch.stack([expected, expected.flip(1)]))
    assert torch.equal(turned[:, 0], turned[:, 1])


def test_inverse_of_nothing_is_nothing() -> None:
    maps = torch.randn(2, C, 4, 5)
    maps[1] = 0
    turned = control("inverse", maps, SEEDS[:2])
    assert turned[0].any()
    assert not turned[1].any()


def small() -> nn.Sequential:
    """A residual network that looks trained: weights and statistics far from where they began."""
    network = build("small_resnet", {"width": 4, "stem_stride": 1}, K, [0.4, 0.5, 0.6], [0.2, 0.3, 0.25], seed=1)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point() and tensor.dim() != 3:  # the statistics of the pixels have 3
            tensor.data = tensor.data + 1 + torch.rand(tensor.shape)
    return network.eval()


def test_randomised_begins_anew_and_keeps_what_is_no_weight() -> None:
    network = small()
    fresh, before = randomised(network, 3), {name: value.clone() for name, value in network.state_dict().items()}
    start = build("small_resnet", {"width": 4, "stem_stride": 1}, K, [0.4, 0.5, 0.6], [0.2, 0.3, 0.25], seed=9)
    for (name, new), begun in zip(fresh.state_dict().items(), start.state_dict().values(), strict=True):
        if "conv" in name or name.endswith(("head.weight", "head.bias")):
            assert not torch.isclose(new, network.state_dict()[name]).any()
            assert new.abs().max() <= begun.abs().max() * 1.5  # the same range, other draws
            assert not torch.equal(new, begun)
        elif name.startswith("0.") or "features.0" not in name:
            assert torch.equal(new, begun) or new.dim() == 4, name
    assert torch.equal(fresh.get_buffer("0.mean"), network.get_buffer("0.mean"))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_randomised_resets_the_statistics_of_batch_normalisation() -> None:
    for module in randomised(small(), 3).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            assert (module.running_mean == 0).all()
            assert (module.running_var == 1).all()
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


def test_randomised_depends_on_the_seed_alone() -> None:
    network, other = small(), small().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs
    for parameter in other.parameters():
        parameter.data *= 2
    state = torch.get_rng_state()
    first = nn.utils.parameters_to_vector(randomised(network, 3).parameters())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(nn.utils.parameters_to_vector(randomised(other, 3).parameters()), first)
    assert not torch.equal(nn.utils.parameters_to_vector(randomised(network, 4).parameters()), first)
    pointers = {parameter.data_ptr() for parameter in network.parameters()}
    assert pointers.isdisjoint(parameter.data_ptr() for parameter in randomised(network, 3).parameters())


def changed(network: nn.Module, layers: int | Literal["all"]) -> set[str]:
    """The modules of which some tensor is not as it was learned."""
    new, old = randomised(network, 3, layers).state_dict(), network.state_dict()
    return {name.rpartition(".")[0] for name in new if not torch.equal(new[name], old[name])}


def test_randomised_goes_from_the_top_down() -> None:
    """The last two convolutions and linear layers are random, with the normalisation between them; then three; then all."""
    network = small()
    begun = [name for name, module in network.named_modules() if hasattr(module, "reset_parameters")]
    heavy = [name for name in begun if isinstance(network.get_submodule(name), nn.Conv2d | nn.Linear)]
    assert changed(network, 1) == {heavy[-1]} == {"1.head"}
    for layers in (2, 3, len(heavy)):
        assert changed(network, layers) == set(begun[begun.index(heavy[-layers]) :])
    assert changed(network, 2) > {heavy[-2], heavy[-1]}  # something is normalised between them
    assert changed(network, len(heavy)) == changed(network, "all") == set(begun)
    two, everything = randomised(network, 3, 2).state_dict(), randomised(network, 3).state_dict()
    assert all(torch.equal(two[f"{name}.weight"], everything[f"{name}.weight"]) for name in heavy[-2:])


def test_a_container_that_can_begin_anew_is_no_layer_of_its_own() -> None:
    class Block(nn.Sequential):
        def reset_parameters(self) -> None:
            """Its parts have their own."""

    network = nn.Sequential(Block(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), nn.Flatten(), nn.Linear(16, K))
    assert changed(network, 2) == {"0.1", "2"}
    assert changed(network, 3) == {"0.0", "0.1", "2"}
    with pytest.raises(ConfigError, match="found 4, expected 1 to 3"):
        randomised(network, 0, 4)


def test_a_random_head_on_a_learned_body_leaves_the_features_and_changes_the_logits() -> None:
    network, images = small(), torch.rand(N, C, 9, 8)
    fresh = randomised(network, 3, 1)
    torch.testing.assert_close(fresh.get_submodule("1.features")(images), network.get_submodule("1.features")(images))
    assert not torch.allclose(fresh(images), network(images))


def test_more_random_layers_than_there_are_is_an_error() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, K))
    randomised(network, 0, 2)
    with pytest.raises(ConfigError, match=r"layers: found 3, expected 1 to 2, .*, or all"):
        randomised(network, 0, 3)


def test_randomised_refuses_a_layer_that_it_cannot_begin_anew() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3, 1, 1))

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(Scale()))
    with pytest.raises(DataError, match=r"layer '1\.0' \(Scale\) has parameters and no reset_parameters"):
        randomised(network, 0)


def test_the_control_of_random_weights_is_the_method_on_the_randomised_network() -> None:
    network, images = small(), torch.rand(N, C, 9, 8)
    given = {"of": {"smoothgrad": {"samples": 2, "sigma": 0.1}}, "seed": 3}
    maps = explainer(network, "randomised", given, 2)(images, TARGETS, SEEDS)
    fresh = randomised(network, 3)
    expected = explainer(fresh, "smoothgrad", given["of"]["smoothgrad"], 2)(images, TARGETS, SEEDS)
    assert torch.equal(maps, expected)
    own = explainer(network, "smoothgrad", given["of"]["smoothgrad"], 2)(images, TARGETS, SEEDS)
    assert not torch.allclose(maps, own)


@pytest.mark.parametrize("seed", [-1, 0.5, "0", None])
def test_the_seed_of_random_weights_is_a_number_from_zero(seed: Any) -> None:
    config = AttributeConfig(batch_size=2, gallery=0, seed=0, methods={"randomised": {**GRADIENT, "seed": seed}})
    with pytest.raises(ConfigError, match=r"randomised\.seed: found"):
        check(config)
    check(config.model_copy(update={"methods": {"randomised": {**GRADIENT, "seed": 0}}}))


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"random": {}}, r"blurred_random\.of\.random: found 'random', known are gradient, .*guided_backprop"),
        ({"inverse": {"of": {"gradient": {}}}}, "found 'inverse', known are"),
        ({"smoothgrad": {"samples": 2}}, r"blurred_random\.of\.smoothgrad\.sigma: missing key"),
        ({"gradient": {}, "smoothgrad": {}}, r"blurred_random\.of: found .*at most 1"),
        ({}, r"blurred_random\.of: found \{\}"),
        ("gradient", r"blurred_random\.of: found 'gradient'"),
    ],
)
def test_what_a_control_is_made_of_is_checked_before_anything_runs(of: Any, message: str) -> None:
    config = AttributeConfig(batch_size=2, gallery=0, seed=0, methods={"blurred_random": {"of": of}})
    with pytest.raises(ConfigError, match=message):
        check(config)
