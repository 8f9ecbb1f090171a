"""Means over networks and images, with intervals: image sets, and a bootstrap over seeds and images.

Axes: E training epsilons, S seeds, N images, K columns (one an attribution and metric), B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from epsilens.errors import DataError

Values = Annotated[np.ndarray, "float64 [E, S, N, K]; NaN where a score is missing or undefined"]
Members = Annotated[np.ndarray, "bool [E, S, N]: which networks and images count"]

BLOCK = 2**22  # resampling weights held at once: 32 MiB


@dataclass(frozen=True)
class Cube:
    """Rows of a study as one array, with the names along its axes."""

    values: Values
    epsilons: list[float]  # [E], ascending
    seeds: list[int]  # [S], ascending
    columns: list[tuple[Any, ...]]  # [K], in the order of the rows
    n_seeds: list[int]  # [E], how many seeds have rows at each epsilon


@dataclass(frozen=True)
class Estimates:
    """Means with intervals, each array [E, K]; `difference` is from the smallest epsilon.

    `n` counts the images with a defined score, `nan` the undefined scores of all seeds.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    difference: np.ndarray
    difference_low: np.ndarray
    difference_high: np.ndarray
    seed_min: np.ndarray
    seed_max: np.ndarray
    n: np.ndarray
    nan: np.ndarray


def cube(rows: pd.DataFrame, columns: Sequence[str], value: str) -> Cube:
    """The column `value` of `rows` as [E, S, N, K]; K runs over the combinations of `columns` that occur.

    Raises DataError if two rows stand for the same network, image and column, or if there is no row.
    """
    if rows.empty:
        raise DataError(f"{value}: no rows to report; run the stages before `report`")
    axes = [pd.factorize(rows[key], sort=True) for key in ("epsilon", "seed", "image")]
    codes, names = [axis[0] for axis in axes], [axis[1] for axis in axes]
    column = rows.groupby(list(columns), sort=False).ngroup().to_numpy()
    shape = (*map(len, names), int(column.max()) + 1)
    index = np.ravel_multi_index((*codes, column), shape)
    if len(np.unique(index)) != len(index):
        raise DataError(f"{value}: two rows for one network, image and {', '.join(columns)}; the table is damaged")
    values = np.full(shape, np.nan)
    values.flat[index] = rows[value].to_numpy(dtype=np.float64)
    combinations = rows[list(columns)].drop_duplicates().itertuples(index=False, name=None)
    present = [len(np.unique(codes[1][codes[0] == e])) for e in range(shape[0])]
    return Cube(values, [float(e) for e in names[0]], [int(s) for s in names[1]], list(combinations), present)


def image_sets(correct: np.ndarray) -> dict[str, Members]:
    """The three sets of images from `correct` [E, S, N] (1, 0, NaN where a network did not see an image).

    all: every image; common: those which every network gets right; own: those which the network itself gets right.
    A network that saw no image at all is not there: it shrinks no set and is in none.
    """
    right = correct == 1
    there = ~np.isnan(correct).all(axis=2, keepdims=True)  # [E, S, 1]
    common = (right | ~there).all(axis=(0, 1)) & there
    return {"common": common, "all": ~np.isnan(correct), "own": right}


