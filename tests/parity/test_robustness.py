"""PGD against MadryLab's robustness: the same iterates from the same start with the same step rule."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import Tensor, nn

from epsilens.attacks import ThreatModel, pgd
from epsilens.models import build

BUDGETS = {"linf": 8.0, "l2": 0.5}
CONSTRAINTS = {"linf": "inf", "l2": "2"}


@pytest.fixture
def attacker(monkeypatch: pytest.MonkeyPatch) -> type:
    """robustness.attacker.Attacker, made to work without a GPU and on this torchvision."""
    monkeypatch.setattr(Tensor, "cuda", lambda self, *_, **__: self)
    hub = types.ModuleType("torchvision.models.utils")
    hub.load_state_dict_from_url = torch.hub.load_state_dict_from_url  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision.models.utils", hub)
    from robustness.attacker import Attacker

    return Attacker


class Dataset:
    mean, std = torch.zeros(3), torch.ones(3)  # the network normalises by itself


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("norm", BUDGETS)
def test_pgd_equals_robustness(norm: str, attacker: type) -> None:
    torch.manual_seed(0)
    network: nn.Module = build("small_resnet", {"width": 8, "stem_stride": 1}, 10, [0.5] * 3, [0.25] * 3, seed=1).eval()
    # Away from 0 and 1: robustness clamps inside the differentiated path, and on this torch that zeroes the gradient of
    # saturated pixels. There it is a fault, and we differ on purpose.
    images = 0.1 + 0.8 * torch.rand(6, 3, 20, 16)
    labels = torch.randint(10, (6,))
    threat = ThreatModel.of(norm, BUDGETS[norm])
    step = threat.epsilon / 4
    ours = pgd(network, images, labels, threat, images, steps=7, step_size=step)
    theirs = attacker(network, Dataset())(
        images,
        labels,
        True,
        constraint=CONSTRAINTS[norm],
        eps=threat.epsilon,
        step_size=step,
        iterations=7,
        random_start=False,
        use_best=False,
    )
    assert (ours - images).abs().max() > 0
    # Linf: the same bits. L2 divides by the norm of the gradient, and theirs is of the mean loss, ours of the sum: two units
    # in the last place.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0 if norm == "linf" else 2.5e-7)
