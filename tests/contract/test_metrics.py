"""What every metric of the registry promises."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from epsilens.errors import ConfigError
from epsilens.metrics import METRICS, check, check_classes, facts, score
from epsilens.metrics.config import AuditConfig, ScoreConfig
from epsilens.metrics.evidence import Evidence
from epsilens.metrics.facts import Change, Family
from epsilens.randomness import noise_seeds, per_image
from epsilens.types import Explainer

COUNT, SHAPE, CLASSES = 8, (3, 8, 7), 6
STABLE = {"radius_255": 40, "samples": 3}
REMOVED = {"fractions": [0.1, 0.3, 0.6]}
OPTIONS: dict[str, dict[str, Any]] = {
    "maps": {},
    "blocks": {"block": 3},
    "images": {},
    "masks": {},
    "mosaic": {},
    "neighbours": STABLE,
    "inputs": STABLE,
    "outputs": STABLE,
    "worst": {**STABLE, "steps": 3},
    "removal": REMOVED,
    "deletion": REMOVED,
    "insertion": REMOVED,
    "noise": {"sigma": 0.1, "samples": 5},
    "other_class": {},
    "other_network": {"layers": 2},
}
AUDIT = AuditConfig(attribution="gradient", epsilon=0.0, scale=(), blur=(), temperature=())
ASKED = {name: OPTIONS[metric.needs.__name__] for name, metric in METRICS.items()}
NAMES = pytest.mark.parametrize("name", METRICS)
ZERO_MAP, NO_MASK = 4, 1  # images of the evidence
BLIND = ("retention", "mosaic_focus")  # they do not look at the map of the image itself


def network(seed: int) -> nn.Module:
    """It takes images of any size; its classes are about equally likely."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d((3, 2)), nn.Flatten(), nn.Linear(4 * 3 * 2, CLASSES)]
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        model[0].weight *= 4  # far from linear
        model[-1].bias -= model(torch.rand(500, *SHAPE, dtype=torch.float64)).mean(dim=0)
    return model.eval().requires_grad_(False)


