import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from epsilens.errors import ConfigError
from epsilens.reporting.effects import difference, hedges, improved, p_value, share_of_gain, standardised
from epsilens.reporting.equivalence import equivalence
from epsilens.reporting.findings import NO_SHARED_SEED, UNDEFINED, draw

NAN = np.nan
OPTIONS = {"samples": 20000, "seed": 3, "confidence": 0.95}


def sample_of(values, **options):
    return draw(np.asarray(values, dtype=float)[..., None], **(OPTIONS | options))[0]


def one_seed(n_images=25, shift=0.5):
    rng = np.random.default_rng(8)
    first = rng.normal(size=(1, 1, n_images))
    return np.concatenate([first, first + shift + rng.normal(size=first.shape)])


def by_seed(differences):
    """Each seed its own difference between two epsilons, the images all alike."""
    base = np.random.default_rng(1).normal(size=len(differences))
    return np.repeat(np.stack([base, base + differences])[..., None], 6, axis=2)


def test_difference_of_one_seed_is_the_paired_t_test_over_images():
    values = one_seed()
    found = difference(sample_of(values), 1)
    known = stats.ttest_rel(values[1, 0], values[0, 0])
    assert found.estimate == pytest.approx((values[1] - values[0]).mean())
    assert found.p == pytest.approx(known.pvalue, rel=0.5)
    low, high = known.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.05), pytest.approx(high, abs=0.05))
    assert (found.n, found.unit, found.scope, found.n_seeds) == (25, "images", "these networks", 1)


@pytest.mark.parametrize(
    ("alternative", "known"), [("two-sided", "two-sided"), ("rises", "greater"), ("falls", "less")]
)
def test_difference_over_seeds_is_the_paired_t_test(alternative, known):
    differences = np.array([0.9, 0.3, 0.7])
    found = difference(sample_of(by_seed(differences)), 1, alternative=alternative)
    assert found.p == pytest.approx(stats.ttest_1samp(differences, 0, alternative=known).pvalue, rel=0.1)
    assert (found.n, found.unit, found.scope) == (3, "seeds", "training")


def test_p_is_never_zero_and_undefined_replicates_count_against_the_claim():
    assert p_value(np.ones(99)) == 0.02
    assert p_value(np.ones(99), "rises") == 0.01
    assert p_value(np.ones(99), "falls") == 1.0
    assert p_value(np.array([1.0, 1.0, NAN]), "rises") == 0.5
    assert p_value(np.zeros(9)) == 1.0


def test_a_sample_where_lower_is_better_turns_round():
    values = one_seed()
    sample = sample_of(values)
    higher, lower = (difference(sample.oriented(better), 1) for better in ("higher", "lower"))
    assert (lower.estimate, lower.low, lower.high) == pytest.approx((-higher.estimate, -higher.high, -higher.low))


def test_no_difference_without_a_shared_seed_or_a_score():
    values = np.ones((3, 2, 4))
    values[0, 1], values[1, 0] = NAN, NAN
    found = difference(sample_of(values), 1)
    assert (found.reason, math.isnan(found.p), math.isnan(found.low)) == (NO_SHARED_SEED, True, True)
    values[1] = NAN
    assert difference(sample_of(values), 1).reason == UNDEFINED
    assert equivalence(sample_of(values), 1, margin=(-1, 1), alpha=0.05).reason == UNDEFINED


def test_standardised_difference_is_its_formula_and_its_interval_that_of_the_noncentral_t():
    values = one_seed()
    paired = values[1, 0] - values[0, 0]
    dz = paired.mean() / paired.std(ddof=1)
    found = standardised(sample_of(values), 1)
    assert hedges(24) == pytest.approx(1 - 3 / (4 * 24 - 1), abs=1e-3)
    assert hedges(2) == pytest.approx(math.gamma(1) / math.gamma(0.5))
    assert found.estimate == pytest.approx(hedges(24) * dz)
    noncentrality = dz * 5  # root of 25 images
    grid = np.linspace(-2, 8, 4001)
    tail = stats.nct.cdf(noncentrality, 24, grid)
    known = [hedges(24) * grid[np.abs(tail - level).argmin()] / 5 for level in (0.975, 0.025)]
    assert (found.low, found.high) == (pytest.approx(known[0], abs=0.12), pytest.approx(known[1], abs=0.12))


