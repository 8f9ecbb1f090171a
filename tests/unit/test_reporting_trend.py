import math
from itertools import permutations, product

import numpy as np
import pytest
from scipy import stats

from epsilens.reporting.findings import draw
from epsilens.reporting.multiplicity import holm, reachable
from epsilens.reporting.trend import page, slope_weights, trend, trend_of_these_networks

NAN = np.nan
TWO_SEEDS = np.array([[0.2, 0.5, 0.4, 0.9], [-1.0, 0.1, 0.6, 0.3]])  # [S, E]
OPTIONS = {"samples": 2000, "seed": 0, "confidence": 0.95}


def sample_of(networks, n_images=5, noise=0.0):
    """A sample with these means [S, E] of networks, and images that differ in a way common to all."""
    images = np.linspace(-1, 1, n_images)
    values = np.asarray(networks, dtype=float).T[:, :, None] + images
    values = values + noise * np.random.default_rng(0).normal(size=values.shape)
    return draw(values[..., None], **OPTIONS)[0]


@pytest.mark.parametrize("shape", [(2, 4), (3, 5), (5, 3)])
def test_without_ties_it_is_scipys_exact_page_test(shape):
    table = np.random.default_rng(shape[0]).normal(size=shape) + 0.3 * np.arange(shape[1])
    assert page(table, "rises", seed=0).p == pytest.approx(
        stats.page_trend_test(table, method="exact").pvalue, rel=1e-12
    )
    falling = stats.page_trend_test(table, predicted_ranks=np.arange(shape[1], 0, -1), method="exact").pvalue
    assert page(table, "falls", seed=0).p == pytest.approx(falling, rel=1e-12)


def test_many_blocks_are_scipys_asymptotic_page_test():
    table = np.random.default_rng(3).normal(size=(80, 4)) + 0.1 * np.arange(4)
    known = stats.page_trend_test(table, method="asymptotic").pvalue
    found = page(table, "rises", seed=0)
    assert found.p == pytest.approx(known, rel=1e-9)
    assert page(table, "two-sided", seed=0).p == pytest.approx(2 * known, rel=1e-9)
    assert page(table, "falls", seed=0).p == pytest.approx(1 - known, rel=1e-9)
    assert (found.blocks, found.smallest_p) == (80, pytest.approx(math.factorial(4) ** -80.0, rel=1e-9))


@pytest.mark.parametrize("alternative", ["two-sided", "rises", "falls"])
def test_ties_and_gaps_against_all_orders_one_by_one(alternative):
    table = np.array([[1.0, 1.0, 2.0, 0.5], [3.0, NAN, 3.0, 4.0], [NAN, 7.0, NAN, NAN]])
    ranks = [(np.array([1, 2, 3, 4]), [2.5, 2.5, 4, 1]), (np.array([1, 3, 4]), [1.5, 1.5, 3])]
    observed = sum(positions @ np.array(its) for positions, its in ranks)
    every = np.array([sum(p @ np.array(order) for (p, _), order in zip(ranks, orders, strict=True))
                      for orders in product(*(permutations(its) for _, its in ranks))])  # fmt: skip
    centre = every.mean()
    beyond = {
        "two-sided": abs(every - centre) >= abs(observed - centre) - 1e-9,
        "rises": every >= observed - 1e-9,
        "falls": every <= observed + 1e-9,
    }
    found = page(table, alternative, seed=0)
    assert found.p == pytest.approx(beyond[alternative].mean(), rel=1e-12)
    assert found.blocks == 2
    assert found.smallest_p == pytest.approx((2 if alternative == "two-sided" else 1) / (24 * 6))


def test_many_blocks_with_ties_have_the_variance_of_their_ranks():
    """No asymptotic formula for untied ranks: half of the entries are alike."""
    rng = np.random.default_rng(0)
    table = rng.integers(0, 2, size=(21, 4)).astype(float)
    positions = np.arange(1, 5)
    ranks = np.array([stats.rankdata(row) for row in table])
    drawn = rng.permuted(np.tile(ranks, (20000, 1, 1)), axis=2) @ positions  # [draws, blocks]
    z = ((ranks @ positions).sum() - 2.5 * ranks.sum()) / drawn.sum(axis=1).std()
    assert page(table, "rises", seed=0).p == pytest.approx(stats.norm.sf(z), rel=0.05)
    assert page(np.ones((30, 4)), "two-sided", seed=0).p == 1


def test_long_sweeps_are_permuted_at_random():
    table = np.random.default_rng(5).normal(size=(2, 9)) + 0.15 * np.arange(9)
    known = stats.page_trend_test(table, method="exact").pvalue
    found = page(table, "rises", seed=0)
    assert found.p == pytest.approx(known, abs=4 * math.sqrt(known / 99_999))
    assert found == page(table, "rises", seed=0)
    assert page(np.sort(table), "rises", seed=0).p == pytest.approx(found.smallest_p) == 1e-5


