"""The attack on the map: it stays where it may be, only ever climbs, and finds what is there to find."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from epsilens.metrics import score
from epsilens.metrics.evidence import Evidence, Neighbourhood
from epsilens.metrics.stability import distances
from epsilens.metrics.worst import climb, outward
from epsilens.randomness import noise_seeds

COUNT, SHAPE, RADIUS = 5, (2, 6, 5), 12 / 255
STABLE = {"radius_255": 12, "samples": 4}


def network(activation: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Sequential(nn.Conv2d(2, 16, 3), activation, nn.Conv2d(16, 16, 3), activation, nn.Flatten())
    return nn.Sequential(layers, nn.Linear(16 * 2, 3)).double().requires_grad_(False)


def gradients(model: nn.Module):
    def explain(images: Tensor, targets: Tensor, _seeds: Tensor) -> Tensor:
        x = images.detach().requires_grad_()
        return torch.autograd.grad(model(x).gather(1, targets[:, None]).sum(), x)[0]

    return explain


def evidence(model: nn.Module, **changes) -> Evidence:
    images = torch.rand(COUNT, *SHAPE, dtype=torch.float64)
    targets, seeds, explain = model(images).argmax(dim=1), noise_seeds(0, torch.arange(COUNT)), gradients(model)
    fields = {
        "images": images,
        "targets": targets,
        "attributions": explain(images, targets, seeds),
        "masks": torch.zeros(COUNT, *SHAPE[1:], dtype=torch.bool),
        "seeds": seeds,
        "predict": model,
        "explain": explain,
        "batch_size": COUNT,
    }
    return Evidence(**(fields | changes))


def test_outward_is_the_slope_of_the_distance() -> None:
    base, maps = torch.randn(2, COUNT, *SHAPE, dtype=torch.float64)
    maps.requires_grad_()
    distance = distances(base, maps[None])[0]
    slope = torch.autograd.grad(distance.sum(), maps)[0]
    found = outward(base, maps.detach())
    sizes = (value.abs().amax(dim=(1, 2, 3), keepdim=True) for value in (found, slope))
    torch.testing.assert_close(found / next(sizes), slope / next(sizes))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Softplus(beta=5)])
def test_it_finds_more_than_as_many_explanations_at_random(activation: nn.Module) -> None:
    one = evidence(network(activation))
    asked = {
        "direction_sensitivity_max": STABLE,
        "direction_sensitivity_max@many": {**STABLE, "samples": 34},
        "adversarial_stability": {**STABLE, "steps": 10},
    }
    found = score(one, asked)
    assert (found["adversarial_stability"] >= found["direction_sensitivity_max"]).all()
    assert (found["adversarial_stability"] / found["direction_sensitivity_max@many"]).mean() > 1.3


def test_more_steps_never_find_less_and_no_step_is_the_worst_sample() -> None:
    one = evidence(network(nn.ReLU()))
    start = one.neighbourhood(12, 4)
    far = distances(one.attributions, start.attributions).where(start.kept, -1)
    found = [one.worst(12, 4, steps).attributions for steps in (0, 2, 8)]
    reached = [distances(one.attributions, maps) for maps in found]
    assert torch.equal(reached[0], far.amax(dim=0))
    assert (reached[1] >= reached[0]).all()
    assert (reached[2] >= reached[1]).all()


def test_it_stays_within_radius_and_range_and_keeps_the_prediction() -> None:
    model = network(nn.ReLU())
    one = evidence(model)
    x, edges = one.images.round(), []
    maps = one.explain(x, one.targets, one.seeds)

    def explain(images: Tensor) -> Tensor:
        edges.append((float(images.min()), float(images.max())))
        return one.explain(images, one.targets, one.seeds)

    def holds(images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3)) >= x.mean(dim=(1, 2, 3)) - 0.005

    best, there = climb(x, maps, (x, maps), RADIUS, 8, explain, holds)
    assert (best - x).abs().max() <= RADIUS + 1e-12
    assert (best - x).abs().max() > RADIUS / 2
    assert min(low for low, _ in edges) >= 0
    assert max(high for _, high in edges) <= 1
    assert holds(best).all()
    torch.testing.assert_close(there, one.explain(best, one.targets, one.seeds))


def test_a_prediction_that_always_flips_leaves_the_start() -> None:
    one = evidence(network(nn.ReLU()))
    start = one.images + 0.01, one.attributions.flip(2)
    found = climb(one.images, one.attributions, start, RADIUS, 3, lambda x: x, lambda x: torch.zeros(len(x)) > 0)
    assert torch.equal(found[0], start[0])
    assert torch.equal(found[1], start[1])


def test_it_starts_from_samples_that_kept_the_prediction_only() -> None:
    model = network(nn.ReLU())
    one = evidence(model)
    lost = one.targets.clone()
    lost[2] = (lost[2] + 1) % 3  # never predicted
    found = score(evidence(model, images=one.images, targets=lost), {"adversarial_stability": {**STABLE, "steps": 2}})
    assert found["adversarial_stability"].isnan().tolist() == [False, False, True, False, False]


def test_the_noise_of_the_method_is_held_while_it_climbs() -> None:
    drawn: list[tuple[int, ...]] = []
    one = evidence(network(nn.ReLU()))

    def watch(images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        drawn.append(tuple(seeds.tolist()))
        return one.explain(images, targets, seeds)

    score(
        evidence(network(nn.ReLU()), images=one.images, explain=watch),
        {"adversarial_stability": {**STABLE, "steps": 3}},
    )
    samples, climbing = drawn[:4], set(drawn[4:])
    assert len(climbing) == 1
    for n, seed in enumerate(climbing.pop()):
        assert seed in [sample[n] for sample in samples]


def test_a_linear_network_cannot_be_attacked() -> None:
    weight = torch.randn(3, *SHAPE, dtype=torch.float64)
    images = torch.rand(COUNT, *SHAPE, dtype=torch.float64)
    targets = torch.einsum("nchw,kchw->nk", images, weight).argmax(dim=1)
    one = evidence(
        network(nn.ReLU()),
        images=images,
        targets=targets,
        attributions=weight[targets],
        explain=lambda _images, targets, _seeds: weight[targets],
        predict=lambda x: torch.einsum("nchw,kchw->nk", x, weight),
    )
    found = score(one, {"adversarial_stability": {**STABLE, "steps": 3}})["adversarial_stability"]
    assert found.tolist() == pytest.approx([0.0] * COUNT, abs=1e-7)


def test_it_does_not_go_beyond_what_directions_can_be_apart() -> None:
    found = score(evidence(network(nn.ReLU())), {"adversarial_stability": {**STABLE, "steps": 20}})
    assert (found["adversarial_stability"] <= math.sqrt(2)).all()


def test_it_starts_from_a_sample_that_is_kept_however_far_the_others_are_or_near() -> None:
    """A kept sample that has hardly moved, beside flipped ones whose map shares no pixel with the map, or is the map."""
    one = evidence(network(nn.ReLU()), explain=lambda images, *_: torch.ones_like(images))
    base = torch.zeros(COUNT, *SHAPE, dtype=torch.float64)
    base[:, :, :3] = 1
    near = base + 0.1
    kept = torch.tensor([[False], [True], [False]]).expand(3, COUNT)
    samples = torch.stack([1 - base, near, base])
    found = Neighbourhood(one.images.expand(3, *one.images.shape), samples, torch.zeros(3, COUNT, 3), kept)
    whole = replace(one, attributions=base, predict=lambda images: torch.full((len(images), 3), math.nan), _done={})
    whole._done["neighbourhood", 12, 3] = found
    worst = whole.worst(12, 3, 1)
    assert torch.equal(worst.attributions, near)
    assert worst.kept.all()