def test_the_interval_of_a_large_standardised_difference_holds_the_doubt_about_the_spread():
    """Of d_z = 3 and 25 images: the error of the mean alone is .2, with that of the spread it is sqrt(1/25 + 9/50)."""
    found = standardised(sample_of(one_seed(shift=3.0)), 1)
    width = 2 * stats.norm.ppf(0.975) * math.sqrt(1 / 25 + found.estimate**2 / 50)
    assert 0.7 * width < found.high - found.low < 1.4 * width


def test_standardised_difference_of_more_seeds_is_that_of_a_network():
    """Averaging over seeds would shrink the noise, and the effect would grow with the number of seeds."""
    rng = np.random.default_rng(0)
    values = np.stack([np.zeros((8, 400)), 0.5 + rng.normal(size=(8, 400))])
    assert standardised(sample_of(values, samples=200), 1).estimate == pytest.approx(0.5, abs=0.05)


def test_standardised_difference_widens_with_the_spread_of_seeds():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 3, 40))
    alike, apart = (noise + np.array([0.0, 1.0])[:, None, None] * (1 + shift) for shift in (
        np.zeros(3)[:, None], np.array([-0.9, 0.0, 0.9])[:, None]))  # fmt: skip
    widths = [(found := standardised(sample_of(v, samples=2000), 1)).high - found.low for v in (alike, apart)]
    assert widths[1] > 2 * widths[0]


def test_standardised_difference_without_spread_or_images():
    assert standardised(sample_of([[[1.0, 2.0, 4.0]], [[2.0, 3.0, 5.0]]]), 1).reason.endswith("all images")
    assert "three" in standardised(sample_of([[[1.0, 2.0]], [[2.0, 9.0]]]), 1).reason


def test_share_of_images_that_improve():
    values = np.array([[[0.0, 0.0, 0.0, 0.0, NAN]], [[1.0, 2.0, 0.0, -5.0, 1.0]]])
    found = improved(sample_of(values), 1)
    assert found.estimate == 2.5 / 4
    assert 0 <= found.low < found.estimate < found.high <= 1
    assert improved(sample_of(values).oriented("lower"), 1).estimate == 1.5 / 4
    assert found.n == 4


def test_share_of_images_that_improve_is_the_normal_one():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(1, 1, 4000))
    found = improved(sample_of(np.concatenate([first, first + 0.5 + rng.normal(size=first.shape)]), samples=500), 1)
    assert found.estimate == pytest.approx(stats.norm.cdf(0.5), abs=0.02)


@pytest.mark.parametrize("margin", [(-0.3, 0.3), (-0.05, 0.6)])
def test_equivalence_over_seeds_is_the_two_one_sided_t_tests(margin):
    differences = np.array([0.05, -0.02, 0.09, 0.11, 0.01])
    found = equivalence(sample_of(by_seed(differences)), 1, margin=margin, alpha=0.05)
    above = stats.ttest_1samp(differences, margin[0], alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin[1], alternative="less").pvalue
    assert (found.p_above, found.p_below) == (
        pytest.approx(above, rel=0.2, abs=2e-4),
        pytest.approx(below, rel=0.2, abs=2e-4),
    )
    assert found.p == max(found.p_above, found.p_below)
    known = stats.t.interval(0.9, 4, differences.mean(), stats.sem(differences))
    assert (found.low, found.high) == pytest.approx(known, abs=0.003)
    assert found.confidence == pytest.approx(0.9)


