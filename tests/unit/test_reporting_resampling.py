import numpy as np
import pytest
from scipy import stats

from epsilens.reporting.resampling import (
    interval,
    network_means,
    resampled_images,
    resampled_means,
    resampling_weights,
    seed_deviations,
)

NAN = np.nan


@pytest.mark.parametrize("count", [1, 2, 7])
def test_each_resample_draws_one_unit_less_than_there_are(count):
    weights = resampling_weights(count, 50, np.random.default_rng(0))
    assert weights.shape == (50, count)
    assert (weights.sum(axis=1) == max(1, count - 1)).all()
    assert (weights >= 0).all()


def test_resampling_draws_every_unit_equally_often():
    weights = resampling_weights(5, 20000, np.random.default_rng(1))
    np.testing.assert_allclose(weights.mean(axis=0), 4 / 5, atol=0.02)


def test_network_means_leave_undefined_scores_out():
    values = np.array([[[[1.0, NAN], [NAN, NAN], [-4.0, NAN]]]])  # [1, 1, 3, 2]
    np.testing.assert_array_equal(network_means(values), [[[-1.5, NAN]]])


def test_one_seed_has_the_t_interval_of_its_images():
    values = np.random.default_rng(5).normal(-3, 2, size=(1, 1, 12, 3))
    replicates = resampled_means(values, samples=40000, seed=0)[:, 0]
    expected = values[0, 0].var(axis=0, ddof=1) / 12 * 11 / 9  # Student's t with 11 degrees has the variance 11/9
    np.testing.assert_allclose(replicates.var(axis=0), expected, rtol=0.04)
    np.testing.assert_allclose(replicates.mean(axis=0), values[0, 0].mean(axis=0), atol=0.01)
    low, high = interval(replicates, 0.95)
    known = stats.t.interval(0.95, 11, values[0, 0].mean(axis=0), stats.sem(values[0, 0]))
    np.testing.assert_allclose(high - low, known[1] - known[0], rtol=0.05)


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_seeds_alone_have_the_t_interval_of_their_means(count, confidence):
    per_seed = np.random.default_rng(count).normal(3, 2, size=(2, count, 2))  # [E, S, K]
    values = np.repeat(per_seed[:, :, None], 7, axis=2)  # the images are all alike
    replicates = resampled_means(values, samples=20000, seed=0)
    for found, data in [(replicates, per_seed), (replicates[:, 1] - replicates[:, 0], per_seed[1] - per_seed[0])]:
        axis = data.ndim - 2
        known = stats.t.interval(confidence, count - 1, data.mean(axis=axis), stats.sem(data, axis=axis))
        width = known[1] - known[0]
        for end, closed in zip(interval(found, confidence), known, strict=True):
            np.testing.assert_allclose((end - closed) / width, 0, atol=0.02)


def test_an_epsilon_with_fewer_seeds_has_fewer_degrees_of_freedom():
    means = np.array([[1.0, 2.0, 4.0], [1.0, NAN, 4.0], [NAN, 7.0, NAN], [NAN, NAN, NAN]])[..., None]
    found = seed_deviations(means, samples=20000, seed=0)[..., 0]
    for index, data in enumerate([[1.0, 2.0, 4.0], [1.0, 4.0]]):
        half = stats.t.ppf(0.95, len(data) - 1) * stats.sem(data)
        np.testing.assert_allclose(np.quantile(found[:, index], [0.05, 0.95]), [-half, half], rtol=0.03)
    assert (found[:, 2:] == 0).all()


def test_what_is_the_same_for_all_networks_has_no_spread_of_seeds():
    replicates = resampled_means(np.full((2, 3, 5, 1), 0.1), samples=100, seed=0)
    np.testing.assert_allclose(replicates, 0.1, rtol=1e-14)


def test_of_these_networks_the_seeds_have_no_spread():
    values = np.repeat(np.array([[1.0, 9.0]])[:, :, None, None], 20, axis=2)
    assert (resampled_images(values, samples=500, seed=0) == 5).all()
    assert resampled_means(values, samples=500, seed=0).std() > 5


