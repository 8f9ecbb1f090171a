"""What every metric of the registry promises."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from epsilens.errors import ConfigError
from epsilens.metrics import METRICS, check, facts, score
from epsilens.metrics.config import ScoreConfig
from epsilens.metrics.evidence import Evidence
from epsilens.randomness import noise_seeds, per_image

COUNT, SHAPE = 6, (3, 8, 7)
OPTIONS: dict[str, dict[str, Any]] = {
    "maps": {},
    "masks": {},
    "neighbours": {"radius_255": 16, "samples": 3},
    "removal": {"fractions": [0.1, 0.3, 0.6]},
}
ASKED = {name: OPTIONS[metric.needs.__name__] for name, metric in METRICS.items()}
NAMES = pytest.mark.parametrize("name", METRICS)
ZERO_MAP, NO_MASK = 4, 1  # images of the evidence


def network() -> nn.Module:
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 6 * 5, 3))
    return layers.eval().requires_grad_(False)


def evidence(batch_size: int = COUNT) -> Evidence:
    model = network()

    def explain(images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        noisy = (images + 0.05 * per_image(torch.randn, SHAPE, seeds)).requires_grad_()
        return torch.autograd.grad(model(noisy).gather(1, targets[:, None]).sum(), noisy)[0]

    images, seeds = torch.rand(COUNT, *SHAPE), noise_seeds(0, torch.arange(COUNT))
    targets = model(images).argmax(dim=1)
    masks = torch.rand(COUNT, *SHAPE[1:]) < 0.3
    masks[NO_MASK] = False
    maps = explain(images, targets, seeds)
    maps[ZERO_MAP] = 0
    return Evidence(images, targets, maps, masks, seeds, model, explain, batch_size)


def tensors(one: Evidence) -> dict[str, Tensor]:
    return {field.name: value for field in fields(one) if isinstance(value := getattr(one, field.name), Tensor)}


def rows(one: Evidence, index: Tensor) -> Evidence:
    return replace(one, **{name: value[index] for name, value in tensors(one).items()}, _done={})


def same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, values in found.items():
        torch.testing.assert_close(values, expected[name], rtol=0, atol=tolerance, equal_nan=True, msg=name)


@NAMES
def test_one_score_an_image_in_float64_within_its_range(name: str) -> None:
    one, entry = evidence(), METRICS[name].facts
    scores = score(one, {name: ASKED[name]})[name]
    assert scores.shape == (COUNT,)
    assert scores.dtype == torch.float64
    numbers = scores[~scores.isnan()]
    assert ((numbers >= entry.low - 1e-12) & (numbers <= entry.high + 1e-12)).all()
    assert numbers.unique().numel() > 1 or name == "retention"


@NAMES
def test_nan_where_the_score_is_undefined_and_nowhere_else(name: str) -> None:
    undefined = torch.zeros(COUNT, dtype=torch.bool)
    undefined[ZERO_MAP] = name != "retention"  # it looks at no map
    undefined[NO_MASK] = METRICS[name].needs.__name__ == "masks"
    assert torch.equal(score(evidence(), {name: ASKED[name]})[name].isnan(), undefined)


def test_arguments_are_untouched() -> None:
    one = evidence()
    before = {name: value.clone() for name, value in tensors(one).items()}
    score(one, ASKED)
    assert all(torch.equal(value, before[name]) for name, value in tensors(one).items())


def test_same_seed_same_score_and_the_global_generator_is_left_alone() -> None:
    one = evidence()
    first = score(one, ASKED)
    state = torch.random.get_rng_state()
    second = score(replace(one, _done={}), ASKED)
    assert torch.equal(torch.random.get_rng_state(), state)
    same(second, first, 0)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_batch_size_does_not_matter(batch_size: int) -> None:
    one = evidence()
    same(score(replace(one, batch_size=batch_size, _done={}), ASKED), score(one, ASKED), 1e-6)


def test_order_and_batch_mates_do_not_matter() -> None:
    one, index = evidence(), torch.tensor([5, 1, 4, 0])
    whole = score(one, ASKED)
    same(score(rows(one, index), ASKED), {name: values[index] for name, values in whole.items()}, 1e-6)


def test_the_scale_of_the_attributions_does_not_matter() -> None:
    one = evidence()
    scale = torch.tensor([1e-6, 0.3, 7.0, 1e4, 1.0, 50.0]).view(-1, 1, 1, 1)
    neighbour = 0.01  # the maps at the neighbours have a scale of their own

    def explain(*arguments: Tensor) -> Tensor:
        return neighbour * one.explain(*arguments)

    scaled = replace(one, attributions=scale * one.attributions, explain=explain, _done={})
    same(score(scaled, ASKED), score(one, ASKED), 1e-6)


def test_scale_and_shift_of_the_logits_do_not_matter() -> None:
    one = evidence()
    changed = replace(one, predict=lambda images: 5 * one.predict(images) - 2, _done={})
    same(score(changed, ASKED), score(one, ASKED), 0)


@NAMES
def test_the_sign_of_the_attributions_does_not_matter(name: str) -> None:
    one = evidence()
    turned = replace(one, attributions=-one.attributions, _done={})
    same(score(turned, {name: ASKED[name]}), score(one, {name: ASKED[name]}), 0)


@NAMES
def test_the_facts_are_complete(name: str) -> None:
    entry = METRICS[name].facts
    assert entry.label
    assert entry.source
    assert entry.better in ("higher", "lower")
    assert entry.low < entry.high
    assert math.isfinite(entry.high)
    assert entry.chance is None or entry.low <= entry.chance <= entry.high
    assert (METRICS[name].compute.__doc__ or "").strip()


def test_labels_are_unique() -> None:
    assert len({metric.facts.label for metric in METRICS.values()}) == len(METRICS)


def test_facts_and_scores_go_by_the_name_in_params_label_included() -> None:
    asked = {"rank_stability@near": {"radius_255": 2, "samples": 2}, "rank_stability": ASKED["rank_stability"]}
    scores, described = score(evidence(), asked), facts(asked)
    assert list(scores) == list(described) == list(asked)
    assert not torch.equal(scores["rank_stability@near"], scores["rank_stability"])
    near, plain = ({**entry, "label": None} for entry in described.values())
    assert near == plain
    assert plain["family"] == "stability"


def settings(metrics: dict[str, dict[str, Any]]) -> ScoreConfig:
    return ScoreConfig(batch_size=1, seed=0, metrics=metrics)


def test_all_members_pass_the_check() -> None:
    check(settings(ASKED))


def test_all_wrong_names_and_options_are_reported_together() -> None:
    wrong = {
        "ginni": {},
        "effective_fraction": {"base": 2},
        "rank_stability@near": {"radius_255": 0, "samples": 1.5},
        "retention": {"radius_255": 4},
        "road_gap": {"fractions": [0.5, 1.0]},
        "relevance_mass": {},
    }
    with pytest.raises(ConfigError) as caught:
        check(settings(wrong))
    lines = str(caught.value).splitlines()
    expected = {
        "score.metrics.ginni": "did you mean 'gini'?",
        "score.metrics.effective_fraction.base": "unknown",
        "score.metrics.rank_stability@near.radius_255": "greater than 0",
        "score.metrics.rank_stability@near.samples": "integer",
        "score.metrics.retention.samples": "missing",
        "score.metrics.road_gap.fractions.1": "less than 1",
    }
    assert len(lines) == len(expected)
    for line, (key, words) in zip(lines, expected.items(), strict=True):
        assert f"params.yaml: {key}:" in line
        assert words in line


@pytest.mark.parametrize("fractions", [[], [0.0], [-0.1], ["half"], [math.nan], 0.5])
def test_fractions_outside_their_range_are_an_error(fractions: Any) -> None:
    with pytest.raises(ConfigError, match=r"score\.metrics\.road_gap\.fractions"):
        check(settings({"road_gap": {"fractions": fractions}}))


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"batch_size": 2.5}, {"seed": -1}, {"metrics": {}}, {"metrics": {"gini": None}}]
)
def test_a_wrong_section_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        ScoreConfig(**({"batch_size": 1, "seed": 0, "metrics": {"gini": {}}} | wrong))


def test_an_unknown_metric_is_not_scored() -> None:
    with pytest.raises(ConfigError, match="known are gini"):
        score(evidence(), {"insertion": {}})
