"""What holds for every attack of the registry, under both norms."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor, nn

from epsilens.attacks import ATTACKS, STANDARD, ThreatModel, bound, ensemble_name, margins
from epsilens.attacks.config import Member
from epsilens.errors import ConfigError, NumericError

SHAPE = (2, 12, 10)  # channels, height, width: all different
OPTIONS = {
    "pgd": {"steps": 6, "step_factor": 2.5, "restarts": 3},
    "apgd_ce": {"iterations": 12},
    "apgd_dlr": {"iterations": 12},
    "apgd_t": {"iterations": 12, "targets": 3},
    "fab_t": {"iterations": 12, "targets": 3},
    "square": {"queries": 800},
}
BUDGETS = {"linf": 32.0, "l2": 1.2}
CASES = [(name, norm) for name in ATTACKS for norm in BUDGETS]


def network() -> nn.Module:
    torch.manual_seed(3)
    layers = nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5)
    return nn.Sequential(*layers).double().eval().requires_grad_(False)


def batch(model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Images with saturated pixels among them, most of which the network gets right."""
    torch.manual_seed(4)
    images = (1.4 * torch.rand(12, *SHAPE, dtype=torch.float64) - 0.2).clamp(0, 1)
    labels = model(images).argmax(dim=1)
    labels[0] = (labels[0] + 1) % 5
    return images, labels, torch.arange(50, 62)


def run(name: str, norm: str, budget: float | None = None, rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
    model = network()
    images, labels, seeds = batch(model)
    threat = ThreatModel.of(norm, BUDGETS[norm] if budget is None else budget)
    return bound(name, OPTIONS[name], "key")(model, images[rows], labels[rows], threat, seeds[rows])


def test_every_attack_is_here_with_a_source() -> None:
    assert set(OPTIONS) == set(ATTACKS)
    assert all("arXiv:" in attack.source for attack in ATTACKS.values())


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_what_is_found_is_inside_and_its_margin_is_true(name: str, norm: str) -> None:
    model = network()
    images, labels, _ = batch(model)
    found, margin = run(name, norm)
    threat = ThreatModel.of(norm, BUDGETS[norm])
    threat.verify(images, found)
    assert threat.measure(images, found).max() > 0.5 * threat.epsilon
    torch.testing.assert_close(margin, margins(model(found), labels), rtol=0, atol=1e-9)
    clean = margins(model(images), labels)
    assert (margin[1:] <= clean[1:] + 1e-9).all()
    assert (margin <= 0).sum() > 1 + (clean <= 0).sum(), "the attack finds nothing"


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_the_same_again_and_one_by_one(name: str, norm: str) -> None:
    found, margin = run(name, norm)
    again, _ = run(name, norm)
    assert torch.equal(found, again)
    for row in (0, 5, 11):
        alone, alone_margin = run(name, norm, rows=slice(row, row + 1))
        torch.testing.assert_close(alone, found[row : row + 1], rtol=0, atol=1e-9)
        torch.testing.assert_close(alone_margin, margin[row : row + 1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["apgd_ce", "apgd_t", "square"])
def test_a_label_gives_noise_of_its_own(name: str) -> None:
    model = network()
    images, labels, seeds = batch(model)
    threat = ThreatModel.of("linf", 2.0)
    first, second = (
        bound(n, OPTIONS[name], "key")(model, images, labels, threat, seeds)[0] for n in (name, f"{name}@b")
    )
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_arguments_are_untouched(name: str, norm: str) -> None:
    model = network()
    images, labels, seeds = batch(model)
    before = images.clone(), labels.clone(), seeds.clone(), torch.random.get_rng_state()
    bound(name, OPTIONS[name], "key")(model, images, labels, ThreatModel.of(norm, BUDGETS[norm]), seeds)
    assert all(
        torch.equal(a, b) for a, b in zip(before, (images, labels, seeds, torch.random.get_rng_state()), strict=True)
    )
    assert not images.requires_grad


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_epsilon_zero_changes_nothing(name: str, norm: str) -> None:
    images, *_ = batch(network())
    found, _ = run(name, norm, budget=0.0)
    assert torch.equal(found, images)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_success_rises_with_epsilon_and_reaches_all(name: str, norm: str) -> None:
    small, large, all_of_it = (0.05, 1.2, 8.0) if norm == "l2" else (1.0, 32.0, 200.0)
    rates = [int((run(name, norm, budget)[1] <= 0).sum()) for budget in (small, large, all_of_it)]
    assert rates[0] < rates[1] <= rates[2] == 12


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_a_nan_weight_is_an_error_and_no_class(name: str, norm: str) -> None:
    model = network()
    images, labels, seeds = batch(model)
    next(model.parameters()).data[0, 0, 0, 0] = torch.nan
    with pytest.raises(NumericError, match="NaN"):
        bound(name, OPTIONS[name], "key")(model, images, labels, ThreatModel.of(norm, BUDGETS[norm]), seeds)


@pytest.mark.parametrize("name", ATTACKS)
def test_options_are_checked(name: str) -> None:
    key = next(iter(OPTIONS[name]))
    with pytest.raises(ConfigError, match=rf"key\.{name}\.{key}.*\n?.*") as found:
        bound(name, {**OPTIONS[name], key: 0, "stepps": 3}, "key")
    assert "stepps: unknown key" in str(found.value)
    assert all(p.default is p.empty for p in inspect.signature(ATTACKS[name].run).parameters.values())


def test_the_standard_protocol_is_that_of_the_paper() -> None:
    assert list(STANDARD.items()) == [
        ("apgd_ce", {"iterations": 100}),
        ("apgd_t", {"iterations": 100, "targets": 9}),
        ("fab_t", {"iterations": 100, "targets": 9}),
        ("square", {"queries": 5000}),
    ]


def test_only_the_standard_protocol_is_called_autoattack() -> None:
    standard = [Member(name=name, options=options) for name, options in STANDARD.items()]
    fewer = Member(name="square", options={"queries": 4999})
    assert ensemble_name(standard) == "autoattack"
    assert ensemble_name([*standard[:3], fewer]) == "ensemble"
    assert ensemble_name(standard[::-1]) == "ensemble"
    assert ensemble_name(standard[:1]) == "ensemble"
