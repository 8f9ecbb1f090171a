"""AutoAttack against pyautoattack, which is bit-identical to the authors' code: attack by attack, and as a whole.

The noise differs (ours is per image, theirs one stream for a batch), so single verdicts near the boundary may; figures on
512 images are in docs/log.md, from benchmarks/attacks.py.
"""

from __future__ import annotations

import pytest
import torch
from pyautoattack import AutoAttack
from pyautoattack.fab_projections import projection_l2, projection_linf
from torch import Tensor, nn
from torch.nn import functional as F

from epsilens.attacks import STANDARD, SURVIVED, Setting, ThreatModel, bound, fab, open_ledger, run
from epsilens.attacks.planes import to_plane
from epsilens.models.folding import Folded
from epsilens.types import Samples

NORMS = {"linf": "Linf", "l2": "L2"}
BUDGETS = {"linf": 14.0, "l2": 0.88}
SQUARE_BUDGETS = {"linf": 15.0, "l2": 1.5}
THEIRS = {"apgd_ce": "apgd-ce", "apgd_t": "apgd-t", "fab_t": "fab-t", "square": "square"}
QUERIES = 400  # of Square, here
N = 48


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Samples]:
    """A small network with batch norm on bright patches that overlap, and images that it gets right."""
    torch.manual_seed(0)
    labels = torch.arange(160) % 5
    images = (0.5 + 0.15 * torch.randn(160, 3, 15, 15)).clamp(0, 1)
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = [(1, 1), (1, 8), (8, 1), (8, 8), (5, 5)][label]
        image[:, top : top + 5, left : left + 5] += 0.2
    images = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(144, 5),
    )  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        F.cross_entropy(network(images / 255 + 0.05 * torch.randn(images.shape)), labels).backward()
        optimiser.step()
    network.eval().requires_grad_(False)
    right = network(images / 255).argmax(dim=1) == labels
    empty = torch.zeros(160, 15, 15, dtype=torch.bool)
    return network, Samples(images, labels, empty, torch.arange(160))[right][:N]


def reference(network: nn.Module, samples: Samples, threat: ThreatModel, attacks: list[str]) -> Tensor:
    """Which images survive theirs."""
    norm, epsilon = threat.norm, threat.epsilon
    attack = AutoAttack(network, norm=NORMS[norm], eps=epsilon, seed=0, version="custom", attacks=attacks)
    attack.apgd.n_restarts = attack.fab.n_restarts = attack.apgd_targeted.n_restarts = 1
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = 4
    attack.square.n_queries = QUERIES
    found, _ = attack.run_standard_evaluation(samples.pixels(), samples.labels, batch_size=N)
    return network(found).argmax(dim=1) == samples.labels


def options(name: str) -> dict[str, int]:
    return (
        {"queries": QUERIES} if name == "square" else {**STANDARD[name], **({"targets": 4} if name[-1] == "t" else {})}
    )


def both(name: str, threat: ThreatModel, network: nn.Module, samples: Samples) -> tuple[Tensor, Tensor]:
    """Which images survive our attack, and theirs."""
    theirs = reference(network, samples, threat, [THEIRS[name]])
    _, margin = bound(name, options(name), "key")(network, samples.pixels(), samples.labels, threat, samples.ids)
    assert 5 <= theirs.sum() <= N - 5, "the budget decides nothing"
    return margin > 0, theirs


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["apgd_ce", "apgd_t", "fab_t"])
def test_each_attack_is_as_strong_as_the_reference(name: str, norm: str, trained: tuple[nn.Module, Samples]) -> None:
    ours, theirs = both(name, ThreatModel.of(norm, BUDGETS[norm]), *trained)
    assert (ours != theirs).sum() <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_square_is_not_weaker_than_the_reference(norm: str, trained: tuple[nn.Module, Samples]) -> None:
    """It may be stronger: each image has squares of its own, and they reach the last row and column."""
    ours, theirs = both("square", ThreatModel.of(norm, SQUARE_BUDGETS[norm]), *trained)
    assert ours.sum() <= theirs.sum() + 2


@pytest.mark.parametrize("norm", NORMS)
def test_autoattack_gives_the_verdicts_of_the_reference(norm: str, trained: tuple[nn.Module, Samples]) -> None:
    network, samples = trained
    threat = ThreatModel.of(norm, BUDGETS[norm])
    theirs = reference(network, samples, threat, list(THEIRS.values()))
    attacks = [bound(name, options(name), "key") for name in STANDARD]
    ledger = open_ledger(network, samples, N)
    run(attacks, samples, Setting(Folded(network).predict, network, threat, 0, 20), ledger, lambda _: None)
    ours = ledger.broken_by == SURVIVED
    assert (ours != theirs).sum() <= 1
    assert 5 <= ours.sum() <= N - 5


@pytest.mark.parametrize("norm", NORMS)
def test_fab_finds_perturbations_as_small_as_the_reference(norm: str, trained: tuple[nn.Module, Samples]) -> None:
    network, samples = trained
    images, labels = samples.pixels(), samples.labels
    attack = AutoAttack(network, norm=NORMS[norm], eps=10.0, seed=0).fab  # any distance counts
    attack.target_class = 2
    theirs = attack.attack_single_run(images, labels, is_targeted=True) - images
    target = network(images).argsort(dim=1)[:, -2]
    _, ours = fab(network, images, labels, target, norm, iterations=100, enough=0.0)
    size = theirs.flatten(1).abs().amax(dim=1) if norm == "linf" else theirs.flatten(1).norm(dim=1)
    same = (ours - size).abs() <= 2e-3 * size  # rounding may send an image along another path
    assert same.double().mean() >= 0.9
    assert ours.mean() == pytest.approx(float(size.mean()), rel=0.02)


@pytest.mark.parametrize(("norm", "projection"), [("linf", projection_linf), ("l2", projection_l2)])
def test_to_plane_equals_the_projections_of_fab(norm: str, projection: object) -> None:
    torch.manual_seed(0)
    points, normal = (1.4 * torch.rand(50, 90).double() - 0.2).clamp(0, 1), torch.randn(50, 90).double()
    offset = (normal * points).sum(1) + 6 * torch.randn(50).double()
    torch.testing.assert_close(
        to_plane(points, normal, offset, norm), projection(points, normal, offset), rtol=0, atol=1e-9
    )
