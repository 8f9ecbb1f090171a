"""Networks of robustness and torchvision against ours with their weights: the same logits."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import dill
import pytest
import torch
import torchvision
from torch import Tensor, nn

from epsilens.models import build, foreign
from epsilens.models.folding import Folded

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::SyntaxWarning", "ignore::FutureWarning"
)  # robustness' own
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.201]


class Dataset:
    mean, std = torch.tensor(MEAN), torch.tensor(STD)


@pytest.fixture(autouse=True)
def _old_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """robustness imports a module that torchvision no longer has."""
    hub = types.ModuleType("torchvision.models.utils")
    hub.load_state_dict_from_url = torch.hub.load_state_dict_from_url  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision.models.utils", hub)


def shaken(network: nn.Module) -> nn.Module:
    """In eval mode, with batch norms that are not the identity."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
            ):
                nn.init.uniform_(value, low, high)
    return network.eval()


def cifar(name: str) -> nn.Module:
    from robustness import cifar_models

    return getattr(cifar_models, name)(num_classes=7)


def imagenet(name: str) -> nn.Module:
    return getattr(torchvision.models, name)(num_classes=7)


NETWORKS: dict[str, tuple[Callable[[str], nn.Module], str, int]] = {
    "resnet18": (cifar, "resnet18", 32),
    "resnet50": (cifar, "resnet50", 32),
    "imagenet_resnet18": (imagenet, "resnet18", 96),
    "imagenet_resnet50": (imagenet, "resnet50", 96),
}


def ours(path: Path, name: str, mean: list[float] | None, std: list[float] | None) -> nn.Sequential:
    found = foreign.read(path)
    network = build(name, {"width": 64}, 7, *foreign.normalisation(found, mean, std, 3), 0).double()
    foreign.fill(network, found, name)
    return network.eval()


def same(a: Tensor, b: Tensor) -> None:
    assert a.std() > 1e-3
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_checkpoint_of_robustness_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    from robustness.attacker import AttackerModel

    make, theirs, size = NETWORKS[name]
    torch.manual_seed(1)
    network = AttackerModel(shaken(make(theirs)), Dataset()).double().eval()
    schedule = types.FunctionType((lambda epoch: 0.1**epoch).__code__, {})  # what only dill can pickle
    content = {"model": nn.DataParallel(network).state_dict(), "epoch": 3, "schedule": schedule, "amp": None}
    torch.save(content, tmp_path / "theirs.ckpt", pickle_module=dill)
    network_here = ours(tmp_path / "theirs.ckpt", name, None, None)
    images = torch.rand(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        logits = network_here(images)
        same(logits, network.model(network.normalizer(images)))
        same(logits, Folded(network_here).predict(images))


@pytest.mark.parametrize("name", ["imagenet_resnet18", "imagenet_resnet50"])
def test_a_state_dict_of_torchvision_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    make, theirs, size = NETWORKS[name]
    network = shaken(make(theirs)).double()
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    images = torch.rand(2, 3, size, size, dtype=torch.float64)
    mean, std = (torch.tensor(v).double().view(-1, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        same(ours(tmp_path / "theirs.pth", name, MEAN, STD)(images), network((images - mean) / std))
