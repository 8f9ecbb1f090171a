"""Threat models and PGD, on networks whose worst case is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from epsilens.attacks import Setting, ThreatModel, attack_margins, bound, check, clean_margins, margins, pgd, worst_case
from epsilens.attacks.config import AttackConfig, ThreatConfig
from epsilens.errors import ConfigError, NumericError
from epsilens.types import Samples

SHAPE = (2, 5, 4)  # channels, height, width: all different


class Linear:
    """Two classes, logits (0, w·x + b): the strongest perturbation of an image of class 1 is known."""

    def __init__(self, bias: float = 0.0) -> None:
        self.weight = torch.randn(SHAPE, dtype=torch.float64)
        self.bias = bias

    def __call__(self, images: Tensor) -> Tensor:
        score = (images * self.weight.to(images)).flatten(1).sum(1) + self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1)


def images(count: int = 3) -> Tensor:
    return 0.3 + 0.4 * torch.rand(count, *SHAPE, dtype=torch.float64)


def seeds(count: int) -> Tensor:
    return torch.arange(count)


def attack_config(names: tuple[str, ...] = ("square",), **changes: object) -> AttackConfig:
    members = tuple({"name": name, "options": {}} for name in names)
    given: dict = {
        "images": 0, "batch_size": 1, "epsilon": 8.0, "epsilons": {"linf": (8.0,)}, "steps": 1, "step_factor": 1.0,
        "restarts": 1, "seed": 0, "ensemble": {"images": 0, "attacks": members},
    }  # fmt: skip
    return AttackConfig(**(given | changes))


def test_budgets_are_converted_once() -> None:
    assert ThreatModel.of("linf", 8).epsilon == pytest.approx(8 / 255)
    assert ThreatModel.of("l2", 0.5).epsilon == 0.5


@pytest.mark.parametrize(
    ("norm", "budget"), [("linf", -1), ("linf", 256), ("l2", math.nan), ("l2", math.inf), ("l1", 1)]
)
def test_a_wrong_budget_is_an_error(norm: str, budget: float) -> None:
    with pytest.raises(ConfigError):
        ThreatModel.of(norm, budget)


def test_all_wrong_budgets_are_named() -> None:
    attack = attack_config(("apgd_c", "square"), epsilon=9, epsilons={"linf": (300.0,), "l2": (1.0,)})
    with pytest.raises(ConfigError) as found:
        check(ThreatConfig(norm="linf"), attack, (0.0, 400.0))
    for expected in (
        "sweep.epsilons: found budget 400",
        "attack.epsilons.linf: found budget 300",
        "attack.epsilon: found 9, expected one of attack.epsilons.linf",
        "did you mean 'apgd_ce'",
        "attack.ensemble.attacks.square.queries: missing",
    ):
        assert expected in str(found.value)


def test_linf_pgd_lands_exactly_on_the_worst_case() -> None:
    model, x, labels = Linear(), images(), torch.ones(3, dtype=torch.int64)
    threat = ThreatModel.of("linf", 8)
    found = pgd(model, x, labels, threat, x, steps=10, step_size=threat.epsilon / 4)
    torch.testing.assert_close(found, x - threat.epsilon * model.weight.sign(), rtol=0, atol=1e-15)


def test_l2_pgd_lands_exactly_on_the_worst_case() -> None:
    model, x, labels = Linear(), images(), torch.ones(3, dtype=torch.int64)
    threat = ThreatModel.of("l2", 0.25)
    found = pgd(model, x, labels, threat, x, steps=20, step_size=0.05)
    expected = x - 0.25 * model.weight / model.weight.norm()
    # torch's renorm, in robustness' projection, divides by the norm plus 1e-7.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-12, 1e-30])
def test_l2_pgd_does_not_depend_on_the_size_of_the_gradient(scale: float) -> None:
    """An overconfident network has gradients whose squares are nothing in 32 bits."""
    model, x, labels = Linear(), images().float(), torch.ones(3, dtype=torch.int64)
    threat = ThreatModel.of("l2", 0.25)
    found = pgd(lambda y: scale * model(y), x, labels, threat, x, steps=20, step_size=0.05)
    torch.testing.assert_close(found, (x - 0.25 * model.weight / model.weight.norm()).float(), rtol=0, atol=1e-5)


def test_the_other_class_is_attacked_in_the_other_direction() -> None:
    model, x = Linear(), images()
    threat = ThreatModel.of("linf", 8)
    found = pgd(model, x, torch.zeros(3, dtype=torch.int64), threat, x, steps=10, step_size=threat.epsilon / 4)
    torch.testing.assert_close(found, x + threat.epsilon * model.weight.sign(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_epsilon_zero_is_clean_bit_for_bit(norm: str) -> None:
    model, x, labels = Linear(), images(), torch.ones(3, dtype=torch.int64)
    threat = ThreatModel.of(norm, 0)
    found, lowest = worst_case(model, x, labels, threat, seeds(3), steps=5, step_factor=1.0, restarts=3)
    assert torch.equal(found, x)
    assert torch.equal(lowest, margins(model(x), labels))


def test_margins() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0], [4.0, 1.0, -2.0]])
    assert margins(logits, torch.tensor([1, 2])).tolist() == [2.0, -6.0]


@pytest.mark.parametrize("logits", [(1.0, math.nan), (math.nan, 1.0), (math.inf, math.inf)])
def test_a_nan_logit_is_an_error_and_no_class(logits: tuple[float, float]) -> None:
    with pytest.raises(NumericError, match="NaN"):
        margins(torch.tensor([[0.0, 1.0], logits]), torch.tensor([0, 0]))


def test_worst_case_is_over_iterates_and_restarts() -> None:
    """A network that is fooled near the start of the path only: the last iterate alone would miss it."""

    def pocket(x: Tensor) -> Tensor:
        depth = (x - 0.5).flatten(1).mean(1)
        hole = torch.exp(-(((depth - 0.01) / 0.004) ** 2))
        return torch.stack([1 - 2 * hole + depth, 0 * depth], dim=1)

    x = torch.full((2, *SHAPE), 0.5, dtype=torch.float64)
    threat = ThreatModel.of("linf", 8)
    found, lowest = worst_case(
        pocket,
        x,
        torch.zeros(2, dtype=torch.int64),
        threat,
        seeds(2),
        steps=8,
        step_factor=8 * 0.01 / threat.epsilon,
        restarts=1,
    )  # fmt: skip
    assert (lowest < 0).all()
    torch.testing.assert_close(margins(pocket(found), torch.zeros(2, dtype=torch.int64)), lowest)


def test_more_steps_and_restarts_never_help_the_defender() -> None:
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(40, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)
    ).double()
    x, labels, threat = images(20), torch.randint(3, (20,)), ThreatModel.of("linf", 16)
    settings, size = ((1, 1), (4, 1), (4, 4)), 0.02 / threat.epsilon
    lowest = [
        worst_case(network, x, labels, threat, seeds(20), steps=s, step_factor=s * size, restarts=r)[1]
        for s, r in settings
    ]
    assert (lowest[2] <= lowest[1]).all()
    assert lowest[1].mean() < lowest[0].mean()
    assert all((low <= margins(network(x), labels)).all() for low in lowest)


def test_a_restart_is_the_same_alone_and_in_a_batch() -> None:
    model, x, labels = Linear(), images(), torch.ones(3, dtype=torch.int64)
    threat = ThreatModel.of("l2", 0.25)
    together, _ = worst_case(model, x, labels, threat, seeds(3), steps=1, step_factor=0.04, restarts=3)
    alone, _ = worst_case(model, x[2:], labels[2:], threat, seeds(3)[2:], steps=1, step_factor=0.04, restarts=3)
    torch.testing.assert_close(together[2:], alone)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_fill_the_threat_model(norm: str) -> None:
    x = torch.full((200, *SHAPE), 0.5)
    threat = ThreatModel.of(norm, 0.3 if norm == "l2" else 20)
    sizes = threat.measure(x, threat.random_start(x, torch.rand(x.shape)))
    assert sizes.max() <= threat.epsilon + 1e-6
    assert sizes.max() > 0.9 * threat.epsilon
    moved = (threat.random_start(x, torch.rand(x.shape)) - x).mean(dim=0)
    assert moved.abs().max() < 0.3 * threat.epsilon  # no direction is preferred
    if norm == "l2":
        torch.testing.assert_close(sizes, torch.full_like(sizes, threat.epsilon))


def test_measure_takes_each_image_by_itself() -> None:
    delta = torch.zeros(2, *SHAPE)
    delta[0, 1, 2, 3], delta[1, 0, 0, :2] = 0.2, torch.tensor([0.3, -0.4])
    x = torch.full_like(delta, 0.5)
    torch.testing.assert_close(ThreatModel("linf", 1).measure(x, x + delta), torch.tensor([0.2, 0.4]))
    torch.testing.assert_close(ThreatModel("l2", 1).measure(x, x + delta), torch.tensor([0.2, 0.5]))


@pytest.mark.parametrize("pixel", [0.0, 1.0])
def test_leaving_the_cube_is_an_error_within_epsilon_too(pixel: float) -> None:
    x = torch.full((2, *SHAPE), pixel)
    with pytest.raises(NumericError, match="left its threat model"):
        ThreatModel.of("linf", 8).verify(x, x + (0.01 if pixel else -0.01))


@pytest.mark.parametrize("change", [0.1, math.nan, -0.6])
def test_a_perturbation_outside_the_threat_model_is_an_error(change: float) -> None:
    x = torch.full((2, *SHAPE), 0.5)
    wrong = x.clone()
    wrong[1, 0, 0, 0] += change
    with pytest.raises(NumericError, match="left its threat model"):
        ThreatModel.of("linf", 8).verify(x, wrong)


@pytest.mark.parametrize(("norm", "budget"), [("linf", 8), ("linf", 0.001), ("l2", 0.5), ("l2", 1e-4)])
def test_verify_accepts_the_boundary_and_nothing_beyond(norm: str, budget: float) -> None:
    x, threat = 0.2 + 0.6 * torch.rand(50, 3, 32, 32), ThreatModel.of(norm, budget)
    step = torch.randn(x.shape).sign() if norm == "linf" else torch.randn(x.shape)
    step = step / threat.measure(torch.zeros_like(x), step)[:, None, None, None]
    threat.verify(x, x + threat.epsilon * step)
    with pytest.raises(NumericError, match="left its threat model"):
        threat.verify(x, x + (1.01 * threat.epsilon + (5e-7 if norm == "linf" else 4e-5)) * step)


def test_margins_of_samples_do_not_depend_on_batch_size() -> None:
    model = Linear(bias=-0.2)
    samples = Samples(
        torch.randint(0, 256, (7, *SHAPE), dtype=torch.uint8),
        torch.arange(7) % 2,
        torch.zeros(7, *SHAPE[1:], dtype=torch.bool),
        torch.arange(100, 107),
    )
    threat, attack = ThreatModel.of("l2", 0.1), bound("pgd", {"steps": 3, "step_factor": 1.0, "restarts": 2}, "key")
    whole, parts = (attack_margins(attack, samples, Setting(model, model, threat, 5, size)) for size in (7, 3))
    torch.testing.assert_close(parts, whole)
    assert (whole <= clean_margins(model, samples, 4) + 1e-6).all()
