"""Metrics against quantus 0.6 and captum. quantus is called for one image at a time: it divides by the maximum of all that
it is given."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from torch import Tensor

from epsilens.metrics import stability
from epsilens.metrics.conciseness import effective_fraction, gini
from epsilens.metrics.faithfulness import infidelity
from epsilens.metrics.imputation import impute
from epsilens.metrics.relevance import pointing_game, relevance_mass, relevance_rank
from epsilens.metrics.weights import pixel_weights

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of the packages that quantus imports
    quantus = pytest.importorskip("quantus")

COUNT, HEIGHT, WIDTH = 5, 6, 9


def maps() -> Tensor:
    """Of mixed signs and very different scales."""
    scale = 10.0 ** torch.arange(COUNT, dtype=torch.float64)
    return scale.view(-1, 1, 1, 1) * torch.randn(COUNT, 3, HEIGHT, WIDTH, dtype=torch.float64)


def some_masks() -> Tensor:
    masks = torch.rand(COUNT, HEIGHT, WIDTH) < torch.linspace(0.1, 0.8, COUNT).view(-1, 1, 1)
    masks[:, 0, 0] = True
    return masks


def judged(metric: str, weights: Tensor, masks: Tensor | None = None, **settings: Any) -> list[float]:
    """What quantus says of each image's weights `[N, H, W]` alone."""
    rows = [slice(i, i + 1) for i in range(len(weights))]
    return [together(metric, weights[i], None if masks is None else masks[i], **settings)[0] for i in rows]


def together(metric: str, weights: Tensor, masks: Tensor | None = None, **settings: Any) -> list[float]:
    """What quantus says when it gets all images at once. It writes into its arguments: it gets copies."""
    maps = weights[:, None].numpy().copy()
    inside = None if masks is None else masks[:, None].numpy().copy()
    measure = getattr(quantus, metric)(disable_warnings=True, **settings)
    nothing = np.zeros_like(maps), np.zeros(len(maps), dtype=int)
    scores = measure(model=None, x_batch=nothing[0], y_batch=nothing[1], a_batch=maps, s_batch=inside, batch_size=1)
    return [float(score) for score in scores]


def test_gini_is_its_sparseness() -> None:
    attributions = maps()
    assert gini(attributions).tolist() == pytest.approx(judged("Sparseness", pixel_weights(attributions)), abs=1e-5)


def test_effective_fraction_is_the_exponential_of_its_complexity() -> None:
    attributions = maps()
    entropy = torch.tensor(judged("Complexity", pixel_weights(attributions)), dtype=torch.float64)
    torch.testing.assert_close(effective_fraction(attributions), entropy.exp() / (HEIGHT * WIDTH), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("metric", "name"), [(relevance_mass, "RelevanceMassAccuracy"), (relevance_rank, "RelevanceRankAccuracy")]
)
def test_relevance_is_its_localisation(metric, name: str) -> None:
    attributions, masks = maps(), some_masks()
    assert metric(attributions, masks).tolist() == pytest.approx(judged(name, pixel_weights(attributions), masks))


@pytest.mark.parametrize(
    ("metric", "name"), [(relevance_mass, "RelevanceMassAccuracy"), (relevance_rank, "RelevanceRankAccuracy")]
)
@pytest.mark.filterwarnings("ignore:.*segmentation map:UserWarning", "ignore:invalid value:RuntimeWarning:quantus")
def test_an_empty_mask_is_nan_in_both(metric, name: str) -> None:
    attributions, masks = maps(), some_masks()
    masks[2] = False
    expected = judged(name, pixel_weights(attributions), masks)
    assert metric(attributions, masks).tolist() == pytest.approx(expected, nan_ok=True)
    assert np.isnan(expected).tolist() == [False, False, True, False, False]


def test_imputation_without_noise_is_its_imputation() -> None:
    from quantus.functions.perturb_func import noisy_linear_imputation

    images = torch.rand(COUNT, 3, HEIGHT, WIDTH, dtype=torch.float64)
    removed = torch.rand(COUNT, HEIGHT, WIDTH) < torch.linspace(0.1, 0.9, COUNT).view(-1, 1, 1)
    for image, gone, filled in zip(images, removed, impute(images, removed), strict=True):
        places: Any = gone.flatten().nonzero()[:, 0].numpy()
        expected = noisy_linear_imputation(image.numpy().copy(), places, noise=0.0)
        torch.testing.assert_close(filled, torch.from_numpy(expected), rtol=0, atol=1e-10)


