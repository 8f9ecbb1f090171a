"""The worst case over a sequence of attacks: survivors only, the network has the last word, and it can be resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain

import pytest
import torch
from torch import Tensor

from epsilens.attacks import SURVIVED, Ledger, Setting, ThreatModel, check_classes, clean_margins, open_ledger, run
from epsilens.errors import ConfigError, NumericError
from epsilens.types import Samples

THREAT = ThreatModel("linf", 0.2)
N = 10


def samples() -> Samples:
    """Image n has the value 100 + n everywhere."""
    values = torch.arange(100, 100 + N, dtype=torch.uint8)[:, None, None, None].expand(N, 1, 3, 2).clone()
    return Samples(
        values, torch.zeros(N, dtype=torch.int64), torch.zeros(N, 3, 2, dtype=torch.bool), torch.arange(N) + 40
    )


def bright(images: Tensor) -> Tensor:
    """Right while the mean is above 101.5/255."""
    score = images.flatten(1).mean(dim=1) * 255 - 101.5
    return torch.stack([score, -score], dim=1)


class Darken:
    """An attack that darkens by `levels` grey levels, and notes whom it saw."""

    def __init__(self, levels: float) -> None:
        self.levels, self.seen = levels, []

    def __call__(self, predict: Callable, images: Tensor, labels: Tensor, threat: ThreatModel, seeds: Tensor) -> tuple:
        self.seen.append((images[:, 0, 0, 0] * 255).round().int().tolist())
        found = images - self.levels / 255
        return found, bright(found)[:, 0]


def start() -> Ledger:
    return open_ledger(bright, samples(), 4)


def attack_all(attacks: dict, ledger: Ledger, save: Callable = lambda _: None, judge: Callable = bright) -> Ledger:
    run(list(attacks.values()), samples(), Setting(bright, judge, THREAT, 0, 3), ledger, save)
    return ledger


def test_each_attack_sees_only_what_withstood_those_before() -> None:
    weak, strong = Darken(2), Darken(5)
    ledger = attack_all({"weak": weak, "strong": strong}, start())
    assert [*chain(*weak.seen)] == list(range(102, 110))
    assert [*chain(*strong.seen)] == list(range(104, 110))
    assert [len(part) for part in strong.seen] == [3, 3]
    assert ledger.broken_by.tolist() == [0, 0, 1, 1, 2, 2, 2, SURVIVED, SURVIVED, SURVIVED]
    expected = [2 * (value - 101.5) for value in (100, 101, 100, 101, 99, 100, 101, 102, 103, 104)]
    torch.testing.assert_close(ledger.margins, torch.tensor(expected), rtol=0, atol=1e-3)


def test_a_weaker_later_attack_does_not_raise_the_margin() -> None:
    ledger = attack_all({"strong": Darken(5), "weak": Darken(1)}, start())
    assert ledger.margins[-1] == pytest.approx(2 * (104 - 101.5), abs=1e-3)


def test_the_network_itself_has_the_last_word() -> None:
    """The form of the network that the attacks see is fooled, the network is not: they are repeated on the network."""
    strong = Darken(5)
    ledger = attack_all({"strong": strong}, start(), judge=lambda images: bright(images + 50 / 255))
    assert (ledger.broken_by[2:] == SURVIVED).all()
    assert sum(map(len, strong.seen)) == 8 + 5  # 102 to 106 were taken for broken


def test_what_rounding_hid_at_the_boundary_is_found_on_the_network_itself() -> None:
    """An attack that stops just beyond the boundary of the network that it is given."""

    def just_beyond(predict: Callable, images: Tensor, labels: Tensor, threat: ThreatModel, seeds: Tensor) -> tuple:
        found = images - (predict(images)[:, 0] + 0.01)[:, None, None, None] / 255
        return found, predict(found)[:, 0] - predict(found)[:, 1]

    ledger = attack_all({"near": just_beyond}, start(), judge=lambda images: bright(images + 0.5 / 255))
    assert (ledger.broken_by != SURVIVED).all()


@pytest.mark.parametrize("stop", range(5))
def test_a_stopped_run_goes_on_where_it_was(stop: int) -> None:
    whole = attack_all({"weak": Darken(2), "strong": Darken(5)}, start())
    kept: list[Ledger] = []

    def save(ledger: Ledger) -> None:
        kept.append(Ledger(*(column.clone() for column in vars(ledger).values())))
        if len(kept) == stop + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attack_all({"weak": Darken(2), "strong": Darken(5)}, start(), save)
    weak, strong = Darken(2), Darken(5)
    again = attack_all({"weak": weak, "strong": strong}, replace(kept[-1]))
    assert len(weak.seen) + len(strong.seen) == 5 - (stop + 1)
    assert all(torch.equal(a, b) for a, b in zip(vars(whole).values(), vars(again).values(), strict=True))


def test_an_attack_that_leaves_its_threat_model_is_an_error() -> None:
    with pytest.raises(NumericError, match="left its threat model"):
        attack_all({"wrong": Darken(60)}, start())


def test_clean_margins_are_those_of_each_image() -> None:
    expected = 2 * (torch.arange(100, 110) - 101.5)
    torch.testing.assert_close(clean_margins(bright, samples(), 4), expected, rtol=0, atol=1e-3)


def test_a_tie_is_no_survival() -> None:
    def undecided(images: Tensor) -> Tensor:
        return torch.zeros(len(images), 2)

    assert (open_ledger(undecided, samples(), 4).broken_by == 0).all()
    ledger = open_ledger(bright, samples(), 4)
    run([Darken(1)], samples(), Setting(bright, undecided, THREAT, 0, 3), ledger, lambda _: None)
    assert (ledger.broken_by != SURVIVED).all()


def test_noise_follows_from_the_seed_and_the_image() -> None:
    seen = []

    def note(predict: Callable, images: Tensor, labels: Tensor, threat: ThreatModel, seeds: Tensor) -> tuple:
        seen.append(seeds)
        return images, torch.ones(len(images))

    for seed, size in ((0, 4), (0, 10), (1, 10)):
        run([note], samples(), Setting(bright, bright, THREAT, seed, size), start(), lambda _: None)
    assert torch.equal(torch.cat(seen[:2]), seen[2])
    assert not torch.equal(seen[2], seen[3])
    assert len(set(seen[2].tolist())) == 8


def test_too_few_classes_are_named() -> None:
    check_classes(["pgd", "apgd_t", "fab_t"], 4)
    with pytest.raises(ConfigError, match=r"apgd_dlr: needs 3 classes(.|\n)*apgd_t: needs 4"):
        check_classes(["apgd_dlr", "apgd_t", "square"], 2)
