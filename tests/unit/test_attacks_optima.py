"""Each attack against optima that are known, and the parts of the attacks against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from epsilens.attacks import ThreatModel, apgd, bound, fab, margins, worst_case
from epsilens.attacks.apgd import windows
from epsilens.attacks.losses import cross_entropies, dlr, dlr_targeted
from epsilens.attacks.planes import to_plane
from epsilens.attacks.square import PROPOSALS, STARTS, bumps, side_of
from epsilens.attacks.targets import in_turn
from epsilens.attacks.threat import norms

SHAPE = (3, 9, 7)
ATTACKS = {
    "pgd": {"steps": 40, "step_factor": 2.5, "restarts": 1},
    "apgd_ce": {"iterations": 100},
    "apgd_dlr": {"iterations": 100},
    "apgd_t": {"iterations": 100, "targets": 2},
    "fab_t": {"iterations": 20, "targets": 3},
}


class Linear:
    """Four classes with linear logits; images far from 0 and 1, so that the box does not matter."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.randn(4, *SHAPE, generator=generator, dtype=torch.float64)
        self.images = 0.4 + 0.2 * torch.rand(8, *SHAPE, generator=generator, dtype=torch.float64)
        self.labels = self(self.images).argmax(dim=1)

    def __call__(self, images: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", images, self.weight.to(images))

    def nearest(self, norm: str) -> Tensor:
        """The smallest norm that changes the class: over the other classes, the gap over the dual norm of the difference."""
        logits = self(self.images)
        gap = logits.gather(1, self.labels[:, None]) - logits
        difference = (self.weight[self.labels][:, None] - self.weight[None]).flatten(2)
        dual = difference.abs().sum(dim=2) if norm == "linf" else difference.norm(dim=2)
        return (gap / dual).scatter(1, self.labels[:, None], math.inf).amin(dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ATTACKS)
def test_on_a_linear_network_an_image_falls_at_its_optimal_distance(name: str, norm: str) -> None:
    model = Linear()
    for row, distance in enumerate(model.nearest(norm).tolist()):
        x, y = model.images[row : row + 1], model.labels[row : row + 1]
        below, above = (
            bound(name, ATTACKS[name], "key")(model, x, y, ThreatModel(norm, distance * f), torch.tensor([row]))[1]
            for f in (0.99, 1.06)
        )
        assert below > 0 >= above


@pytest.mark.parametrize(("norm", "factor"), [("linf", 2.0), ("l2", 3.0)])
def test_square_comes_near_the_optimum_without_gradients(norm: str, factor: float) -> None:
    """White noise for weights is the worst case for squares; below the optimum nothing may be found."""
    model = Linear()
    run = bound("square", {"queries": 1000}, "key")
    for row, distance in enumerate(model.nearest(norm).tolist()[:3]):
        x, y = model.images[row : row + 1], model.labels[row : row + 1]
        below, above = (
            run(model, x, y, ThreatModel(norm, distance * f), torch.tensor([row]))[1] for f in (0.99, factor)
        )
        assert below > 0 >= above


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_finds_the_nearest_misclassified_image(norm: str) -> None:
    model = Linear()
    found = []
    for target in range(4):
        targets = torch.full_like(model.labels, target)
        images, size = fab(model, model.images, model.labels, targets, norm, iterations=30, enough=0.0)
        other = target != model.labels
        assert (margins(model(images), model.labels)[other] <= 0).all()
        torch.testing.assert_close(norms(images - model.images, norm)[other], size[other])
        found.append(torch.where(other, size, math.inf))
    ratio = torch.stack(found).amin(dim=0) / model.nearest(norm)
    assert (ratio >= 1).all()
    assert (
        ratio <= 1.01
    ).all()  # the goal of minimum-norm attacks is 1.25; the step reaches 1.05 beyond, then retreats


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_ends_on_the_best_corner_of_a_curved_loss(norm: str) -> None:
    """A concave loss with its maximum inside: plain steps of the first size would jump about it for ever."""
    peak = 0.5 + 0.01 * torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.full((1, *SHAPE), 0.5, dtype=torch.float64)

    def predict(images: Tensor) -> Tensor:
        height = (images - peak).flatten(1).square().sum(dim=1)
        return torch.stack([1 + height, 0 * height], dim=1)

    labels, threat = torch.zeros(1, dtype=torch.int64), ThreatModel(norm, 0.05 if norm == "linf" else 1.0)
    start = threat.random_start(x, torch.rand(x.shape, generator=torch.Generator().manual_seed(2)).to(x))
    found, margin = apgd(predict, x, labels, labels, threat, start, iterations=100, loss=cross_entropies)
    assert margin == pytest.approx(1, abs=2e-4)
    assert (found - peak).abs().max() < 0.01


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_steps_as_the_paper_says(norm: str) -> None:
    """Algorithm 1: the first step has size 2 epsilon and no momentum, later ones add a quarter of the step before."""
    seen, weight = [], torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turn = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def predict(images: Tensor) -> Tensor:  # the gradient changes from call to call
        seen.append(images.detach())
        score = ((weight + len(seen) * turn) * images).flatten(1).sum(dim=1)
        return torch.stack([0 * score + 1000, score], dim=1)

    def towards(point: Tensor, call: int) -> Tensor:
        gradient = weight + call * turn
        direction = gradient.sign() if norm == "linf" else gradient / gradient.norm()
        return into(point + 2 * threat.epsilon * direction)

    def into(point: Tensor) -> Tensor:
        delta = point - x
        size = norms(delta, norm).item()
        inside = (
            delta.clamp(-threat.epsilon, threat.epsilon) if norm == "linf" else delta * min(1, threat.epsilon / size)
        )
        return (x + inside).clamp(0, 1)

    x, labels = torch.full((1, *SHAPE), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    threat = ThreatModel(norm, 0.1 if norm == "linf" else 0.6)
    start = threat.random_start(x, torch.rand(x.shape, generator=torch.Generator().manual_seed(2)).to(x))
    loss = lambda logits, *_: logits[:, 1]  # noqa: E731 - one line says it
    apgd(predict, x, labels, labels, threat, start, iterations=3, loss=loss)
    expected = [start, towards(start, 1)]
    for call in (2, 3):
        now, before = expected[-1], expected[-2]
        expected.append(into(now + 0.75 * (towards(now, call) - now) + 0.25 * (now - before)))
    for found, wanted in zip(seen, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def plateau(images: Tensor) -> Tensor:
    """Grey images have no gradient; away from grey, logit 0 falls below four others."""
    away = (images - 0.5).flatten(1).mean(dim=1).abs()
    others = [(k + 1) * 1e-4 + 0 * away for k in range(4)]
    return torch.stack([1 - (away - 0.001).clamp_min(0) * 1000, *others], dim=1)


@pytest.mark.parametrize("name", ["apgd_ce", "apgd_dlr", "apgd_t"])
def test_apgd_starts_at_random(name: str) -> None:
    x, labels, threat = torch.full((8, *SHAPE), 0.5), torch.zeros(8, dtype=torch.int64), ThreatModel("linf", 0.2)
    _, margin = bound(name, ATTACKS[name], "key")(plateau, x, labels, threat, torch.arange(8))
    assert (margin <= 0).sum() >= 6
    other = torch.arange(8) + 100
    first, second = (bound(name, ATTACKS[name], "key")(plateau, x, labels, threat, s)[0] for s in (other, other + 1))
    assert not torch.equal(first, second)


def test_every_target_of_apgd_has_a_start_of_its_own() -> None:
    model, seen = Linear(), []

    def predict(images: Tensor) -> Tensor:
        seen.append(images.detach())
        return model(images)

    threat = ThreatModel("linf", 1e-6)  # breaks nothing
    bound("apgd_t", {"iterations": 1, "targets": 3}, "key")(
        predict, model.images, model.labels, threat, torch.arange(8)
    )
    first, second, third = seen[1::2]  # after the ranking: start and step of each target
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


@pytest.mark.parametrize("name", ["apgd_dlr", "apgd_t", "fab_t"])
def test_losses_without_scale_see_through_loud_logits(name: str) -> None:
    """Times 10,000 the cross entropy has no gradient left; the ratios of logits do not change."""
    model = Linear()
    x, labels, threat = model.images.float(), model.labels, ThreatModel("linf", float(2 * model.nearest("linf").max()))

    def loud(images: Tensor) -> Tensor:
        return 1e4 * model(images)

    blind = bound("apgd_ce", ATTACKS["apgd_ce"], "key")(loud, x, labels, threat, torch.arange(8))[1]
    assert (blind > 0).all()
    assert (bound(name, ATTACKS[name], "key")(loud, x, labels, threat, torch.arange(8))[1] <= 0).all()


def test_apgd_leaves_broken_images_alone() -> None:
    model, seen = Linear(), []

    def predict(images: Tensor) -> Tensor:
        seen.append(len(images))
        return model(images)

    distances = model.nearest("linf")
    threat = ThreatModel("linf", 1.01 * float(distances.median()))  # at the very distance, rounding would decide
    bound("apgd_ce", {"iterations": 50}, "key")(predict, model.images, model.labels, threat, torch.arange(8))
    assert seen[0] == 8
    assert seen[-1] == (distances > threat.epsilon).sum() < 8
    assert len(seen) == 51


def test_the_windows_of_apgd_are_those_of_the_paper() -> None:
    assert windows(100) == {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    assert windows(1) == {1: 1}


def test_dlr_is_the_ratio_of_differences_and_forgets_scale_and_shift() -> None:
    logits = torch.tensor([[4.0, 1.0, -2.0, 0.5], [1.0, 3.0, 2.0, -5.0]], dtype=torch.float64)
    labels, targets = torch.tensor([0, 2]), torch.tensor([3, 0])
    # sorted: 4, 1, .5, -2 and 3, 2, 1, -5
    torch.testing.assert_close(dlr(logits, labels, targets), torch.tensor([-3 / 3.5, 1 / 2], dtype=torch.float64))
    expected = torch.tensor([-3.5 / (4 - (0.5 - 2) / 2), -1 / (3 - (1 - 5) / 2)], dtype=torch.float64)
    torch.testing.assert_close(dlr_targeted(logits, labels, targets), expected)
    for loss in (dlr, dlr_targeted):
        torch.testing.assert_close(loss(7 * logits - 3, labels, targets), loss(logits, labels, targets))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_to_plane_meets_the_plane_within_the_cube_with_the_least_norm(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    points = (1.4 * torch.rand(40, 30, generator=generator, dtype=torch.float64) - 0.2).clamp(0, 1)
    normal = torch.randn(40, 30, generator=generator, dtype=torch.float64)
    normal[:, :3] = 0
    offset = (normal * points).sum(1) + 3 * torch.randn(40, generator=generator, dtype=torch.float64)
    step = to_plane(points, normal, offset, norm)
    assert ((points + step) >= 0).all()
    assert ((points + step) <= 1).all()
    torch.testing.assert_close((normal * (points + step)).sum(1), offset, rtol=0, atol=1e-9)
    # optimality: a free coordinate moves by exactly the common time (times |normal| for L2), a bound one by less
    moved, rate = step.abs(), torch.ones_like(normal) if norm == "linf" else normal.abs()
    relative = torch.where(normal != 0, moved / rate, 0.0)
    time = relative.amax(dim=1, keepdim=True)
    inside = (points + step > 1e-9) & (points + step < 1 - 1e-9) & (normal != 0)
    assert (((relative - time).abs() < 1e-9) | ~inside).all()
    assert (step[:, :3] == 0).all()


def test_to_plane_out_of_reach_ends_in_the_nearest_corner() -> None:
    points, normal = torch.tensor([[0.5, 0.25, 0.1]]), torch.tensor([[1.0, -2.0, 0.0]])
    for norm in ("linf", "l2"):
        assert to_plane(points, normal, torch.tensor([9.0]), norm).tolist() == [[0.5, -0.25, 0.0]]
        assert to_plane(points, normal, torch.tensor([0.0]), norm).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_to_plane_does_not_depend_on_the_scale_of_the_gradient(norm: str) -> None:
    """A saturated network has gradients of 1e-25, whose squares are nothing in 32 bits; some pixels have none at all."""
    generator = torch.Generator().manual_seed(0)
    points, normal = torch.rand(9, 20, generator=generator), torch.randn(9, 20, generator=generator)
    normal[:, :4], points[0] = 0, 1.0
    offset = (normal * points).sum(1) + torch.linspace(-4, 30, 9)
    plain = to_plane(points, normal, offset, norm)
    torch.testing.assert_close(
        to_plane(points, normal * 2.0**-90, offset * 2.0**-90, norm), plain, rtol=1e-4, atol=1e-5
    )
    assert (to_plane(points, 0 * normal, offset, norm) == 0).all()
    uneven = normal * torch.logspace(0, -35, 20)
    found = to_plane(points, uneven, offset, norm)
    assert found.isfinite().all()
    assert ((points + found >= 0) & (points + found <= 1)).all()


def test_squares_shrink_as_the_paper_says() -> None:
    sides = [side_of(query, 32, 32, "linf") for query in (0, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)]
    assert sides == [29, 29, 20, 14, 10, 7, 5, 4, 3, 2, 1]
    assert [side_of(query, 32, 32, "l2") for query in (0, 11, 8001)] == [29, 21, 3]
    assert side_of(0, 8, 32, "linf") == 8


def proposals(norm: str, side: int, spread: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Images around grey, what is best so far, and what Square proposes next, for 60 images."""
    noise = torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.5
    x, epsilon = (0.5 + spread * noise).clamp(0, 1), 0.2 if norm == "linf" else 1.5
    seeds = torch.arange(60)
    best = STARTS[norm](x, epsilon, seeds)
    chance = torch.rand(60, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, best, PROPOSALS[norm](x, best, epsilon, side, chance)


def test_square_starts_with_stripes_and_moves_squares_by_the_whole_budget() -> None:
    x, best, candidate = proposals("linf", 3)
    torch.testing.assert_close((best - x).abs(), torch.full_like(x, 0.2))
    assert ((best - x).amin(dim=2) == (best - x).amax(dim=2)).all()  # columns
    torch.testing.assert_close((candidate - x).abs(), torch.full_like(x, 0.2))
    corners = set()
    for before, after in zip(best, candidate, strict=True):
        changed = (before - after).abs().amax(dim=0) > 1e-9
        if changed.any():
            down, across = changed.nonzero().T
            assert down.max() - down.min() < 3
            assert across.max() - across.min() < 3
            corners |= {(int(down.min()), int(across.max()))}
    assert {0, SHAPE[1] - 3} <= {down for down, _ in corners}  # the first and the last place
    assert SHAPE[2] - 1 in {across for _, across in corners}
    signs = (candidate - x)[:, :, 4, 3].sign()
    assert len({tuple(row) for row in signs.tolist()}) == 8  # every channel by itself


def test_l2_square_starts_with_five_rows_of_tiles_turned_at_random() -> None:
    x, shape = torch.full((40, 2, 16, 13), 0.5, dtype=torch.float64), bumps(3).double()
    delta = STARTS["l2"](x, 1.0, torch.arange(40)) - x
    scale = delta.abs().max() / shape.abs().max()
    turns = set()
    for row in range(5):
        for column in range(4):
            tile = delta[:, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3] / scale
            upright, turned = ((tile.abs() - s.abs()).abs().amax(dim=(2, 3)) < 1e-9 for s in (shape, shape.T))
            assert (upright | turned).all()
            assert (upright == upright[:, :1]).all()  # all channels of a tile alike, up to sign
            turns |= set(upright[:, 0].tolist())
    assert turns == {True, False}
    assert (delta[:, :, 15:] == 0).all()
    assert (delta[:, :, :, 12:] == 0).all()


def test_l2_square_proposes_what_the_paper_says() -> None:
    """Algorithm 3, in plain loops."""
    x, best, candidate = proposals("l2", 3, spread=1.3)  # many pixels at their bounds, so that budget is left
    assert (norms(best - x, "l2") < 1.45).all()
    chance = torch.rand(60, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    for n, draw in enumerate(chance):
        places = [int(u * (size - 3 + 1)) for u, size in zip(draw[:4], (*SHAPE[1:], *SHAPE[1:]), strict=True)]
        to, fro = ((slice(i, i + 3), slice(j, j + 3)) for i, j in (places[:2], places[2:]))
        hill = bumps(3).double().T if draw[4] > 0.5 else bumps(3).double()
        delta = best[n] - x[n]
        spare = max(1.5**2 - float(delta.square().sum()), 0) / SHAPE[0]
        for channel, sign in zip(delta, draw[5:], strict=True):
            windows = torch.zeros_like(channel, dtype=torch.bool)
            windows[to], windows[fro] = True, True
            budget = spare + channel[windows].square().sum()
            new = (1 if sign >= 0.5 else -1) * hill + channel[to] / (channel[to].norm() + 1e-12)
            channel[fro] = 0
            channel[to] = new / new.norm() * budget.sqrt()
        expected = (x[n] + 1.5 * delta / delta.norm()).clamp(0, 1)
        torch.testing.assert_close(candidate[n], expected, rtol=0, atol=1e-9)


def test_l2_square_moves_the_budget_of_one_window_into_another() -> None:
    x, best, candidate = proposals("l2", 3)
    for images in (best, candidate):
        torch.testing.assert_close(norms(images - x, "l2"), torch.full((60,), 1.5, dtype=torch.float64))
    before, after = best - x, candidate - x
    emptied = (after == 0).all(dim=1) & (before != 0).any(dim=1)
    assert emptied.flatten(1).any(dim=1).float().mean() > 0.5
    torch.testing.assert_close(before.square().sum(dim=(2, 3)), after.square().sum(dim=(2, 3)))  # channel by channel
    kept = (before - after).abs() < 1e-9
    assert (kept.flatten(1).sum(dim=1) >= before[0].numel() - 2 * 3 * 9).all()


def test_bumps_fall_off_with_the_square_of_the_distance() -> None:
    """Side 5: two rows around (1, 2), three around (1, 2) of theirs; the k-th rectangle adds 1/k^2."""
    ring, middle = 1 / 4 + 1 / 9, 1 + 1 / 4 + 1 / 9
    upper = torch.tensor([[1 / 9, ring, ring, ring, 1 / 9], [1 / 9, ring, middle, ring, 1 / 9]])
    lower = torch.cat([upper, torch.tensor([[1 / 9, ring, ring, ring, 1 / 9]])])
    expected = torch.cat([upper / upper.norm(), -lower / lower.norm()])
    torch.testing.assert_close(bumps(5), expected / expected.norm())


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6])
def test_bumps_are_two_hills_of_opposite_sign(side: int) -> None:
    hills = bumps(side)
    assert hills.shape == (side, side)
    assert hills.norm() == pytest.approx(1)
    assert (hills[: side // 2] > 0).all()
    assert (hills[side // 2 :] < 0).all()


def test_targets_are_taken_in_turn_while_an_image_withstands() -> None:
    logits = torch.tensor([[5.0, 1, 3, 2], [0, 9, 1, 4], [7, 8, 9, 1.0]])
    labels, calls = torch.tensor([0, 1, 2]), []
    found = {0: [0.5, -1.0, 2.0], 1: [0.7, 9.0], 2: [-0.1, 0.3]}  # margins by rank; image 1 falls at once

    def attack(rows: Tensor, targets: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        calls.append((rows.tolist(), targets.tolist(), rank))
        return torch.full((len(rows), 1, 1, 1), float(rank)), torch.tensor(found[rank])

    images, margin = in_turn(attack, lambda _: logits, torch.full((3, 1, 1, 1), -1.0), labels, 5)
    assert calls == [([0, 1, 2], [2, 3, 1], 0), ([0, 2], [3, 0], 1), ([0, 2], [1, 3], 2)]
    torch.testing.assert_close(margin, torch.tensor([-0.1, -1.0, 0.3]))
    assert images.flatten().tolist() == [2.0, 0.0, 2.0]


def test_restarts_are_of_the_images_that_withstand_and_of_their_own_noise() -> None:
    sizes, labels = [], torch.tensor([0, 4, 0, 4, 0, 4])  # those of class 4 are wrong from the start

    def predict(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return plateau(images)

    x, threat = torch.full((6, *SHAPE), 0.5), ThreatModel("linf", 0.2)
    options = {"steps": 3, "step_factor": 2.5, "restarts": 2}
    whole, _ = worst_case(predict, x, labels, threat, torch.arange(6), **options)
    assert sizes == [6] * 4 + [3] * 4
    alone, _ = worst_case(plateau, x[4:5], labels[4:5], threat, torch.tensor([4]), **options)
    torch.testing.assert_close(whole[4:5], alone)
    assert not torch.equal(whole[2], whole[4])


def test_restarts_find_what_the_first_start_cannot() -> None:
    """At the image the gradient is zero: only a random start can leave it. All restarts of all images run side by side."""
    sizes = []

    def plateau(images: Tensor) -> Tensor:
        sizes.append(len(images))
        away = (images - 0.5).flatten(1).mean(dim=1).abs()
        return torch.stack([1 - (away - 0.001).clamp_min(0) * 100, 0 * away], dim=1)

    x, labels, threat = torch.full((6, *SHAPE), 0.5), torch.zeros(6, dtype=torch.int64), ThreatModel("linf", 0.2)
    options = {"steps": 5, "step_factor": 2.5}
    _, once = worst_case(plateau, x, labels, threat, torch.arange(6), **options, restarts=1)
    assert (once == 1).all()
    sizes.clear()
    found, lowest = worst_case(plateau, x, labels, threat, torch.arange(6), **options, restarts=4)
    assert (lowest <= 0).sum() >= 5
    torch.testing.assert_close(margins(plateau(found), labels), lowest)
    assert sizes[:6] == [6] * 6  # two images with three restarts each
    assert max(sizes) == 6
