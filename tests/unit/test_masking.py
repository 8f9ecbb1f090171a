"""The gate against masked gradients: each way of masking raises its flag, a plain network raises none."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsilens.attacks import SURVIVED, Ledger, ThreatModel, gate_facts, margins
from epsilens.attacks.masking import CHECKS, probe, verdict

THREAT = ThreatModel.of("linf", 8)
PGD = {"steps": 20, "step_factor": 2.5, "batch_size": 25}


def blobs() -> tuple[Tensor, Tensor]:
    """Grey images with one of five bright corners or centre, some pixels saturated."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 5
    images = 0.5 + 0.1 * torch.randn(60, 3, 12, 12, generator=generator)
    places = [(1, 1), (1, 7), (7, 1), (7, 7), (4, 4)]
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = places[label]
        image[:, top : top + 4, left : left + 4] += 0.25
    images[:, :, 0, :], images[:, :, :, 0] = 0.0, 1.0
    return images.clamp(0, 1), labels


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(12 * 36, 5),
    )  # fmt: skip
    images, labels = blobs()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        noisy = images + 0.1 * torch.randn(images.shape)
        F.cross_entropy(network(noisy), labels).backward()
        optimiser.step()
    network.eval().requires_grad_(False)
    assert (margins(network(images), labels) > 0).all()
    return network


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 15).round() / 15


class Clamped(nn.Module):
    def __init__(self, low: float = 0.0) -> None:
        super().__init__()
        self.low = low

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, 1 - self.low)


class Louder(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 1e4


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * torch.randn_like(x)


MASKS: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "quantised input": (lambda net: nn.Sequential(Rounded(), net), "zero_gradients"),
    "logits times 10,000": (lambda net: nn.Sequential(net, Louder()), "zero_gradients"),
    "clamp in the network": (lambda net: nn.Sequential(Clamped(), net), "saturated_gradients"),
    "narrower clamp": (lambda net: nn.Sequential(Clamped(0.01), net), "saturated_gradients"),
    "random layer": (lambda net: nn.Sequential(Noisy(), net), "random_output"),
    "softmax output": (lambda net: nn.Sequential(net, nn.Softmax(dim=1)), "probabilities"),
}


def flags(network: nn.Module, **changes: float) -> dict:
    images, labels = blobs()
    return verdict(probe(network, images, labels, THREAT, torch.arange(60), **PGD) | changes, 60)


def test_a_plain_network_raises_no_flag(trained: nn.Module) -> None:
    found = flags(trained, gap=0.0, square=0.0, catastrophic_overfitting=0)
    assert found["sound"], found
    assert found["flags"] == []
    assert [check["name"] for check in found["checks"]] == list(CHECKS)
    assert all(check["value"] is not None and not check["failed"] for check in found["checks"])
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("name", MASKS)
def test_masking_raises_its_flag(name: str, trained: nn.Module) -> None:
    mask, flag = MASKS[name]
    found = flags(mask(copy.deepcopy(trained)))
    assert not found["sound"]
    assert flag in found["flags"], found


def test_what_gradients_cannot_see_survives_any_budget(trained: nn.Module) -> None:
    """Rounding also stalls the loss and leaves accuracy where every image may become grey."""
    found = flags(MASKS["quantised input"][0](copy.deepcopy(trained)))
    assert {"loss_stalls", "large_budget"} <= set(found["flags"])
    assert "saturated_gradients" not in found["flags"]  # there is no gradient inside either


def test_a_plain_network_raises_no_flag_under_l2(trained: nn.Module) -> None:
    images, labels = blobs()
    found = verdict(probe(trained, images, labels, ThreatModel("l2", 0.25), torch.arange(60), **PGD), 60)
    assert found["flags"] == []
    assert next(check["value"] for check in found["checks"] if check["name"] == "large_budget") == 0


def test_one_image_with_chance_in_it_is_enough(trained: nn.Module) -> None:
    calls = iter(range(1000))

    def predict(images: Tensor) -> Tensor:
        chance = 0.01 * next(calls) * (images[:, 0, 5, 5] > 0.7)
        return trained(images) + chance[:, None] * nn.functional.one_hot(torch.tensor(0), 5)

    images, labels = blobs()
    assert 0 < (images[:, 0, 5, 5] > 0.7).sum() < 20
    assert probe(predict, images, labels, THREAT, torch.arange(60), **PGD)["random_output"] > 1e-4


def test_logits_that_happen_to_sum_to_one_are_no_distribution(trained: nn.Module) -> None:
    def predict(images: Tensor) -> Tensor:
        logits = trained(images)
        return logits - logits.mean(dim=1, keepdim=True) + 0.2

    images, labels = blobs()
    assert probe(predict, images, labels, THREAT, torch.arange(60), **PGD)["probabilities"] == 0


