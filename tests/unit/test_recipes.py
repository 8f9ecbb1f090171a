"""Training objectives on a linear network, where the examples that each must make are known."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from epsilens.attacks import ThreatModel
from epsilens.training.recipes import RECIPES, Batch, standard

EPSILON = {"linf": 0.05, "l2": 0.2}
G = torch.Generator().manual_seed(5)
WEIGHT = torch.randn(3 * 4 * 5, generator=G, dtype=torch.float64)  # of class 1; class 0 has logit 0
IMAGES = 0.3 + 0.4 * torch.rand(6, 3, 4, 5, generator=G, dtype=torch.float64)  # no clipping: budgets end inside [0, 1]
LABELS = torch.tensor([0, 1, 1, 0, 1, 0])
NOISE = torch.rand(6, 3, 4, 5, generator=G, dtype=torch.float64)


def linear(images: Tensor) -> Tensor:
    score = images.flatten(1) @ WEIGHT
    return torch.stack([torch.zeros_like(score), score], dim=1)


def trained(images: Tensor) -> Tensor:
    return -0.7 * linear(images)


def direction(norm: str, against: Tensor) -> Tensor:
    """The steepest ascent of the loss for each image, of length 1: `against` has one sign an image."""
    step = WEIGHT.sign() if norm == "linf" else WEIGHT / WEIGHT.norm()
    return (against.to(torch.float64)[:, None] * step).view(IMAGES.shape)


def examples(name: str, norm: str, **options: Any) -> tuple[Tensor, Tensor]:
    """The images on which the weights would be trained, and the loss."""
    seen = []

    def network(images: Tensor) -> Tensor:  # not the attacked one, so that one taken for the other is seen
        seen.append(images)
        return trained(images)

    batch = Batch(IMAGES, LABELS, lambda: NOISE)
    threat = ThreatModel(norm, EPSILON[norm])
    loss = partial(RECIPES[name].run, **options)(network, linear, batch, threat, F.cross_entropy)
    return seen[-1], loss


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("norm", EPSILON)
def test_pgd_trains_on_the_worst_case(norm: str, random_start: bool) -> None:
    # From a random start steps of 8 epsilon in all lead back to the edge; in L2 the start's part across the step decays.
    adversarial, loss = examples("pgd", norm, steps=40, step_factor=40.0, random_start=random_start)
    expected = IMAGES + EPSILON[norm] * direction(norm, torch.where(LABELS == 1, -1, 1))
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-9 if norm == "linf" else 1e-6)
    torch.testing.assert_close(loss, F.cross_entropy(trained(adversarial), LABELS))


@pytest.mark.parametrize("norm", EPSILON)
def test_n_fgsm_steps_from_noise_and_is_not_projected(norm: str) -> None:
    adversarial, _ = examples("n_fgsm", norm, noise_factor=2.0, step_factor=1.5)
    noise = ThreatModel(norm, 2 * EPSILON[norm]).random_start(IMAGES, NOISE) - IMAGES
    expected = noise + 1.5 * EPSILON[norm] * direction(norm, torch.where(LABELS == 1, -1, 1))
    torch.testing.assert_close(adversarial - IMAGES, expected, rtol=0, atol=1e-9)
    lengths = ThreatModel(norm, EPSILON[norm]).measure(IMAGES, adversarial)
    assert (lengths > 1.2 * EPSILON[norm]).all()  # outside the threat model
    assert (lengths <= 3.5 * EPSILON[norm] + 1e-9).all()


def test_n_fgsm_noise_is_uniform_and_pixels_stay_in_range() -> None:
    batch = Batch(torch.full((1, 3, 64, 64), 0.02), torch.zeros(1, dtype=torch.int64), lambda: torch.rand(1, 3, 64, 64))
    seen: list[Tensor] = []
    network = lambda images: seen.append(images) or images.flatten(1)[:, :2]  # noqa: E731  # records what it is given
    flat = lambda images: 0 * images.flatten(1)[:, :2]  # noqa: E731  # no gradient, so no step
    RECIPES["n_fgsm"].run(
        network, flat, batch, ThreatModel("linf", 0.05), F.cross_entropy, noise_factor=2.0, step_factor=1.0
    )
    assert seen[0].min() == 0  # -0.08 is clipped
    assert 0.1 < seen[0].max() <= 0.12 + 1e-6
    assert (seen[0] == 0).float().mean() == pytest.approx(0.4, abs=0.02)  # (0.1 - 0.02) / 0.2 of the noise


def test_trades_seeks_the_largest_divergence_and_weighs_it() -> None:
    adversarial, loss = examples("trades", "linf", steps=20, step_factor=8.0, beta=6.0)
    start = torch.special.ndtri(NOISE).flatten(1) @ WEIGHT  # the side of the clean prediction on which the noise lies
    expected = IMAGES + EPSILON["linf"] * direction("linf", start.sign())
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-9)
    clean, other = trained(IMAGES).softmax(dim=1), trained(adversarial).softmax(dim=1)
    divergence = (clean * (clean / other).log()).sum(dim=1).mean()
    torch.testing.assert_close(loss, F.cross_entropy(trained(IMAGES), LABELS) + 6 * divergence)


def test_one_step_of_trades() -> None:
    adversarial, _ = examples("trades", "linf", steps=1, step_factor=0.5, beta=6.0)
    start = 0.001 * torch.special.ndtri(NOISE)
    expected = start + 0.5 * EPSILON["linf"] * direction("linf", (start.flatten(1) @ WEIGHT).sign())
    torch.testing.assert_close(adversarial - IMAGES, expected, rtol=0, atol=1e-9)


def test_trades_moves_the_weights_by_both_predictions() -> None:
    weight = WEIGHT.clone().requires_grad_()
    seen = []

    def network(images: Tensor) -> Tensor:
        seen.append(images)
        score = images.flatten(1) @ weight
        return torch.stack([torch.zeros_like(score), score], dim=1)

    batch, threat = Batch(IMAGES, LABELS, lambda: NOISE), ThreatModel("linf", 0.05)
    loss = RECIPES["trades"].run(network, linear, batch, threat, F.cross_entropy, steps=2, step_factor=1.0, beta=6.0)
    clean, other = network(IMAGES).softmax(dim=1), network(seen[1]).softmax(dim=1)
    expected = F.cross_entropy(network(IMAGES), LABELS) + 6 * (clean * (clean / other).log()).sum(dim=1).mean()
    torch.testing.assert_close(*(torch.autograd.grad(value, weight)[0] for value in (loss, expected)))


@pytest.mark.parametrize("norm", EPSILON)
def test_pgd_starts_where_the_threat_model_says(norm: str) -> None:
    adversarial, _ = examples("pgd", norm, steps=1, step_factor=1e-9, random_start=True)
    torch.testing.assert_close(
        adversarial, ThreatModel(norm, EPSILON[norm]).random_start(IMAGES, NOISE), rtol=0, atol=1e-7
    )
    adversarial, _ = examples("pgd", norm, steps=1, step_factor=1e-9, random_start=False)
    torch.testing.assert_close(adversarial, IMAGES, rtol=0, atol=1e-7)


def test_standard_is_the_loss_on_the_images() -> None:
    batch = Batch(IMAGES, LABELS, lambda: NOISE)
    loss = standard(linear, lambda _: pytest.fail("attacked"), batch, ThreatModel("linf", 0.0), F.cross_entropy)
    torch.testing.assert_close(loss, F.cross_entropy(linear(IMAGES), LABELS))