def test_draws_of_seeds_are_shared_and_those_of_images_are_not():
    """Accuracy and quality are of the same networks and of other images."""
    per_seed = np.array([0.3, -1.0, 2.0])
    seeds = np.broadcast_to(per_seed[None, :, None, None], (1, 3, 30, 1)).copy()
    more = np.broadcast_to(per_seed[None, :, None, None], (1, 3, 80, 2)).copy()
    few, many = (resampled_means(values, samples=300, seed=4, stream=s) for s, values in [(0, seeds), (1, more)])
    np.testing.assert_allclose(few[..., 0], many[..., 0], atol=1e-12)
    images = np.random.default_rng(0).normal(size=(1, 1, 30, 1))
    first, second = (resampled_means(images, samples=4000, seed=4, stream=s).ravel() for s in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    np.testing.assert_array_equal(first, resampled_means(images, samples=4000, seed=4).ravel())


def test_images_are_shared_by_all_seeds():
    """Were images drawn anew for each seed, an image's effect would average out and look too certain."""
    image_effect = np.random.default_rng(2).normal(size=50)
    values = np.broadcast_to(image_effect[None, None, :, None], (1, 4, 50, 1)).copy()
    replicates = resampled_means(values, samples=20000, seed=0)
    assert replicates.var() == pytest.approx(image_effect.var(ddof=1) / 50 * 49 / 47, rel=0.05)


def test_a_network_that_a_resample_leaves_without_a_score_does_not_move_the_mean():
    values = np.array([[[1.0, 1.0, 1.0, 1.0], [9.0, NAN, NAN, NAN]]])[..., None]
    assert (resampled_images(values, samples=200, seed=0) == 5).all()


def test_interval_is_the_percentiles_and_skips_undefined_replicates():
    replicates = np.concatenate([np.arange(101.0)[::-1], [NAN, NAN]])[:, None]
    low, high = interval(replicates, 0.9)
    assert (low.item(), high.item()) == (pytest.approx(5), pytest.approx(95))


def test_blocks_change_nothing_but_the_draws(monkeypatch):
    values = np.random.default_rng(0).normal(size=(2, 2, 30, 3))
    whole = resampled_images(values, samples=500, seed=1)
    monkeypatch.setattr("epsilens.reporting.resampling.BLOCK", 30 * 7)
    parts = resampled_images(values, samples=500, seed=1)
    assert parts.shape == whole.shape == (500, 2, 3)
    np.testing.assert_allclose(parts.mean(axis=0), whole.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(parts.std(axis=0), whole.std(axis=0), rtol=0.15)


def test_same_seed_same_numbers_other_seed_others():
    values = np.random.default_rng(0).normal(size=(1, 3, 20, 1))
    first, again, other = (resampled_means(values, samples=100, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_images_without_any_score_are_not_resampled():
    full, padded = np.array([[[0.0, 1.0, 5.0]]])[..., None], np.array([[[0.0, NAN, 1.0, 5.0]]])[..., None]
    np.testing.assert_array_equal(
        resampled_means(full, samples=50, seed=0), resampled_means(padded, samples=50, seed=0)
    )


@pytest.mark.parametrize(("n_seeds", "n_images"), [(1, 20), (2, 20), (3, 20), (5, 60)])
def test_the_interval_covers_as_often_as_it_says(n_seeds, n_images):
    """benchmarks/intervals.py measures the same more closely; here a scheme that is far off must fall."""
    rng, trials = np.random.default_rng(11), 400
    hits = 0
    for trial in range(trials):
        seeds, images = rng.normal(size=(1, n_seeds, 1, 1)), rng.normal(size=(1, 1, n_images, 1))
        noise = rng.normal(size=(1, n_seeds, n_images, 1))
        values = (n_seeds > 1) * 0.5 * seeds + images + 0.5 * noise
        low, high = interval(resampled_means(values, samples=400, seed=trial), 0.95)
        hits += int(low.item() <= 0 <= high.item())
    assert 0.925 <= hits / trials <= 0.99
