import time

import numpy as np
import pandas as pd
import pytest

from epsilens.errors import DataError
from epsilens.reporting.statistics import (
    cube,
    estimate,
    image_sets,
    wilson,
)

OPTIONS = {"samples": 4000, "seed": 3, "confidence": 0.9}


def everything(values):
    return np.ones(values.shape[:3], dtype=bool)


def test_cube_places_unsorted_rows_by_their_names():
    rows = pd.DataFrame(
        [
            {"epsilon": 8.0, "seed": 1, "image": 30, "metric": "b", "score": -1.5},
            {"epsilon": 0.0, "seed": 0, "image": 10, "metric": "a", "score": 2.0},
            {"epsilon": 0.0, "seed": 1, "image": 20, "metric": "b", "score": 7.0},
        ]
    )
    found = cube(rows, ["metric"], "score")
    assert found.epsilons == [0.0, 8.0]
    assert found.seeds == [0, 1]
    assert found.columns == [("b",), ("a",)]
    assert found.n_seeds == [2, 1]
    assert found.values.shape == (2, 2, 3, 2)
    assert found.values[1, 1, 2, 0] == -1.5
    assert found.values[0, 0, 0, 1] == 2.0
    assert found.values[0, 1, 1, 0] == 7.0
    assert np.isnan(found.values).sum() == 24 - 3


def test_cube_refuses_two_rows_for_one_score_and_an_empty_table():
    rows = pd.DataFrame(
        {"epsilon": [1.0, 1.0], "seed": [0, 0], "image": [5, 5], "metric": ["a", "a"], "score": [1.0, 2.0]}
    )
    with pytest.raises(DataError, match="two rows"):
        cube(rows, ["metric"], "score")
    with pytest.raises(DataError, match="no rows"):
        cube(rows.iloc[:0], ["metric"], "score")


def test_image_sets():
    correct = np.array([[[1, 1, 0, np.nan]], [[1, 0, 0, 1]]], dtype=float)  # [2, 1, 4]
    sets = image_sets(correct)
    assert sets["all"].tolist() == [[[True, True, True, False]], [[True, True, True, True]]]
    assert sets["common"].tolist() == [[[True, False, False, False]], [[True, False, False, False]]]
    assert sets["own"].tolist() == [[[True, True, False, False]], [[True, False, False, True]]]
    assert next(iter(sets)) == "common"


def test_a_network_that_is_not_there_shrinks_no_set_and_is_in_none():
    correct = np.array([[[1, 1, 0]], [[1, 0, 1]], [[np.nan] * 3]])  # [3, 1, 3]
    sets = image_sets(correct)
    assert sets["common"][:, 0].tolist() == [[True, False, False], [True, False, False], [False] * 3]
    assert not any(members[2].any() for members in sets.values())
    assert not image_sets(correct[2:])["common"].any()


@pytest.mark.parametrize(("right", "images"), [(0, 12), (12, 12), (3, 40), (731, 1000), (1, 1)])
def test_wilson_is_its_closed_form(right, images):
    z, share = 1.6448536269514722, right / images  # the 0.95 quantile of the normal distribution
    middle = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * (share * (1 - share) / images + z**2 / (4 * images**2)) ** 0.5
    assert wilson(right, images, 0.9) == pytest.approx((middle - half, middle + half), abs=1e-12)


def test_differences_are_paired_by_image_and_by_seed():
    rng = np.random.default_rng(7)
    first = rng.normal(size=(1, 3, 20, 2)) * 10 + rng.normal(size=(1, 3, 1, 1)) * 10
    values = np.concatenate([first, first + 0.25])
    found = estimate(values, everything(values), **OPTIONS)
    np.testing.assert_allclose(found.difference, [[0, 0], [0.25, 0.25]], atol=1e-12)
    np.testing.assert_allclose(found.difference_low, found.difference, atol=1e-12)
    np.testing.assert_allclose(found.difference_high, found.difference, atol=1e-12)
    assert (found.high - found.low > 1).all()


def test_networks_count_alike_however_many_images_they_have():
    values = np.array([[[1.0, 1.0, 1.0, 1.0], [5.0, np.nan, np.nan, np.nan]]])[..., None]  # [1, 2, 4, 1]
    found = estimate(values, everything(values), **OPTIONS)
    assert found.mean.item() == 3.0
    assert (found.seed_min.item(), found.seed_max.item()) == (1.0, 5.0)
    assert (found.n.item(), found.nan.item()) == (4, 3)
    assert found.low.item() < 1.0  # two seeds: Student's t with one degree of freedom
    assert found.high.item() > 5.0


def test_members_restrict_the_images():
    values = np.array([[[-1.0, 100.0, np.nan, 3.0]]])[..., None]
    found = estimate(values, np.array([[[True, False, True, True]]]), **OPTIONS)
    assert found.mean.item() == 1.0
    assert (found.n.item(), found.nan.item()) == (2, 1)


def test_nothing_defined_gives_nan_without_a_warning():
    values = np.full((2, 2, 3, 2), np.nan)
    values[..., 1] = 4.0
    found = estimate(values, everything(values), **OPTIONS)
    assert np.isnan(found.mean[:, 0]).all()
    assert np.isnan(found.low[:, 0]).all()
    assert np.isnan(found.seed_min[:, 0]).all()
    assert found.n.tolist() == [[0, 3], [0, 3]]
    assert found.nan.tolist() == [[6, 0], [6, 0]]
    np.testing.assert_array_equal(found.high[:, 1], [4.0, 4.0])
    nobody = estimate(values, np.zeros((2, 2, 3), dtype=bool), **OPTIONS)
    assert np.isnan(nobody.mean).all()
    assert np.isnan(nobody.difference_high).all()


def test_one_image_and_one_seed_have_no_interval():
    found = estimate(np.array([[[[-2.5]]]]), np.ones((1, 1, 1), dtype=bool), **OPTIONS)
    assert found.mean.item() == -2.5
    assert np.isnan([found.low, found.high, found.difference_low, found.difference_high]).all()


def test_coverage_of_the_interval_with_five_seeds_and_sixty_images():
    rng = np.random.default_rng(11)
    hits = 0
    trials = 200
    for trial in range(trials):
        seeds, images, noise = (rng.normal(size=shape) for shape in [(1, 5, 1, 1), (1, 1, 60, 1), (1, 5, 60, 1)])
        values = 1.5 + 0.1 * seeds + images + noise
        found = estimate(values, everything(values), samples=300, seed=trial, confidence=0.9)
        hits += int(found.low.item() <= 1.5 <= found.high.item())
    assert 0.84 <= hits / trials <= 0.97


def test_a_default_study_takes_a_few_seconds_at_most():
    values = np.random.default_rng(0).normal(size=(4, 2, 100, 72))
    start = time.process_time()
    estimate(values, everything(values), samples=2000, seed=0, confidence=0.95)
    assert time.process_time() - start < 10


def test_undefined_scores_outside_the_set_are_not_counted():
    values = np.array([[[1.0, np.nan, np.nan]]])[..., None]
    assert estimate(values, np.array([[[True, True, False]]]), **OPTIONS).nan.item() == 1


def test_a_difference_of_networks_that_share_no_seed_has_no_interval():
    values = np.arange(24.0).reshape(2, 2, 6)[..., None]
    values[0, 1], values[1, 0] = np.nan, np.nan
    found = estimate(values, everything(values), **OPTIONS)
    assert found.difference[1].item() == 18
    assert np.isnan(found.difference_low[1]).all()
    assert not np.isnan(found.low).any()
