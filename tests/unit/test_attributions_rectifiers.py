"""Guided backpropagation, and the networks on which methods that hook ReLU are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsilens.attributions import explainer
from epsilens.attributions.rectifiers import require_relu_modules
from epsilens.errors import ConfigError
from epsilens.models import MODELS, build
from epsilens.randomness import noise_seeds
from tests.options import of_network

N, K = 3, 4
TARGETS = torch.tensor([2, 0, 3])
SEEDS = noise_seeds(7, torch.tensor([11, 3, 8]))


@pytest.mark.parametrize("inplace", [False, True])
def test_guided_backprop_is_the_gradient_of_which_each_relu_lets_pass_the_positive_part(inplace: bool) -> None:
    """Two linear layers and ReLUs: the product of matrices, written out."""
    first, second, head = nn.Linear(12, 9), nn.Linear(9, 7), nn.Linear(7, K)
    relus = nn.ReLU(inplace=inplace), nn.ReLU(inplace=inplace)
    network = nn.Sequential(nn.Flatten(), first, relus[0], second, relus[1], head).double()
    images = torch.randn(N, 2, 2, 3, dtype=torch.float64)
    a = first(images.flatten(1))
    b = second(a.relu())
    slope = head.weight[TARGETS].relu() * (b > 0)
    slope = (slope @ second.weight).relu() * (a > 0)
    expected = (slope @ first.weight).view_as(images)
    maps = explainer(network, "guided_backprop", {}, 2)(images, TARGETS, SEEDS)
    torch.testing.assert_close(maps, expected.detach())
    assert not torch.allclose(maps, explainer(network, "gradient", {}, 2)(images, TARGETS, SEEDS))


class Functional(nn.Module):
    """A convolution and an activation between functions, with a ReLU module beside it."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, K)
        self.activation = activation

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.activation(self.conv(images))).mean(dim=(2, 3)))


FUNCTIONAL = {
    "F.relu": F.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": Tensor.relu,
    "clamp": lambda x: x.clamp(0),
    "clamp by name": lambda x: torch.clamp(x, min=0.0),
    "clamp_min": lambda x: x.clamp_min(0),
    "clamp of pixels": lambda x: x.clamp(0, 1),
    "F.relu6": F.relu6,
    "nn.ReLU6": nn.ReLU6(),
    "threshold": lambda x: F.threshold(x, 0, 0),
}
SMOOTH = {
    "tanh": torch.tanh,
    "nothing": lambda x: x,
    "clamp elsewhere": lambda x: x.clamp(-5, 5),
    "clamp from above": lambda x: x.clamp(max=3),
    "normalise": lambda x: F.normalize(x, dim=1),
}


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_a_functional_relu_is_refused(name: str) -> None:
    run = explainer(Functional(FUNCTIONAL[name]), "guided_backprop@mine", {}, 2)
    with pytest.raises(
        ConfigError, match=r"attribute\.methods\.guided_backprop@mine: would be silently wrong.*1 ReLU outside"
    ):
        run(torch.rand(N, 3, 6, 5), TARGETS, SEEDS)


@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_no_relu_is_not_refused(name: str) -> None:
    explainer(Functional(SMOOTH[name]), "guided_backprop", {}, 2)(torch.rand(N, 3, 6, 5), TARGETS, SEEDS)


def test_a_relu_at_two_sites_is_refused_by_its_name() -> None:
    relu = nn.ReLU()
    network = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 1), relu, nn.Flatten(), nn.Linear(48, K))
    with pytest.raises(ConfigError, match="module '1' runs 2 times"):
        require_relu_modules(network, torch.rand(N, 3, 6, 5), "key")
    assert not relu._forward_hooks


def test_a_network_without_relu_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(48, K))
    with pytest.raises(ConfigError, match="found no ReLU"):
        require_relu_modules(network, torch.rand(N, 3, 6, 5), "key")


def test_all_problems_are_named_together() -> None:
    network = Functional(F.relu)
    network.activation = lambda x: network.relu(F.relu(x))
    with pytest.raises(ConfigError, match=r"module 'relu' runs 2 times; 1 ReLU outside an nn\.ReLU module \(relu\)"):
        require_relu_modules(network, torch.rand(N, 3, 6, 5), "key")


def test_a_control_made_of_it_refuses_too_and_other_methods_do_not_care() -> None:
    images, network = torch.rand(N, 3, 6, 5), Functional(F.relu)
    with pytest.raises(ConfigError, match=r"attribute\.methods\.inverse"):
        explainer(network, "inverse", {"of": {"guided_backprop": {}}}, 2)(images, TARGETS, SEEDS)
    explainer(network, "inverse", {"of": {"gradient": {}}}, 2)(images, TARGETS, SEEDS)


@pytest.mark.parametrize("name", MODELS)
def test_every_network_of_the_project_has_a_module_for_each_relu(name: str) -> None:
    network = build(name, of_network(name), K, [0.5] * 3, [0.2] * 3, seed=0).eval()
    require_relu_modules(network, torch.rand(1, 3, 32, 32), "key")