def wilson(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share (1927, doi:10.1080/01621459.1927.10502953): (low, high), in [0, 1].

    Of one network over images. It is honest at 0 and at 1 too, where a bootstrap would have no width.
    """
    found = binomtest(successes, trials).proportion_ci(confidence_level=confidence, method="wilson")
    return float(found.low), float(found.high)


def resampling_weights(count: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `count` units is drawn in each resample, float64 [samples, count].

    count - 1 draws with replacement: then the bootstrap's variance of a mean is the unbiased s^2/count, also for two
    or three seeds, where `count` draws would give (count - 1)/count of it. One unit is always drawn once.
    """
    draws = max(1, count - 1)
    picked = rng.integers(0, count, size=(samples, draws)) + count * np.arange(samples)[:, None]
    return np.bincount(picked.ravel(), minlength=samples * count).reshape(samples, count).astype(np.float64)


def network_means(values: Values) -> np.ndarray:
    """Mean over images for each network, [E, S, K]; NaN where a network has no defined score."""
    return _ratio(np.nansum(values, axis=2), (~np.isnan(values)).sum(axis=2))


def resampled_means(values: Values, *, samples: int, seed: int) -> np.ndarray:
    """Bootstrap replicates of the mean over seeds of the means over images, [B, E, K].

    Seeds are drawn, then images; one draw of images serves all networks, because all are scored on the same images:
    they are crossed factors, not nested ones (Owen 2007, doi:10.1214/07-AOAS122; mildly conservative, Owen and Eckles
    2012, arXiv:1106.2125). Hence differences between epsilons are paired by image and by seed.
    """
    rng = np.random.default_rng(seed)
    n_epsilons, n_seeds, _, n_columns = values.shape
    seed_weights = resampling_weights(n_seeds, samples, rng)
    scored = values[:, :, ~np.isnan(values).all(axis=(0, 1, 3))]  # images without any score are no units
    n_images = scored.shape[2]
    if n_images == 0:
        return np.full((samples, n_epsilons, n_columns), np.nan)
    by_seed = np.moveaxis(scored, 0, 2).reshape(n_seeds, n_images, n_epsilons * n_columns)
    size = max(1, BLOCK // n_images)
    blocks = [seed_weights[start : start + size] for start in range(0, samples, size)]
    means = [_weighted(by_seed, block, resampling_weights(n_images, len(block), rng)) for block in blocks]
    return np.concatenate(means).reshape(samples, n_epsilons, n_columns)


def _weighted(by_seed: np.ndarray, seed_weights: np.ndarray, image_weights: np.ndarray) -> np.ndarray:
    """[S, N, C] with weights [b, S] and [b, N] -> [b, C]; what is undefined has no weight."""
    total = np.zeros((len(seed_weights), by_seed.shape[2]))
    weight = np.zeros_like(total)
    for scores, drawn in zip(by_seed, seed_weights.T, strict=True):
        defined = ~np.isnan(scores)
        mean = _ratio(image_weights @ np.where(defined, scores, 0.0), image_weights @ defined.astype(np.float64))
        present = ~np.isnan(mean) * drawn[:, None]
        total += np.nan_to_num(mean) * present
        weight += present
    return _ratio(total, weight)


def interval(replicates: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over the first axis; NaN where no replicate is defined."""
    low, high = np.full((2, *replicates.shape[1:]), np.nan)
    known = ~np.isnan(replicates).all(axis=0)
    if known.any():
        tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        low[known], high[known] = np.nanquantile(replicates[:, known], tails, axis=0)
    return low, high


def estimate(values: Values, members: Members, *, samples: int, seed: int, confidence: float) -> Estimates:
    """Mean, interval, difference from the smallest epsilon and spread over seeds, on the images in `members`."""
    chosen = np.where(members[..., None], values, np.nan)
    means = network_means(chosen)
    mean = _ratio(np.nansum(means, axis=1), (~np.isnan(means)).sum(axis=1))
    replicates = resampled_means(chosen, samples=samples, seed=seed)
    undefined = (members[..., None] & np.isnan(values)).sum(axis=(1, 2))
    return Estimates(
        mean,
        *interval(replicates, confidence),
        mean - mean[:1],
        *interval(replicates - replicates[:, :1], confidence),
        *_spread(means),
        n=(~np.isnan(chosen)).any(axis=1).sum(axis=1),
        nan=undefined,
    )


def _spread(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # fmin and fmax leave NaN out without a warning
    return np.fmin.reduce(means, axis=1), np.fmax.reduce(means, axis=1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    blank = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    return np.divide(numerator, denominator, out=blank, where=denominator > 0)
