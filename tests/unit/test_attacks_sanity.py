"""What must hold if a robustness number is honest (Carlini et al. 2019, arXiv:1902.06705; Zimmermann et al. 2022,
arXiv:2206.13991), on a small trained network."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from epsilens.attacks import ThreatModel, bound, margins
from tests.unit.test_masking import blobs, trained  # noqa: F401 - a fixture

OPTIONS = {
    "single step": ("pgd", {"steps": 1, "step_factor": 1.0, "restarts": 1}),
    "pgd": ("pgd", {"steps": 20, "step_factor": 2.5, "restarts": 1}),
    "more steps": ("pgd", {"steps": 60, "step_factor": 2.5, "restarts": 1}),
    "square": ("square", {"queries": 400}),
}


@pytest.fixture(scope="module")
def middle(trained: nn.Module) -> ThreatModel:  # noqa: F811
    """A budget that breaks about half of the images."""
    images, labels = blobs()
    for budget in range(2, 120, 2):
        threat = ThreatModel.of("linf", budget)
        found = bound("pgd", OPTIONS["pgd"][1], "key")(trained, images, labels, threat, torch.arange(60))[1]
        if (found <= 0).sum() >= 30:
            return threat
    raise AssertionError("no budget breaks half of the images")


def adversarial(name: str, network: nn.Module, threat: ThreatModel) -> Tensor:
    images, labels = blobs()
    attack, options = OPTIONS[name]
    return bound(attack, options, "key")(network, images, labels, threat, torch.arange(60))[0]


def survivors(network: nn.Module, images: Tensor) -> int:
    return int((margins(network(images), blobs()[1]) > 0).sum())


def test_attacks_are_in_the_order_of_what_they_know(trained: nn.Module, middle: ThreatModel) -> None:  # noqa: F811
    """Noise is weakest, then a search without gradients, then one step, then many; more steps never help the defender."""
    images, _ = blobs()
    noise = middle.random_start(images, torch.rand(images.shape, generator=torch.Generator().manual_seed(0)))
    left = [survivors(trained, noise)]
    left += [survivors(trained, adversarial(name, trained, middle)) for name in ("square", "pgd", "more steps")]
    assert left[0] >= left[1] > left[2] >= left[3]
    assert survivors(trained, adversarial("single step", trained, middle)) >= left[2]


def test_what_fools_another_network_is_weaker(trained: nn.Module, middle: ThreatModel) -> None:  # noqa: F811
    other = copy.deepcopy(trained)
    generator = torch.Generator().manual_seed(1)
    for weight in other.parameters():
        weight.data += 0.3 * weight.abs().mean() * torch.randn(weight.shape, generator=generator)
    transferred = survivors(trained, adversarial("pgd", other, middle))
    assert survivors(trained, adversarial("pgd", trained, middle)) < transferred


def planted(network: nn.Module, image: Tensor, label: int, step: Tensor) -> Callable[[Tensor], Tensor]:
    """The network with another class raised along a direction, so that it is ahead of all others at image + step."""
    target, logits = (label + 1) % 5, network(image[None])[0]
    lift = logits.max() - logits[target] + 4  # the network itself moves less than that on the way

    def predict(x: Tensor) -> Tensor:
        along = ((x - image) * step).flatten(1).sum(dim=1) / step.square().sum()
        return network(x) + lift * along[:, None] * nn.functional.one_hot(torch.tensor(target), 5)

    return predict


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["pgd", "apgd_ce", "apgd_t", "fab_t"])  # apgd_dlr looks at the three best classes only
def test_an_adversarial_image_that_provably_exists_is_found(name: str, norm: str, trained: nn.Module) -> None:  # noqa: F811
    options = OPTIONS["pgd"][1] if name == "pgd" else {"iterations": 60} | ({"targets": 4} if name[-1] == "t" else {})
    threat = ThreatModel(norm, 2 / 255 if norm == "linf" else 0.1)
    direction = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(2)).sign()
    step = direction * threat.epsilon / 2 / (1 if norm == "linf" else direction.norm())  # half of the budget
    images, labels = (tensor[::6] for tensor in blobs())
    for image, label in zip(images.clamp(0.05, 0.95), labels.tolist(), strict=True):
        network, y = planted(trained, image, label, step), torch.tensor([label])
        assert margins(network(image[None]), y) > 0 > margins(network((image + step)[None]), y)
        found, margin = bound(name, options, "key")(network, image[None], y, threat, torch.tensor([label]))
        threat.verify(image[None], found)
        assert margin <= 0