def test_one_seed_of_four_epsilons_cannot_conclude():
    found = trend(sample_of([[0.1, 0.2, 0.3, 0.4]]))
    assert found.p == found.smallest_p == pytest.approx(2 / 24)
    assert (found.n, found.unit, found.n_seeds) == (1, "seeds", 1)
    assert (found.scope, found.n_seeds) == ("these networks", 1)
    assert found.rho == pytest.approx(1)
    assert not reachable([found.smallest_p], 0.05).any()


def test_two_seeds_speak_of_training():
    found = trend(sample_of(TWO_SEEDS))
    known = np.mean([stats.spearmanr(range(4), row).statistic for row in TWO_SEEDS])
    assert found.rho == pytest.approx(known)
    assert (found.n, found.unit, found.scope) == (2, "seeds", "training")
    assert found.smallest_p == pytest.approx(2 / 24**2)
    slopes = [stats.linregress(range(4), row).slope for row in TWO_SEEDS]
    assert found.estimate == pytest.approx(np.mean(slopes))
    half = stats.t.ppf(0.975, 1) * stats.sem(slopes)
    assert found.high - found.estimate == pytest.approx(half, rel=0.1)
    assert found.estimate - found.low == pytest.approx(half, rel=0.1)


def test_each_column_has_its_own_scope():
    """One without masks, and one with a single network at one epsilon, take nothing from the first."""
    values = np.random.default_rng(0).normal(size=(2, 2, 5, 3))
    values[..., 1], values[1, 0, :, 2] = NAN, NAN
    samples = draw(values, **OPTIONS)
    assert [sample.scope for sample in samples] == ["training", "these networks", "these networks"]
    assert [sample.n_seeds for sample in samples] == [2, 0, 1]
    assert {sample.scope for sample in draw(values, scope="these networks", **OPTIONS)} == {"these networks"}


def test_more_images_make_no_trend_of_training_more_certain():
    few, many = (trend(sample_of(TWO_SEEDS, n_images=count)) for count in (5, 50))
    assert few.p == many.p


def test_of_these_networks_images_are_the_blocks():
    sample = sample_of(TWO_SEEDS, n_images=30, noise=0.3)
    found = trend_of_these_networks(sample, alternative="rises")
    known = stats.page_trend_test(sample.values.mean(axis=1).T, method="asymptotic").pvalue
    assert found.p == pytest.approx(known, rel=1e-9)
    assert (found.n, found.unit, found.scope, found.n_seeds) == (30, "images", "these networks", 2)
    assert found.high - found.low < 0.1 * (trend(sample).high - trend(sample).low)


def test_a_seed_without_an_image_does_not_count_in_the_mean_of_that_image():
    values = np.array([[[1.0, 2.0], [3.0, NAN]], [[2.0, 5.0], [4.0, NAN]], [[0.0, 9.0], [9.0, NAN]]])  # [3, 2, 2]
    sample = draw(values[..., None], **OPTIONS)[0]
    known = stats.page_trend_test([[2.0, 3.0, 4.5], [2.0, 5.0, 9.0]], method="exact").pvalue
    assert trend_of_these_networks(sample, alternative="rises").p == pytest.approx(known)


def test_nothing_defined_and_one_epsilon_give_a_reason():
    for values in (np.full((3, 2, 4, 1), NAN), np.ones((1, 2, 4, 1))):
        found = trend(draw(values, **OPTIONS)[0])
        assert math.isnan(found.p)
        assert found.reason
        assert found.n == 0


def test_slope_weights_are_least_squares():
    means = np.array([0.3, -1.0, 2.0, 5.0, 4.0])
    assert slope_weights(5) @ means == pytest.approx(stats.linregress(range(5), means).slope)
    assert slope_weights(1).tolist() == [0.0]


def test_holm_on_the_worked_numbers_of_its_paper_in_any_order():
    """Four tests: .005, .01, .03, .04 become .02, .03, .06, .06."""
    np.testing.assert_allclose(holm([0.03, 0.005, 0.04, 0.01]), [0.06, 0.02, 0.06, 0.03])


def test_holm_leaves_out_what_was_not_tested_and_stays_below_one():
    np.testing.assert_allclose(holm([0.02, NAN, 0.9, 0.8]), [0.06, NAN, 1.0, 1.0])
    assert holm([]).shape == (0,)
    assert reachable([1 / 24, 1 / 576], 0.05).tolist() == [True, True]
    assert reachable([0.03, 0.03], 0.05).tolist() == [False, False]  # each alone could be
    assert reachable([2 / 24, 2 / 576], 0.05).tolist() == [False, True]


def test_a_family_without_any_trend_is_wrong_at_most_as_often_as_it_says():
    rng, trials = np.random.default_rng(1), 300
    wrong = 0
    for _ in range(trials):
        networks = rng.normal(size=(3, 4, 1)) + rng.normal(size=(3, 4, 5))  # five correlated metrics
        wrong += holm([page(networks[..., k], "two-sided", seed=0).p for k in range(5)]).min() <= 0.05
    assert wrong / trials <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / trials)