def test_pointing_is_its_pointing() -> None:
    attributions, masks = maps(), some_masks()
    masks[:2] &= pixel_weights(attributions)[:2] < pixel_weights(attributions)[:2].amax(dim=(1, 2), keepdim=True)
    expected = judged("PointingGame", pixel_weights(attributions), masks)
    assert pointing_game(attributions, masks).tolist() == expected
    assert 0 < sum(expected) < COUNT or expected[:2] == [0, 0]


def neighbours(samples: int) -> dict[str, Tensor]:
    """Images, maps and logits at x and at x'; no value is zero."""
    x, near = torch.rand(COUNT, 3, HEIGHT, WIDTH) + 0.1, torch.rand(samples, COUNT, 3, HEIGHT, WIDTH) + 0.1
    a, moved = maps(), maps() + 0.1 * torch.randn(samples, *maps().shape, dtype=torch.float64)
    h, answered = torch.randn(COUNT, 4), torch.randn(samples, COUNT, 4)
    found = {"x": x, "near": near, "a": a, "moved": moved, "h": h, "answered": answered}
    return {name: value.double() for name, value in found.items()}


def weighed(maps: Tensor) -> np.ndarray:
    return pixel_weights(maps)[:, None].numpy()


def test_the_elementwise_forms_are_its_relative_stabilities() -> None:
    """Of each sample; its maximum over samples is ours for the outputs, and for the inputs we take the median."""
    n, samples = neighbours(3), 3
    kept = torch.ones(samples, COUNT, dtype=torch.bool)
    ris = quantus.RelativeInputStability(disable_warnings=True).relative_input_stability_objective
    ros = quantus.RelativeOutputStability(disable_warnings=True).relative_output_stability_objective
    theirs: dict[str, list[np.ndarray]] = {"input": [], "output": []}
    for k in range(samples):
        a, moved = weighed(n["a"]), weighed(n["moved"][k])
        theirs["input"].append(ris(n["x"].numpy(), n["near"][k].numpy(), a, moved))
        theirs["output"].append(ros(n["h"].numpy(), n["answered"][k].numpy(), a, moved))
    inputs = stability.relative_input_stability_elementwise(n["a"], n["moved"], kept, n["x"], n["near"])
    outputs = stability.relative_output_stability_original(n["a"], n["moved"], kept, n["h"], n["answered"])
    np.testing.assert_allclose(inputs, np.log10(np.median(theirs["input"], axis=0)), rtol=0, atol=1e-10)
    np.testing.assert_allclose(outputs, np.log10(np.max(theirs["output"], axis=0)), rtol=0, atol=1e-10)


def test_infidelity_is_captums_normalised_one_in_units_of_the_change() -> None:
    weight = torch.randn(4, 3 * HEIGHT * WIDTH, dtype=torch.float64) / 10
    images, targets = torch.rand(COUNT, 3, HEIGHT, WIDTH, dtype=torch.float64), torch.arange(COUNT) % 4
    g, samples = torch.randn(images.shape, dtype=torch.float64), 6
    noise = 0.1 * torch.randn(COUNT, samples, *images.shape[1:], dtype=torch.float64)

    def network(x: Tensor) -> Tensor:
        return (x.flatten(1) @ weight.T).tanh()

    def perturb(x: Tensor) -> tuple[Tensor, Tensor]:
        drawn = noise.flatten(0, 1)  # captum repeats each image `samples` times
        return drawn, x - drawn

    theirs = captum_infidelity(network, perturb, images, g, target=targets, n_perturb_samples=samples, normalize=True)
    near = (images[:, None] - noise).flatten(0, 1)
    clean = network(images).gather(1, targets[:, None])
    changes = (
        clean - network(near).view(COUNT, samples, -1).gather(2, targets.view(-1, 1, 1).expand(-1, samples, 1))[..., 0]
    )
    products = (noise * g[:, None]).flatten(2).sum(dim=2)
    ours = infidelity(products.T, changes.T)
    torch.testing.assert_close(ours, theirs / changes.square().mean(dim=1), rtol=0, atol=1e-10)


# Deviations, on purpose.