def test_the_loss_stalls_by_what_many_steps_lack_of_one() -> None:
    """A ripple on a slope: steps of one grey level turn back in it, one step of the whole budget jumps over."""

    def height(levels: Tensor) -> Tensor:
        return 0.2 * levels + 0.5 * torch.sin(1.2 * levels)

    def predict(images: Tensor) -> Tensor:
        levels = (images - 0.5).flatten(1).mean(dim=1) * 255
        return torch.stack([torch.zeros_like(levels), height(levels)], dim=1)

    level = torch.tensor(0.0, dtype=torch.float64)
    for _ in range(20):
        level = (level + torch.sign(0.2 + 0.6 * torch.cos(1.2 * level))).clamp(-8, 8)
    expected = float(1 - height(level) / height(torch.tensor(8.0, dtype=torch.float64)))
    images, labels = torch.full((4, 1, 3, 2), 0.5, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    measured = probe(predict, images, labels, THREAT, torch.arange(4), **PGD)
    assert measured["loss_stalls"] == pytest.approx(expected, abs=1e-6)
    assert expected > 0.5


def test_a_confident_network_is_no_masked_one(trained: nn.Module) -> None:
    """Margins beyond 17, where the cross entropy is 0 in 32 bits and its gradient is not."""
    images, labels = blobs()
    scale = 40 / float(margins(trained(images), labels).median())
    found = verdict(probe(lambda x: scale * trained(x), images, labels, THREAT, torch.arange(60), **PGD), 60)
    assert found["flags"] == []


def test_the_limits_are_those_of_the_documentation() -> None:
    assert {name: check.limit for name, check in CHECKS.items()} == {
        "gap": 0.08, "square": 0.002, "zero_gradients": 0.01, "saturated_gradients": 0.01, "random_output": 1e-4,
        "probabilities": 0.5, "loss_stalls": 0.05, "large_budget": 0.05, "restarts": 0.05, "catastrophic_overfitting": 0,
    }  # fmt: skip


def test_restarts_that_help_are_a_flag() -> None:
    """No gradient at the image itself, one everywhere else."""

    def predict(images: Tensor) -> Tensor:
        away = (images - 0.5).flatten(1).abs().mean(dim=1)
        return torch.stack([1 - (away - 0.002).clamp_min(0) * 500, 0 * away], dim=1)

    images, labels = torch.full((30, 3, 6, 5), 0.5), torch.zeros(30, dtype=torch.int64)
    measured = probe(predict, images, labels, THREAT, torch.arange(30), **PGD)
    assert measured["restarts"] > 0.9
    assert "restarts" in verdict(measured, 30)["flags"]


def test_the_measurements_do_not_depend_on_the_batch(trained: nn.Module) -> None:
    images, labels = blobs()
    parts, whole = (
        probe(trained, images, labels, THREAT, torch.arange(60), **{**PGD, "batch_size": n}) for n in (7, 60)
    )
    assert parts == pytest.approx(whole, abs=1e-5)
    assert set(whole) == set(CHECKS) - {"gap", "square", "catastrophic_overfitting"}


def test_limits_are_exceeded_not_met_and_one_image_never_fails() -> None:
    at_limit = {name: check.limit for name, check in CHECKS.items()}
    assert verdict(at_limit, 1000)["sound"]
    above = {name: limit + 1e-6 for name, limit in at_limit.items()}
    assert verdict(above, 1000)["flags"] == list(CHECKS)
    assert verdict({"square": 1 / 64}, 64)["sound"]
    assert not verdict({"square": 2 / 64}, 64)["sound"]
    assert not verdict({"square": 1 / 64}, 10_000)["sound"]


def test_nan_fails_and_what_was_not_measured_does_not() -> None:
    found = verdict({"random_output": math.nan}, 100)
    assert found["flags"] == ["random_output"]
    assert verdict({}, 100)["sound"]
    assert all(check["value"] is None for check in verdict({}, 100)["checks"])


def test_gap_and_square_are_counted_from_the_ledger() -> None:
    broken_by = torch.tensor([0, 1, 2, 2, SURVIVED, SURVIVED, 3, SURVIVED])
    ledger = Ledger(torch.zeros(8), broken_by, torch.zeros(8, dtype=torch.int64))
    plain = torch.tensor([-1.0, -1, 1, 1, 1, 1, 1, 1])
    facts = gate_facts(["apgd_ce", "square", "square@again"], ledger, plain)
    assert facts == {"gap": 6 / 8 - 3 / 8, "square": 3 / 8}
    assert gate_facts(["square", "apgd_ce", "fab_t"], ledger, plain) == {
        "gap": 3 / 8
    }  # Square came first: nothing to compare
