"""Metrics of maps against quantus 0.6, called for one image at a time: it divides by the maximum of all that it is given."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from epsilens.metrics.conciseness import effective_fraction, gini
from epsilens.metrics.imputation import impute
from epsilens.metrics.relevance import relevance_mass, relevance_rank
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