def test_deviation_an_all_zero_map_has_no_gini() -> None:
    """quantus adds 1e-7 to every weight and calls the map perfectly spread (alone, it refuses it)."""
    attributions = maps()[:2]
    attributions[0] = 0
    weights = attributions.abs().sum(dim=1)
    assert together("Sparseness", weights)[0] == pytest.approx(0)
    assert gini(attributions).isnan().tolist() == [True, False]


def test_deviation_scale_and_batch_mates_do_not_matter() -> None:
    """quantus adds its 1e-7 after it divided by the maximum of all maps: beside large gradients small ones look spread."""
    attributions = maps()
    attributions[0] *= 1e-3
    weights = pixel_weights(attributions)
    assert together("Sparseness", weights)[0] < 0.9 * judged("Sparseness", weights)[0]
    assert gini(attributions)[0].item() == pytest.approx(gini(attributions[:1]).item(), abs=1e-12)


def test_deviation_the_mass_of_signed_maps_is_that_of_their_magnitudes() -> None:
    """quantus keeps signs unless told otherwise: a share outside [0, 1]."""
    signed = torch.tensor([[[3.0, -1.0], [-1.0, 0.5]]], dtype=torch.float64)
    mask = torch.tensor([[[True, False], [False, False]]])
    assert judged("RelevanceMassAccuracy", signed, mask, abs=False, normalise=False) == pytest.approx([2.0])
    assert relevance_mass(signed[:, None], mask).tolist() == pytest.approx([3 / 5.5])


def test_deviation_pixels_that_tie_share_the_last_places() -> None:
    """quantus takes those that its sort happens to put first: what the map leaves open is decided by position."""
    weights = torch.ones(2, HEIGHT, WIDTH, dtype=torch.float64)
    weights[:, 2, 4] = 2  # quantus refuses a constant map
    masks = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    masks[0, 0] = masks[1, -1] = True
    first, last = judged("RelevanceRankAccuracy", weights, masks)
    assert abs(first - last) > 0.5
    assert relevance_rank(weights[:, None], masks).tolist() == pytest.approx([(WIDTH - 1) / (HEIGHT * WIDTH - 1)] * 2)


def test_deviation_an_image_without_a_mask_is_no_hit() -> None:
    attributions, masks = maps(), some_masks()
    masks[2] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert judged("PointingGame", pixel_weights(attributions), masks)[2] == 1
    assert pointing_game(attributions, masks).isnan().tolist() == [False, False, True, False, False]


def test_deviation_pixels_that_tie_for_the_heaviest_share_the_hit() -> None:
    """quantus asks whether any of them is inside."""
    weights = torch.ones(1, HEIGHT, WIDTH, dtype=torch.float64)
    weights[0, 0] = 2
    masks = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    masks[0, 0, 3] = True
    assert judged("PointingGame", weights, masks) == [1.0]
    assert pointing_game(weights[:, None], masks).tolist() == pytest.approx([1 / WIDTH])


def test_deviation_one_black_value_does_not_rule_the_relative_stability() -> None:
    """quantus divides it by 1e-6: the quotient falls by orders of magnitude."""
    n = neighbours(1)
    kept = torch.ones(1, COUNT, dtype=torch.bool)
    ours = stability.relative_input_stability_elementwise(n["a"], n["moved"], kept, n["x"], n["near"])
    n["x"][:, 0, 2, 3] = 0
    objective = quantus.RelativeInputStability(disable_warnings=True).relative_input_stability_objective
    theirs = np.log10(objective(n["x"].numpy(), n["near"][0].numpy(), weighed(n["a"]), weighed(n["moved"][0])))
    black = stability.relative_input_stability_elementwise(n["a"], n["moved"], kept, n["x"], n["near"])
    assert (black - ours).abs().max() < 0.1
    assert (theirs < ours.numpy() - 2).all()


def test_deviation_the_noise_of_relative_stability_has_both_signs() -> None:
    """quantus adds uniform noise between 0.02 and 0.2: every neighbour is brighter, and may be no image."""
    measure = quantus.RelativeInputStability(disable_warnings=True)
    image = np.full((1, 50), 0.9)
    moved = measure.perturb_func(arr=image, indices=np.arange(50)[None], indexed_axes=[1]) - image
    assert moved.min() >= 0.02
    assert (moved + image).max() > 1