def explained(model: nn.Module) -> Explainer:
    def explain(images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        noisy = (images + 0.05 * per_image(torch.randn, tuple(images.shape[1:]), seeds)).requires_grad_()
        return torch.autograd.grad(model(noisy).gather(1, targets[:, None]).sum(), noisy)[0]

    return explain


def evidence(batch_size: int = COUNT) -> Evidence:
    model = network(3)
    explain = explained(model)
    images, seeds = torch.rand(COUNT, *SHAPE, dtype=torch.float64), noise_seeds(0, torch.arange(COUNT))
    targets = model(images).argmax(dim=1)
    masks = torch.rand(COUNT, *SHAPE[1:]) < 0.3
    masks[NO_MASK] = False
    drawn = noise_seeds(1, torch.arange(COUNT))
    maps = explain(images, targets, drawn)
    maps[ZERO_MAP] = 0
    fresh = explained(network(4))
    return Evidence(images, targets, maps, masks, seeds, model, explain, batch_size, drawn, lambda _: fresh)


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
    assert len(numbers) >= COUNT - 1 - (METRICS[name].needs.__name__ == "masks")
    assert numbers.isfinite().all()
    assert numbers.unique().numel() > 1 or name in ("retention", "pointing_game")


@NAMES
def test_float32_is_scored_in_float64(name: str) -> None:
    """A score of float32 tensors is, to the last digit but ten, that of the same values in float64."""
    one = evidence()
    rounded = {field: value.float() for field, value in tensors(one).items() if value.is_floating_point()}
    exact = {field: value.double() for field, value in rounded.items()}

    def explain(*arguments: Tensor) -> Tensor:  # the same map in both
        return one.explain(arguments[0].float().double(), *arguments[1:]).float().to(arguments[0])

    def scored(parts: dict[str, Tensor]) -> dict[str, Tensor]:
        changes = {"explain": explain, "randomised": lambda _: explain, "predict": lambda x: one.predict(x.double())}
        return score(replace(one, **parts, **changes, _done={}), {name: ASKED[name]})

    found, expected = scored(rounded), scored(exact)
    assert found[name].dtype == torch.float64
    tolerance = 1e-12 if METRICS[name].needs.__name__ in ("maps", "blocks", "images", "masks") else 1e-5
    same(found, expected, tolerance)


@NAMES
def test_nan_where_the_score_is_undefined_and_nowhere_else(name: str) -> None:
    undefined = torch.zeros(COUNT, dtype=torch.bool)
    undefined[ZERO_MAP] = name not in BLIND
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


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_the_batch_size_does_not_matter(batch_size: int) -> None:
    one = evidence()
    same(score(replace(one, batch_size=batch_size, _done={}), ASKED), score(one, ASKED), 1e-9)


def test_the_order_does_not_matter() -> None:
    one, index = evidence(), torch.randperm(COUNT)
    whole = score(one, ASKED)
    same(score(rows(one, index), ASKED), {name: values[index] for name, values in whole.items()}, 1e-9)


# What the entry declares: it holds, and where it is said not to hold it does not.


def whatever(change: Change, name: str, changed: Tensor, expected: Tensor) -> None:
    if change in METRICS[name].varies:
        assert not torch.allclose(changed, expected, rtol=0, atol=1e-3, equal_nan=True)
    else:
        torch.testing.assert_close(changed, expected, rtol=0, atol=1e-6, equal_nan=True)


@NAMES
def test_other_images(name: str) -> None:
    one, index = evidence(), torch.tensor([7, 5, 1, 4, 0, 2])
    fewer = score(rows(one, index), {name: ASKED[name]})[name]
    whatever("other images", name, fewer, score(one, {name: ASKED[name]})[name][index])


def scaled(one: Evidence, at_the_image: Tensor, elsewhere: float) -> Evidence:
    """Every map at an image times a factor of its own, all maps that metrics ask for times another."""

    def explain(*arguments: Tensor) -> Tensor:
        return elsewhere * one.explain(*arguments)

    return replace(one, attributions=at_the_image * one.attributions, explain=explain, _done={})


@NAMES
def test_a_factor_for_each_map(name: str) -> None:
    one, factors = evidence(), 10.0 ** torch.arange(-6, 2, dtype=torch.float64).view(-1, 1, 1, 1)
    changed = score(scaled(one, factors, 0.01), {name: ASKED[name]})[name]
    whatever("own scale", name, changed, score(one, {name: ASKED[name]})[name])


@NAMES
def test_one_factor_for_all_maps(name: str) -> None:
    one, factor = evidence(), torch.tensor(30.0, dtype=torch.float64)
    changed = score(scaled(one, factor, 30.0), {name: ASKED[name]})[name]
    whatever("common scale", name, changed, score(one, {name: ASKED[name]})[name])


@NAMES
@pytest.mark.parametrize(("factor", "shift", "change"), [(5.0, 0.0, "logit scale"), (1.0, -2.0, "logit shift")])
def test_the_logits(name: str, factor: float, shift: float, change: Change) -> None:
    one = evidence()
    changed = replace(one, predict=lambda images: factor * one.predict(images) + shift, _done={})
    whatever(change, name, score(changed, {name: ASKED[name]})[name], score(one, {name: ASKED[name]})[name])


@NAMES
def test_the_sign(name: str) -> None:
    one = evidence()
    changed = score(scaled(one, torch.tensor(-1.0), -1.0), {name: ASKED[name]})[name]
    whatever("sign", name, changed, score(one, {name: ASKED[name]})[name])


@NAMES
def test_the_facts_are_complete(name: str) -> None:
    entry = METRICS[name].facts
    assert entry.label
    assert entry.source
    assert entry.family in get_args(Family)
    assert entry.better in ("higher", "lower", None)
    assert entry.low < entry.high
    assert METRICS[name].varies <= set(get_args(Change))
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
    return ScoreConfig(batch_size=1, seed=0, metrics=metrics, audit=AUDIT)


def test_all_members_pass_the_check() -> None:
    check(settings(ASKED))


def test_all_wrong_names_and_options_are_reported_together() -> None:
    wrong = {
        "ginni": {},
        "effective_fraction": {"base": 2},
        "rank_stability@near": {"radius_255": 0, "samples": 1.5},
        "retention": {"radius_255": 4},
        "road_gap": {"fractions": [0.5, 1.0]},
        "randomisation": {},
        "randomisation@top0": {"layers": 0},
        "randomisation@some": {"layers": "some"},
        "randomisation@true": {"layers": True},
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
        "score.metrics.randomisation.layers": "missing",
        "score.metrics.randomisation@top0.layers": "at least 1",
        "score.metrics.randomisation@some.layers": "all, or a number of layers",
        "score.metrics.randomisation@true.layers": "all, or a number of layers",
    }
    assert len(lines) == len(expected)
    for line, (key, words) in zip(lines, expected.items(), strict=True):
        assert f"params.yaml: {key}:" in line
        assert words in line


def test_a_mosaic_of_four_classes_needs_four_classes() -> None:
    asked = {"gini": {}, "mosaic_focus": {}, "mosaic_focus@again": {}}
    with pytest.raises(ConfigError) as caught:
        check_classes(settings(asked), 3)
    assert str(caught.value).splitlines() == [
        f"params.yaml: score.metrics.{name}: found data of 3 classes, expected 4 or more; remove the metric"
        for name in ("mosaic_focus", "mosaic_focus@again")
    ]


def test_enough_classes_are_enough() -> None:
    check_classes(settings(ASKED), 4)
    check_classes(settings({"class_sensitivity": {}}), 1)


@pytest.mark.parametrize("fractions", [[], [0.0], [-0.1], ["half"], [math.nan], 0.5])
def test_fractions_outside_their_range_are_an_error(fractions: Any) -> None:
    with pytest.raises(ConfigError, match=r"score\.metrics\.road_gap\.fractions"):
        check(settings({"road_gap": {"fractions": fractions}}))


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"batch_size": 2.5}, {"seed": -1}, {"metrics": {}}, {"metrics": {"gini": None}}]
)
def test_a_wrong_section_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        ScoreConfig(**({"batch_size": 1, "seed": 0, "metrics": {"gini": {}}, "audit": AUDIT} | wrong))


def test_an_unknown_metric_is_not_scored() -> None:
    with pytest.raises(ConfigError, match="known are gini"):
        score(evidence(), {"insertion": {}})
