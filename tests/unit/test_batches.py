"""Batches that are halved where memory is not enough: the same values, said once a halving, an end at one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from epsilens import attributions, metrics
from epsilens.attacks import Setting, ThreatModel, attack_margins, bound, clean_margins
from epsilens.attacks.masking import probe
from epsilens.batches import Batches
from epsilens.errors import NumericError
from epsilens.metrics.evidence import Evidence
from epsilens.types import Samples

REFUSALS: tuple[Callable[[], Exception], ...] = (
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    MemoryError,
)


def rows(limit: int, refusal: Callable[[], Exception]) -> Callable[[slice], list[int]]:
    def compute(part: slice) -> list[int]:
        if part.stop - part.start > limit:
            raise refusal()
        return list(range(part.start, part.stop))

    return compute


@pytest.mark.parametrize("refusal", REFUSALS)
def test_all_rows_come_once_and_in_order(refusal: Callable[[], Exception], capsys: pytest.CaptureFixture[str]) -> None:
    told: list[int] = []
    batches = Batches(16)
    found = list(batches.of(rows(5, refusal), 21, told.append))
    assert [row for _, part in found for row in part] == list(range(21))
    assert [part.stop - part.start for part, _ in found] == told == [4, 4, 4, 4, 4, 1]
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "warning: out of memory with 16 images at once, going on with 8",
        "warning: out of memory with 8 images at once, going on with 4",
    ]
    assert batches.size == 4  # and so it stays: the next rows are not tried in vain


def test_a_last_batch_that_does_not_fit_is_halved_itself() -> None:
    found = list(Batches(8).of(rows(1, MemoryError), 3))
    assert [row for _, part in found for row in part] == [0, 1, 2]


def test_one_row_that_does_not_fit_is_a_clear_error() -> None:
    with pytest.raises(NumericError, match="out of memory with one image"):
        list(Batches(4).of(rows(0, MemoryError), 4))


def test_other_errors_pass_and_no_rows_give_nothing() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        list(Batches(4).of(rows(2, lambda: RuntimeError("shapes do not fit")), 4))
    assert list(Batches(4).of(rows(0, MemoryError), 0)) == []


class Greedy(nn.Module):
    """A network that has memory for `limit` images at once."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).double()

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.layers(images.double())


def samples() -> Samples:
    g = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (13, 3, 8, 8), generator=g, dtype=torch.uint8)
    masks = torch.zeros(13, 8, 8, dtype=torch.bool)
    masks[:, 2:6, 2:6] = True
    return Samples(images, torch.arange(13) % 5, masks, torch.arange(13))


def attacked(network: nn.Module) -> list[Tensor]:
    setting = Setting(network, network, ThreatModel.of("linf", 8), 0, 13)
    attack = bound("pgd", {"steps": 3, "step_factor": 2.5, "restarts": 1}, "attack")
    return [clean_margins(network, samples(), 13), attack_margins(attack, samples(), setting)]


def probed(network: nn.Module) -> list[Tensor]:
    given, threat = samples(), ThreatModel.of("linf", 8)
    found = probe(
        network, given.pixels(), given.labels, threat, torch.arange(13), steps=2, step_factor=2.5, batch_size=13
    )
    return [torch.tensor(list(found.values()))]


def explained(network: nn.Module) -> list[Tensor]:
    given = samples()
    explain = attributions.explainer(network, "gradient", {}, 13)
    return [explain(given.pixels(), given.labels, torch.arange(13))]


def scored(network: nn.Module) -> list[Tensor]:
    given = samples()
    explain = attributions.explainer(network, "gradient", {}, 13)
    maps = explain(given.pixels(), given.labels, torch.arange(13))
    evidence = Evidence(
        given.pixels(), given.labels, maps, given.masks, torch.arange(13), network.forward, explain, batch_size=13
    )
    options: dict[str, Any] = {"gini": {}, "direction_sensitivity": {"radius_255": 4, "samples": 2}}
    return list(metrics.score(evidence, options | {"road_gap": {"fractions": [0.5]}}).values())


@pytest.mark.parametrize("compute", [attacked, probed, explained, scored])
def test_attacks_maps_and_scores_are_the_same(
    compute: Callable[[nn.Module], list[Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = compute(Greedy(1000))
    assert capsys.readouterr().err == ""
    parts = compute(Greedy(3))
    assert "going on with 3" in capsys.readouterr().err
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, equal_nan=True)


REAL = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import torch
from epsilens.batches import Batches
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20), resource.RLIM_INFINITY))
found = list(Batches(16).of(lambda part: torch.ones(part.stop - part.start, 64 << 20, dtype=torch.uint8)[:, 0].clone(), 16))
print(len(found), sum(int(each.sum()) for _, each in found))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_process_without_more_memory_goes_on_with_less(root: Path) -> None:
    """1 GiB is asked for where 600 MiB are left, by the system's own limit."""
    done = subprocess.run([sys.executable, "-c", REAL, str(root / "src")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    batches, images = map(int, done.stdout.split())
    assert images == 16
    assert batches >= 2
    assert "out of memory with 16 images at once" in done.stderr
