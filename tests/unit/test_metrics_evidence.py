"""What metrics are computed from: neighbourhoods and removal paths of networks whose answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from epsilens.metrics import METRICS, needs, score
from epsilens.metrics.evidence import Evidence, Removal
from epsilens.metrics.faithfulness import deletion_auc
from epsilens.metrics.imputation import impute
from epsilens.randomness import per_image
from epsilens.types import Explainer

SHAPE = (2, 4, 5)
FRACTIONS = (0.1, 0.5, 0.9)
STABLE = {"radius_255": 16.0, "samples": 3}


def spot(images: Tensor) -> Tensor:
    """Class 1 where the pixel in row 1, column 3 is bright, in a dark image."""
    bright = images[:, :, 1, 3].mean(dim=1) - 0.5
    return torch.stack([-bright, bright], dim=1)


def spotted(count: int) -> Tensor:
    images = 0.2 * torch.rand(count, *SHAPE)
    images[:, :, 1, 3] = 0.9
    return images


def nothing(images: Tensor, _targets: Tensor, _seeds: Tensor) -> Tensor:
    return torch.ones_like(images)


def evidence(**changes) -> Evidence:
    images = changes.get("images", spotted(3))
    fields = {
        "images": images,
        "targets": torch.ones(len(images), dtype=torch.int64),
        "attributions": torch.rand(images.shape),
        "masks": torch.zeros(len(images), *images.shape[2:], dtype=torch.bool),
        "seeds": 7 + torch.arange(len(images)),
        "predict": spot,
        "explain": nothing,
        "batch_size": 2,
    }
    return Evidence(**(fields | changes))


def test_road_is_one_where_the_one_pixel_that_matters_is_ranked_first_and_minus_one_where_last() -> None:
    first = torch.rand(3, *SHAPE)
    first[:, :, 1, 3] = -2  # the sign does not matter
    last = torch.rand(3, *SHAPE) + 0.1
    last[:, :, 1, 3] = 0.01
    road = {"road_gap": {"fractions": FRACTIONS}}
    assert score(evidence(attributions=first), road)["road_gap"].tolist() == [1.0] * 3
    assert score(evidence(attributions=last), road)["road_gap"].tolist() == [-1.0] * 3


def test_a_fraction_removes_that_many_pixels() -> None:
    weights = torch.arange(20.0).flip(0).view(1, 1, 4, 5).expand(1, *SHAPE) + 1  # row 1, column 3 is the ninth
    path = evidence(images=spotted(1), attributions=weights).removal((0.4, 0.45, 0.55, 0.6))
    assert path.most_first.flatten().tolist() == [1, 0, 0, 0]
    assert path.least_first.flatten().tolist() == [1, 1, 1, 0]


def test_removed_pixels_are_imputed_with_noise_and_no_others() -> None:
    images, maps = torch.rand(200, *SHAPE), torch.rand(200, 1, *SHAPE[1:])
    seen: list[Tensor] = []

    def watch(batch: Tensor) -> Tensor:
        seen.append(batch)
        return batch.new_ones(len(batch), 2)

    evidence(images=images, attributions=maps, predict=watch, batch_size=200).removal((0.5,))
    place = maps.flatten(1).argsort(dim=1).argsort(dim=1).view(200, *SHAPE[1:])
    for batch, removed in zip(seen, (place < 10, place >= 10), strict=True):
        noise = batch - impute(images, removed)
        assert noise.masked_select(~removed[:, None]).abs().max() == 0
        drawn = noise.masked_select(removed[:, None])
        assert drawn.std().item() == pytest.approx(0.01, rel=0.05)
        assert drawn.mean().item() == pytest.approx(0, abs=0.001)


def test_a_map_that_ranks_nothing_has_no_road_gap() -> None:
    maps = torch.rand(3, *SHAPE)
    maps[1] = 0
    scores = score(evidence(attributions=maps), {"road_gap": {"fractions": FRACTIONS}})["road_gap"]
    assert scores.isnan().tolist() == [False, True, False]


def test_nan_logits_are_no_prediction() -> None:
    def broken(images: Tensor) -> Tensor:
        return spot(images) * torch.where(images[:, :1, 0, 0] > 0.5, math.nan, 1.0)

    images = spotted(3)
    images[2, :, 0, 0] = 0.9
    maps = torch.ones(3, *SHAPE)
    maps[:, :, 0, 0] = 2
    one = evidence(images=images, predict=broken, attributions=maps, targets=torch.tensor([1, 1, 0]))
    scores = score(one, {"road_gap": {"fractions": (0.5,)}, "retention": STABLE, "gini": {}})
    assert scores["road_gap"].isnan().tolist() == [False, False, True]
    assert scores["retention"].tolist() == [1.0, 1.0, 0.0]
    assert scores["gini"].isfinite().all()


def test_neighbours_are_within_the_radius_in_range_and_of_the_image_alone() -> None:
    seen: list[Tensor] = []

    def watch(images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        seen.append(images)
        return nothing(images, targets, seeds)

    images = torch.rand(2, *SHAPE).round() * torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)
    near = evidence(images=images, explain=watch).neighbourhood(16, 50)
    assert near.attributions.shape == (50, 2, *SHAPE)
    batches = torch.stack(seen)
    assert batches.min() >= 0
    assert batches.max() <= 1
    free = (batches - images)[:, images == 0.5] * 255  # pixels that the clipping does not reach
    assert free.abs().max().item() == pytest.approx(16, rel=0.002)
    assert free.mean().item() == pytest.approx(0, abs=1)
    assert free.std().item() == pytest.approx(16 / math.sqrt(3), rel=0.05)
    assert len({float(batch[1].sum()) for batch in seen}) == 50

    seen.clear()
    alone = evidence(images=images[1:], seeds=torch.tensor([8]), explain=watch)  # as the second of the pair above
    alone.neighbourhood(16, 50)
    assert torch.equal(torch.cat(seen), batches[:, 1])
    assert torch.equal(near.images[:, 1], batches[:, 1])


def test_targets_are_held_and_a_method_draws_its_own_noise_anew() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def watch(images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        seen.append((targets, seeds))
        return nothing(images, targets, seeds)

    targets = torch.tensor([1, 0, 1])
    evidence(targets=targets, explain=watch).neighbourhood(4, 3)
    assert all(torch.equal(given, targets) for given, _ in seen)
    drawn = torch.cat([seeds for _, seeds in seen])
    assert len(set(drawn.tolist())) == 9


def test_a_neighbour_is_kept_while_the_prediction_is_the_target() -> None:
    images = spotted(3)
    images[1, :, 1, 3] = 0.5  # on the boundary: some flip
    near = evidence(images=images, targets=torch.tensor([1, 1, 0])).neighbourhood(16, 40)
    assert near.kept[:, 0].all()
    assert near.kept[:, 1].double().mean().item() == pytest.approx(0.5, abs=0.3)
    assert not near.kept[:, 2].any()


def test_a_linear_network_has_stable_gradients() -> None:
    weight = torch.randn(2, *SHAPE)

    def linear(images: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", images, weight)

    def gradient(_images: Tensor, targets: Tensor, _seeds: Tensor) -> Tensor:
        return weight[targets]

    images = torch.rand(3, *SHAPE)
    targets = linear(images).argmax(dim=1)
    one = evidence(
        images=images,
        targets=targets,
        predict=linear,
        explain=gradient,
        attributions=gradient(images, targets, targets),
    )
    scores = score(one, {"direction_sensitivity": {"radius_255": 1, "samples": 4}, "rank_stability": STABLE})
    assert scores["direction_sensitivity"].tolist() == pytest.approx([0.0] * 3, abs=1e-12)
    assert scores["rank_stability"].tolist() == pytest.approx([1.0] * 3)


def test_shared_work_is_done_once() -> None:
    calls = {"explain": 0, "predict": 0}

    def explain(images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        calls["explain"] += 1
        return nothing(images, targets, seeds)

    def predict(images: Tensor) -> Tensor:
        calls["predict"] += 1
        return spot(images)

    one = evidence(explain=explain, predict=predict, batch_size=3)
    stable = [name for name, metric in METRICS.items() if metric.facts.family == "stability" and "adv" not in name]
    assert {"direction_sensitivity", "relative_input_stability", "relative_output_stability", "retention"} <= {*stable}
    score(one, dict.fromkeys(stable, STABLE))
    assert calls == {"explain": 3, "predict": 3 + 1}  # the clean logits
    removing = ("road_gap", "road_gap@again", "deletion_auc", "insertion_auc")
    score(replace(one, explain=explain), {name: {"fractions": list(FRACTIONS)} for name in removing})
    assert calls == {"explain": 3, "predict": 4 + 2 * len(FRACTIONS) + 1}


def test_nothing_larger_than_a_batch_is_asked_of_a_network() -> None:
    sizes: set[int] = set()

    def explain(images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        sizes.add(len(images))
        return nothing(images, targets, seeds)

    def predict(images: Tensor) -> Tensor:
        sizes.add(len(images))
        return spot(images)

    one = evidence(images=spotted(7), explain=explain, predict=predict, batch_size=3)
    score(one, {"retention": STABLE, "road_gap": {"fractions": FRACTIONS}, "infidelity": {"sigma": 0.1, "samples": 4}})
    assert sizes == {3, 1}  # 1: what is left of four samples of the last image
    sizes.clear()
    worst = {"adversarial_stability": {**STABLE, "steps": 2}, "class_sensitivity": {}}
    score(one, worst)
    assert max(sizes) == 3


def test_few_images_share_their_passes_and_their_values_stay() -> None:
    sizes: list[int] = []

    def watch(images: Tensor, _targets: Tensor, seeds: Tensor) -> Tensor:
        sizes.append(len(images))
        return images * (1 + seeds.remainder(7)).view(-1, 1, 1, 1)

    few = evidence(explain=watch, batch_size=7)
    many = replace(few, batch_size=3, _done={})
    shared = few.neighbourhood(8, 5)
    assert sizes == [6, 6, 3]
    apart = many.neighbourhood(8, 5)
    for name in ("images", "attributions", "logits", "kept"):
        assert torch.equal(getattr(shared, name), getattr(apart, name))
    paths = few.removal(FRACTIONS), many.removal(FRACTIONS)
    for name in ("least_first", "most_first", "least_probability", "most_probability"):
        assert torch.equal(*(getattr(path, name) for path in paths))


def test_the_probabilities_along_a_path_are_those_of_the_explained_class() -> None:
    maps = torch.rand(3, *SHAPE)
    maps[:, :, 1, 3] = -2
    one = evidence(images=spotted(3), attributions=maps, targets=torch.tensor([1, 1, 0]))
    path = one.removal((0.5,))
    bright = 1 / (1 + math.exp(-0.8))  # the pixel is 0.9: logits of -0.4 and 0.4
    assert one.probability().tolist() == pytest.approx([bright, bright, 1 - bright], abs=1e-6)
    assert path.least_probability[0].tolist() == pytest.approx([bright, bright, 1 - bright], abs=1e-6)
    assert (path.most_probability[0, :2] < 0.5).all()
    assert path.most_probability[0, 2] > 0.5


def linear_evidence(weight: Tensor, **changes) -> Evidence:
    """A linear network, two classes of opposite weight; the maps are its gradients."""
    images = torch.rand(3, *SHAPE, dtype=torch.float64)

    def linear(batch: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", batch, weight)

    targets = linear(images).argmax(dim=1)
    fields = {"images": images, "targets": targets, "predict": linear, "attributions": weight[targets]}
    return evidence(**(fields | changes))


def test_a_linear_network_is_what_its_gradient_says_and_not_what_an_unrelated_map_says() -> None:
    weight = torch.randn(2, *SHAPE, dtype=torch.float64)
    asked = {"infidelity": {"sigma": 0.2, "samples": 200}}
    assert score(linear_evidence(weight), asked)["infidelity"].tolist() == pytest.approx([0.0] * 3, abs=1e-12)
    others = torch.randn(3, *SHAPE, dtype=torch.float64)
    g = weight[linear_evidence(weight).targets]
    others -= (others * g).sum(dim=(1, 2, 3), keepdim=True) / g.square().sum(dim=(1, 2, 3), keepdim=True) * g
    found = score(linear_evidence(weight, attributions=others), asked)["infidelity"]
    assert (found > 0.8).all()  # orthogonal: 1, but for chance and for clipping


def test_a_perturbation_is_what_was_taken_from_the_image() -> None:
    weight = torch.randn(2, *SHAPE, dtype=torch.float64)
    seen: list[Tensor] = []

    def watch(images: Tensor) -> Tensor:
        seen.append(images)
        return torch.einsum("nchw,kchw->nk", images, weight)

    one = linear_evidence(weight, predict=watch, batch_size=3)
    products, changes = one.perturbation(0.3, 40)
    assert products.shape == changes.shape == (40, 3)
    torch.testing.assert_close(products, changes)  # h(x) - h(x - I) = <I, g>
    near = torch.stack(seen[1:])
    assert near.min() >= 0
    assert near.max() <= 1
    inside = (near - one.images)[(near > 0) & (near < 1)]
    assert inside.std().item() == pytest.approx(0.22, abs=0.03)  # 0.3, cut at the ends of the range
    assert products.std() > 0


def test_the_other_class_is_the_second_most_likely_and_has_the_noise_of_the_map() -> None:
    logits = torch.tensor([[0.1, 3.0, 2.0], [5.0, -1.0, -2.0], [1.0, 2.0, math.nan]])
    asked: list[tuple[Tensor, Tensor]] = []

    def watch(images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        asked.append((targets, seeds))
        return images

    one = evidence(
        predict=lambda _: logits, explain=watch, targets=torch.tensor([1, 0, 1]), map_seeds=torch.tensor([3, 4, 5])
    )
    maps = one.runner_up()
    assert asked[0][0][:2].tolist() == [2, 1]
    assert asked[0][1].tolist() == [3, 4, 5]
    assert maps.isnan().flatten(1).all(dim=1).tolist() == [False, False, True]


def test_a_network_of_one_class_has_no_other() -> None:
    one = evidence(
        predict=lambda images: images.mean(dim=(1, 2, 3))[:, None], targets=torch.zeros(3, dtype=torch.int64)
    )
    assert score(one, {"class_sensitivity": {}})["class_sensitivity"].isnan().all()


def test_a_method_that_looks_at_neither_class_nor_weights_has_one_also_if_it_is_random() -> None:
    def control(images: Tensor, _targets: Tensor, seeds: Tensor) -> Tensor:
        return per_image(torch.rand, tuple(images.shape[1:]), seeds, "control")

    images, drawn = spotted(3), torch.tensor([3, 4, 5])
    one = evidence(images=images, explain=control, attributions=control(images, images, drawn), map_seeds=drawn)
    asked = {"class_sensitivity": {}, "randomisation": {"layers": "all"}}
    assert score(one, asked)["randomisation"].isnan().all()  # there is no such network
    found = score(replace(one, randomised=lambda _: control), asked)
    assert found["class_sensitivity"].tolist() == pytest.approx([1.0] * 3)
    assert found["randomisation"].tolist() == pytest.approx([1.0] * 3)


def test_the_randomised_network_explains_the_same_class() -> None:
    def by_class(images: Tensor, targets: Tensor, _seeds: Tensor) -> Tensor:
        ramp = torch.arange(20.0).view(1, 1, 4, 5).expand(len(images), *SHAPE) + 1
        return ramp.where(targets.view(-1, 1, 1, 1) == 1, ramp.flip(2, 3))

    ramp = by_class(spotted(3), torch.ones(3), torch.ones(3))
    one = evidence(attributions=ramp, targets=torch.tensor([1, 0, 1]), randomised=lambda _: by_class)
    found = score(one, {"randomisation": {"layers": "all"}})["randomisation"]
    assert found.tolist() == pytest.approx([1.0, -1.0, 1.0])


def test_each_number_of_random_layers_is_explained_once_a_part() -> None:
    ramp = torch.arange(20.0).view(1, 1, 4, 5).expand(3, *SHAPE) + 1
    asked: list[object] = []

    def randomised(layers: object) -> Explainer:
        asked.append(layers)
        return lambda images, *_: (ramp if layers == 1 else ramp.flip(2, 3))[: len(images)]

    curve = {"randomisation@top1": {"layers": 1}, "randomisation@all": {"layers": "all"}}
    one = evidence(attributions=ramp, randomised=randomised, batch_size=3)
    found = score(one, {**curve, "randomisation@again": {"layers": 1}})
    assert found["randomisation@top1"].tolist() == pytest.approx([1.0] * 3)
    assert found["randomisation@all"].tolist() == pytest.approx([-1.0] * 3)
    assert torch.equal(found["randomisation@again"], found["randomisation@top1"])
    assert asked == [1, "all"]


def test_the_fractions_are_those_of_params_and_not_rounded_to_float32() -> None:
    """Removing 1/10 halves the probability, removing 3/10 takes all: (0.1 · 1.5/2 + 0.2 · 0.5/2) / 0.3."""
    one, fractions = evidence(), (0.1, 0.3)
    left = torch.tensor([[0.5], [0.0]], dtype=torch.float64).expand(2, 3)
    one._done["removal", fractions] = Removal(left, left, left, left)
    whole = replace(
        one, predict=lambda images: torch.tensor([[-math.inf, 0.0]]).expand(len(images), 2), _done=one._done
    )
    expected = (0.1 * 1.5 / 2 + 0.2 * 0.5 / 2) / 0.3
    for need in (needs.deletion, needs.insertion):
        assert need(deletion_auc, whole, fractions=fractions).tolist() == pytest.approx([expected] * 3, rel=1e-14)


def test_both_ends_of_a_path_are_filled_with_the_same_noise() -> None:
    """On a flat image the imputed pixels are the noise: what the middle ones got cannot depend on which end went first."""
    seen: list[Tensor] = []

    def watch(images: Tensor) -> Tensor:
        seen.append(images - 0.5)
        return images.new_ones(len(images), 2)

    flat = torch.full((2, *SHAPE), 0.5, dtype=torch.float64)
    evidence(images=flat, predict=watch, batch_size=100).removal((0.6, 0.9))
    six, six_most, nine, nine_most = torch.cat(seen).view(4, 2, *SHAPE)
    for least, most in ((six, six_most), (nine, nine_most)):
        both = (least.abs() > 1e-9) & (most.abs() > 1e-9)
        assert both.any()
        torch.testing.assert_close(least[both], most[both], rtol=0, atol=1e-9)
    both = (six.abs() > 1e-9) & (nine.abs() > 1e-9)
    assert not torch.isclose(six[both], nine[both]).any()
