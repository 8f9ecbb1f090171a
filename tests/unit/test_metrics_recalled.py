"""A forward pass is not repeated, and what is recalled is what the network would say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from epsilens.attributions import explainer
from epsilens.metrics.evidence import Evidence
from epsilens.metrics.recalled import Recalled


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.passes = 0
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 4))

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        return self.head(images)


@pytest.fixture
def network() -> Counting:
    return Counting().eval().requires_grad_(False)


def test_the_last_pass_is_not_repeated_whoever_made_it(network: Counting) -> None:
    predict, images = Recalled(network), torch.rand(2, 3, 4, 5)
    there = network(images.clone().requires_grad_())
    found = predict(images)
    assert network.passes == 1
    assert torch.equal(found, there)
    assert not found.requires_grad
    assert torch.equal(predict(images), found)
    assert network.passes == 1


@pytest.mark.parametrize("change", [lambda x: x + 1e-7, lambda x: x[:1], lambda x: x.flip(0), lambda x: x * torch.nan])
def test_other_images_are_asked_for(network: Counting, change) -> None:
    predict, images = Recalled(network), torch.rand(2, 3, 4, 5)
    predict(images)
    found = predict(change(images))
    assert network.passes == 2
    assert torch.equal(found.isnan(), change(images).isnan().flatten(1)[:, :1].expand_as(found))
    assert torch.equal(found.nan_to_num(), network.head(change(images)).nan_to_num())
    predict(change(images))
    assert network.passes == (3 if change(images).isnan().any() else 2)  # NaN is never the same


def test_what_was_forgotten_is_asked_for(network: Counting) -> None:
    predict, images = Recalled(network), torch.rand(2, 3, 4, 5)
    before = predict(images)
    predict.forget()
    assert torch.equal(predict(images), before)
    assert network.passes == 2


def test_other_types_are_asked_for(network: Counting) -> None:
    predict, images = Recalled(network), torch.ones(2, 3, 4, 5)
    predict(images)
    assert predict(images.double() if network.double() else images).dtype == torch.float64


def test_what_is_written_into_afterwards_is_not_recalled(network: Counting) -> None:
    predict, images = Recalled(network), torch.rand(2, 3, 4, 5)
    network(images).zero_()
    predict(images).zero_()
    assert torch.equal(predict(images), network.head(images))
    before = predict(images)
    images.mul_(2)
    assert torch.equal(predict(images), network.head(images))
    assert not torch.equal(predict(images), before)


def test_a_neighbourhood_takes_one_pass_a_sample_and_has_the_same_values(network: Counting) -> None:
    images, rows = torch.rand(2, 3, 4, 5), torch.arange(2)
    masks, explain = torch.zeros(2, 4, 5, dtype=torch.bool), explainer(network, "gradient", {}, 2)
    maps = explain(images, rows, rows)
    apart = Evidence(images, rows, maps, masks, rows, network, explain, 2).neighbourhood(8, 5)
    predict, before = Recalled(network), network.passes
    shared = Evidence(images, rows, maps, masks, rows, predict, explain, 2).neighbourhood(8, 5)
    assert network.passes - before == 5
    for name in ("attributions", "logits", "kept"):
        assert torch.equal(getattr(apart, name), getattr(shared, name))
