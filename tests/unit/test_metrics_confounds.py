"""The confound audit: changes of a network without training, and what they cannot change."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from epsilens import metrics
from epsilens.metrics.config import AuditConfig
from epsilens.metrics.confounds import blurred, once, own_traits
from epsilens.metrics.evidence import Evidence
from epsilens.metrics.traits import confidence, frequency, norm
from epsilens.models.tempered import Tempered
from epsilens.randomness import noise_seeds
from epsilens.types import Explainer
from tests.contract.test_metrics import ASKED, CLASSES, COUNT, SHAPE, explained, network

GRIDS = {"scale": (0.25,), "blur": (0.7,), "temperature": (4.0,)}
CONFIG = AuditConfig(attribution="gradient", epsilon=0, **GRIDS)
NEED_PROBABILITIES = {"deletion_auc", "insertion_auc"}
NEED_LOGIT_SCALE = {"relative_output_stability_original"}


def made(batch_size: int = COUNT) -> tuple[Evidence, dict[float, Explainer]]:
    model = network(3)
    images, ids = torch.rand(COUNT, *SHAPE, dtype=torch.float64), torch.arange(COUNT)
    targets, masks = model(images).argmax(dim=1), torch.rand(COUNT, *SHAPE[1:]) < 0.3
    explain, seeds, drawn = explained(model), noise_seeds(0, ids), noise_seeds(1, ids)
    maps, other = explain(images, targets, drawn), explained(network(4))
    hot = {t: explained(Tempered(model, t)) for t in GRIDS["temperature"]}
    return Evidence(images, targets, maps, masks, seeds, model, explain, batch_size, drawn, lambda _: other), hot


def audit(batch_size: int = COUNT) -> tuple[dict[str, Tensor], dict[str, metrics.Audited]]:
    torch.manual_seed(0)
    evidence, hot = made(batch_size)
    found = metrics.audit(evidence, ASKED, CONFIG, hot.__getitem__)
    assert [(one.kind, one.amount) for one in found] == [(kind, *amounts) for kind, amounts in GRIDS.items()]
    return metrics.score(evidence, ASKED), {one.kind: one for one in found}


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(-9), b.nan_to_num(-9))


def test_rescaled_maps_change_no_score_and_tempered_logits_only_probabilities() -> None:
    plain, found = audit()
    assert {name for name in ASKED if not same(plain[name], found["scale"].scores[name])} == set()
    moved = {name for name in ASKED if not same(plain[name], found["temperature"].scores[name])}
    assert moved == NEED_PROBABILITIES | NEED_LOGIT_SCALE
    known = ~plain["relative_output_stability_original"].isnan()
    shift = (
        found["temperature"].scores["relative_output_stability_original"] - plain["relative_output_stability_original"]
    )
    assert shift[known].tolist() == pytest.approx([math.log10(4)] * int(known.sum()))


def test_blur_changes_the_map_its_neighbours_and_its_other_maps_alike() -> None:
    """It must be what the metrics say of a method that blurs."""
    _, found = audit()
    torch.manual_seed(0)
    evidence, _ = made()

    def smooth(explain: Explainer) -> Explainer:
        return lambda *given: blurred(explain(*given), 0.7)

    assert evidence.randomised is not None
    random = smooth(evidence.randomised("all"))
    maps, explain = blurred(evidence.attributions, 0.7), smooth(evidence.explain)
    of = Evidence(evidence.images, evidence.targets, maps, evidence.masks, evidence.seeds, evidence.predict, explain,
                  COUNT, evidence.map_seeds, lambda _: random)  # fmt: skip
    wanted = metrics.score(of, ASKED)
    assert all(same(found["blur"].scores[name], wanted[name]) for name in ASKED)


def test_parts_make_no_difference() -> None:
    (_, whole), (_, parts) = audit(), audit(3)
    for kind, one in whole.items():
        for name, scores in (one.scores | one.traits).items():
            assert torch.allclose(scores, (parts[kind].scores | parts[kind].traits)[name], atol=1e-6, equal_nan=True), (
                name
            )


def test_traits_of_the_changed_networks() -> None:
    torch.manual_seed(0)
    evidence, _ = made()
    own, (_, found) = own_traits(evidence), audit()
    assert torch.equal(found["scale"].traits["norm"], own["norm"] / 4)
    assert torch.equal(found["temperature"].traits["norm"], own["norm"] / 4)
    assert (found["blur"].traits["frequency"] < own["frequency"]).all()
    assert torch.allclose(found["scale"].traits["frequency"], own["frequency"])
    assert torch.equal(found["scale"].traits["confidence"], own["confidence"])
    assert (found["temperature"].traits["confidence"] < own["confidence"]).all()
    wanted = (evidence.predict(evidence.images) / 4).softmax(dim=1).amax(dim=1)
    assert torch.allclose(found["temperature"].traits["confidence"], wanted)


def test_what_changes_share_is_computed_once() -> None:
    evidence, hot = made()
    calls = []

    def explain(*given: Tensor) -> Tensor:
        calls.append(len(given[0]))
        return evidence.explain(*given)

    grids = AuditConfig(attribution="gradient", epsilon=0, scale=(0.5, 2.0), blur=(1.0, 2.0), temperature=())
    counted = Evidence(evidence.images, evidence.targets, evidence.attributions, evidence.masks, evidence.seeds,
                       evidence.predict, explain, COUNT)  # fmt: skip
    metrics.audit(
        counted, {name: ASKED[name] for name in ("rank_stability", "class_sensitivity")}, grids, hot.__getitem__
    )
    assert calls == [COUNT] * 4  # three neighbours, one other class


def test_once_tells_arguments_apart() -> None:
    calls = []
    doubled = once(lambda a, b: calls.append(0) or 2 * a + b)
    a, b = torch.rand(2, 3), torch.rand(2, 3)
    assert torch.equal(doubled(a, b), 2 * a + b)
    assert torch.equal(doubled(a.clone(), b.clone()), 2 * a + b)
    assert len(calls) == 1
    assert torch.equal(doubled(b, a), 2 * b + a)
    assert doubled(a.view(3, 2), b.view(3, 2)).shape == (3, 2)
    assert len(calls) == 3


def test_a_constant_map_cannot_be_blurred_and_a_dot_becomes_a_bell() -> None:
    flat = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 5, 9)
    assert torch.allclose(blurred(flat, 2.0), flat)
    dot = torch.zeros(1, 1, 31, 41, dtype=torch.float64)
    dot[..., 15, 20] = -1
    bell = blurred(dot, 1.5)[0, 0]
    assert bell.sum().item() == pytest.approx(-1)
    assert (bell[15, 22] / bell[15, 20]).item() == pytest.approx(math.exp(-0.5 * (2 / 1.5) ** 2))
    assert (bell[17, 20] / bell[15, 20]).item() == pytest.approx(math.exp(-0.5 * (2 / 1.5) ** 2))
    assert bell[15, 27] == 0  # beyond 4 sigma
    assert bell[15, 26] != 0


def test_blurring_a_slow_wave_does_nothing_and_a_fast_one_fades_as_its_fourier_transform() -> None:
    across = torch.arange(64, dtype=torch.float64)
    for cycles, left in ((1 / 32, math.exp(-2 * (math.pi / 32) ** 2)), (1 / 4, math.exp(-2 * (math.pi / 4) ** 2))):
        wave = torch.cos(2 * math.pi * cycles * across).expand(1, 1, 8, 64)
        assert torch.allclose(blurred(wave, 1.0)[..., 8:-8], left * wave[..., 8:-8], atol=1e-3)


def test_frequency_of_waves_constants_and_noise() -> None:
    down, across = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    waves = [torch.cos(2 * math.pi * across / 6), torch.cos(math.pi * down), torch.ones(16, 24),
             torch.cos(2 * math.pi * (across / 4 + down / 4)), torch.zeros(16, 24)]  # fmt: skip
    maps = torch.stack(waves)[:, None] * torch.tensor([1.0, -7.0, 0.0]).view(1, 3, 1, 1)
    found = frequency(maps).tolist()
    assert found[:4] == pytest.approx([1 / 6, 1 / 2, 0, math.hypot(1 / 4, 1 / 4)], abs=1e-6)
    assert math.isnan(found[4])
    mixed = (3 * torch.cos(2 * math.pi * across / 8) + torch.cos(2 * math.pi * across / 4))[None, None]
    assert frequency(mixed).item() == pytest.approx((9 / 8 + 1 / 4) / 10)  # by power
    noise = torch.randn(40, 3, 32, 32)
    assert frequency(noise).mean().item() == pytest.approx((math.sqrt(2) + math.asinh(1)) / 6, abs=0.003)
    assert torch.allclose(frequency(-9 * noise), frequency(noise))


def test_norm_and_confidence() -> None:
    assert norm(torch.tensor([[[[3.0, -4.0]]], [[[0.0, 0.0]]]])).tolist() == [5, 0]
    logits = torch.tensor([[0.0] * CLASSES, [math.log(3)] + [0.0] * (CLASSES - 1)])
    assert confidence(logits).tolist() == pytest.approx([1 / CLASSES, 3 / (CLASSES + 2)])
