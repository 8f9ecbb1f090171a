"""Replicates of means over networks and images, whose percentiles are intervals. docs/statistics.md derives them.

Axes: E training epsilons, S seeds, N images, K columns (one an attribution and metric), B resamples, C = E K.

Seeds and images are crossed factors: all networks are scored on the same images. A replicate is the mean plus two
independent deviations: of images (a bootstrap) and of seeds (Student's, because two or three seeds, drawn with
replacement, would show almost nothing of the spread between trainings). Each draw serves all epsilons and columns,
hence differences and ratios of replicates are paired by image and by seed.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from scipy import stats

Values = Annotated[np.ndarray, "float64 [E, S, N, K]; NaN where a score is missing or undefined"]
Replicates = Annotated[np.ndarray, "float64 [B, E, K]; NaN where no network has a defined score"]

BLOCK = 2**22  # resampling weights held at once: 32 MiB


def network_means(values: Values) -> np.ndarray:
    """Mean over images for each network, [E, S, K]; NaN where a network has no defined score."""
    return ratio(np.nansum(values, axis=2), (~np.isnan(values)).sum(axis=2))


def grand_means(means: np.ndarray) -> np.ndarray:
    """Mean over seeds, [E, S, K] -> [E, K]: networks count alike, however many images each has."""
    return ratio(np.nansum(means, axis=1), (~np.isnan(means)).sum(axis=1))


def resampled_means(values: Values, *, samples: int, seed: int, stream: int = 0) -> Replicates:
    """Replicates of the mean over seeds of the means over images, with both sources of chance.

    Two calls with the same `seed`, `samples` and number of seeds share the draws of seeds; with another `stream`
    the draws of images differ (accuracy and quality are of other images, but of the same networks).
    With one seed they hold for these networks only: there is nothing to tell how another training would end.
    """
    seeds = seed_deviations(network_means(values), samples=samples, seed=seed)
    return resampled_images(values, samples=samples, seed=seed, stream=stream) + seeds


def resampled_images(values: Values, *, samples: int, seed: int, stream: int = 0) -> Replicates:
    """Replicates that know chance in the choice of images only: of these very networks, whatever their number."""
    deviations = image_deviations(values, samples=samples, seed=seed, stream=stream)
    count = (~np.isnan(values)).any(axis=1).sum(axis=1)  # [E, K]
    spread = _stratified(samples, np.random.default_rng([seed, 1, stream, 1]))
    factors = np.ones_like(deviations)
    for dof in np.unique(count[count > 1]) - 1:
        factors[:, count == dof + 1] = np.sqrt(dof / stats.chi2.ppf(spread, dof))[:, None]
    return grand_means(network_means(values)) + factors * deviations


def seed_deviations(means: np.ndarray, *, samples: int, seed: int) -> np.ndarray:
    """Deviations of the mean over seeds, [E, S, K] -> [B, E, K]: for each linear contrast of epsilons and columns
    they are distributed as s t / sqrt(S), s its standard deviation over seeds, t Student's with S - 1 degrees of freedom.

    weights = radius * direction: a direction at random among those that sum to 0 over the seeds that are there, a
    radius with radius^2/(S - 1) ~ F(S - 1, S - 1), stratified. 0 where only one seed is there.
    """
    rng = np.random.default_rng([seed, 0])
    normal, uniform = rng.normal(size=(samples, means.shape[1])), _stratified(samples, rng)
    columns = np.moveaxis(means - grand_means(means)[:, None], 1, 0).reshape(means.shape[1], -1)  # [S, C]
    patterns, which = np.unique(~np.isnan(columns), axis=1, return_inverse=True)
    found = np.zeros((samples, columns.shape[1]))
    for index, there in enumerate(patterns.T):
        if (count := int(there.sum())) > 1:
            weights = _student_weights(normal[:, there], uniform)
            chosen = np.flatnonzero(which.ravel() == index)
            found[:, chosen] = weights @ columns[np.ix_(there, chosen)] / np.sqrt(count * (count - 1))
    return found.reshape(samples, means.shape[0], means.shape[2])


def _student_weights(normal: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    dof = normal.shape[1] - 1
    centred = normal - normal.mean(axis=1, keepdims=True)
    radius = np.sqrt(dof * stats.f.ppf(uniform, dof, dof))
    return centred * (radius / np.linalg.norm(centred, axis=1))[:, None]


def _stratified(samples: int, rng: np.random.Generator) -> np.ndarray:
    """One number from the middle of each of `samples` equal parts of (0, 1), in random order."""
    return (rng.permutation(samples) + 0.5) / samples


def image_deviations(values: Values, *, samples: int, seed: int, stream: int = 0) -> Replicates:
    """Bootstrap deviations of the mean over images, averaged over the networks; one draw serves all networks.

    Drawing for each network anew would average out what an image does to all (Owen 2007, doi:10.1214/07-AOAS122).
    """
    rng = np.random.default_rng([seed, 1, stream])
    n_epsilons, n_seeds, _, n_columns = values.shape
    scored = values[:, :, ~np.isnan(values).all(axis=(0, 1, 3))]  # images without any score are no units
    n_images = scored.shape[2]
    if n_images == 0:
        return np.full((samples, n_epsilons, n_columns), np.nan)
    centred = scored - network_means(scored)[:, :, None]
    by_seed = np.moveaxis(centred, 0, 2).reshape(n_seeds, n_images, n_epsilons * n_columns)
    size = max(1, BLOCK // n_images)
    sizes = [min(size, samples - start) for start in range(0, samples, size)]
    found = [_weighted(by_seed, resampling_weights(n_images, count, rng)) for count in sizes]
    return np.concatenate(found).reshape(samples, n_epsilons, n_columns)


def resampling_weights(count: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `count` units is drawn in each resample, float64 [samples, count].

    count - 1 draws with replacement: then the bootstrap's variance of a mean is the unbiased s^2/count, where `count`
    draws would give (count - 1)/count of it. One unit is always drawn once.
    """
    draws = max(1, count - 1)
    picked = rng.integers(0, count, size=(samples, draws)) + count * np.arange(samples)[:, None]
    return np.bincount(picked.ravel(), minlength=samples * count).reshape(samples, count).astype(np.float64)


def _weighted(by_seed: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[S, N, C] with weights [b, N] -> mean over seeds [b, C]; what is undefined has no weight."""
    total, present = np.zeros((2, len(weights), by_seed.shape[2]))
    for scores in by_seed:
        defined = ~np.isnan(scores)
        mean = ratio(weights @ np.where(defined, scores, 0.0), weights @ defined.astype(np.float64))
        total += np.nan_to_num(mean)
        present += ~np.isnan(mean)
    return ratio(total, present)


def interval(replicates: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over the first axis; NaN where no replicate is defined."""
    low, high = np.full((2, *replicates.shape[1:]), np.nan)
    known = ~np.isnan(replicates).all(axis=0)
    if known.any():
        tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        low[known], high[known] = np.nanquantile(replicates[:, known], tails, axis=0)
    return low, high


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient; NaN where the denominator is not above 0."""
    blank = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    return np.divide(numerator, denominator, out=blank, where=denominator > 0)