def test_equivalence_is_a_small_p_only_well_within_the_margins():
    sample = sample_of(by_seed(np.array([0.45, 0.52, 0.5, 0.49, 0.51])))
    within, beyond, edge = (equivalence(sample, 1, margin=m, alpha=0.05) for m in [(-1, 1), (-0.1, 0.1), (-0.5, 0.5)])
    assert within.p < 0.01
    assert (beyond.p_above, beyond.p_below) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))
    assert beyond.low > 0.1
    assert 0.05 < edge.p_below < 0.95
    other = equivalence(sample.oriented("lower"), 1, margin=(-0.1, 0.1), alpha=0.05)
    assert (other.p_above, other.high < -0.1) == (pytest.approx(1, abs=0.01), True)
    for margin in [(0.1, 0.2), (-0.2, -0.1), (0.0, 0.1)]:
        with pytest.raises(ConfigError, match="enclose 0"):
            equivalence(sample, 1, margin=margin, alpha=0.05)


def test_the_interval_of_equivalence_is_of_alpha_whatever_the_confidence_of_the_sample():
    differences = np.array([0.05, -0.02, 0.09, 0.11, 0.01])
    wide, narrow = (replace(sample_of(by_seed(differences)), confidence=level) for level in (0.99, 0.5))
    found = [equivalence(sample, 1, margin=(-0.3, 0.3), alpha=0.05) for sample in (wide, narrow)]
    assert [(each.low, each.high, each.confidence) for each in found] == [(found[0].low, found[0].high, 0.9)] * 2


def test_two_seeds_far_apart_are_not_equivalent_however_many_images():
    values = np.zeros((2, 2, 500))
    values[1] = np.array([-0.1, 0.1])[:, None]
    found = equivalence(sample_of(values, samples=2000), 1, margin=(-0.2, 0.2), alpha=0.05)
    assert found.p > 0.1
    assert found.low < -0.2 < 0.2 < found.high


def share_values(means, n_images=200, noise=0.1):
    images = np.random.default_rng(0).normal(size=(len(means), 1, n_images))
    return np.asarray(means)[:, None, None] + noise * (images - images.mean(axis=2, keepdims=True))


def test_share_of_gain_at_the_smallest_epsilon():
    sample = sample_of(share_values([1.0, 1.6, 2.2, 2.0]))
    found = share_of_gain(sample)
    assert found.estimate == pytest.approx(0.6)
    assert found.low < 0.6 < found.high
    assert found.high - found.low < 0.1
    assert share_of_gain(sample.oriented("lower")).estimate == pytest.approx(0.6)  # of a change for the worse


def test_share_of_gain_has_fiellers_interval():
    """Linear contrasts, nearly normal: the set of all shares r for which gain_1 - r gain_last may be 0."""
    values = share_values([0.0, 0.05, 0.1], noise=0.3)
    found = share_of_gain(sample_of(values))
    first, last = values[1, 0] - values[0, 0], values[2, 0] - values[0, 0]
    shares = np.linspace(-3, 6, 1801)
    inside = shares[
        np.abs(stats.ttest_1samp(first - shares[:, None] * last, 0, axis=1).statistic) < stats.t.ppf(0.975, 199)
    ]
    assert (found.low, found.high) == (pytest.approx(inside.min(), abs=0.1), pytest.approx(inside.max(), abs=0.1))


def test_share_of_gain_takes_replicates_of_the_other_sign_as_infinitely_far():
    sample = sample_of(share_values([0.0, 0.5, 1.0]), samples=1000)
    shares, whole = np.linspace(0, 1, 1000), np.ones(1000)
    whole[::50] = -1  # 2 % of the replicates
    replicates = np.stack([np.zeros(1000), shares * whole, whole], axis=1)
    found = share_of_gain(replace(sample, replicates=replicates))
    kept = shares[whole > 0]
    assert (found.low, found.high) == (kept[24 - 20], kept[-1 - 24 + 20])


def test_share_of_nothing_is_undefined():
    found = share_of_gain(sample_of(share_values([1.0, 1.3, 1.01], noise=0.3)))
    assert math.isnan(found.estimate)
    assert math.isnan(found.high)
    assert "cannot be told from 0" in found.reason
    assert share_of_gain(sample_of(share_values([1.0]))).reason == UNDEFINED
