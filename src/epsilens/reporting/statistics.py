"""Means over networks and images, with intervals: the cube of a study's rows, its image sets, its estimates.

Axes: E training epsilons, S seeds, N images, K columns (one an attribution and metric), B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import norm

from epsilens.errors import DataError
from epsilens.reporting.resampling import Values, grand_means, interval, network_means, resampled_means

Members = Annotated[np.ndarray, "bool [E, S, N]: which networks and images count"]


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


def wilson(successes: ArrayLike, trials: ArrayLike, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of a share (1927, doi:10.1080/01621459.1927.10502953): (low, high), in [0, 1].

    Of one network over images. It is honest at 0 and at 1 too, where a bootstrap would have no width. Of arrays one by one;
    successes need not be whole; NaN where there is no trial.
    """
    count = np.asarray(trials, dtype=np.float64)
    size = np.where(count > 0, count, np.nan)
    share, squared = np.asarray(successes) / size, norm.ppf((1 + confidence) / 2) ** 2
    half = np.sqrt(squared * (share * (1 - share) / size + squared / (4 * size**2)))
    low, high = ((share + squared / (2 * size) + side * half) / (1 + squared / size) for side in (-1, 1))
    return np.clip(low, 0, 1), np.clip(high, 0, 1)


def estimate(values: Values, members: Members, *, samples: int, seed: int, confidence: float) -> Estimates:
    """Mean, interval, difference from the smallest epsilon and spread over seeds, on the images in `members`.

    Intervals are the percentiles of `resampled_means`; that of a difference is undefined where no seed is in both, and all
    are of one image of one network.
    """
    chosen = np.where(members[..., None], values, np.nan)
    means = network_means(chosen)
    mean = grand_means(means)
    n = (~np.isnan(chosen)).any(axis=1).sum(axis=1)
    single = (n == 1) & ((~np.isnan(means)).sum(axis=1) == 1)
    replicates = np.where(single, np.nan, resampled_means(chosen, samples=samples, seed=seed))
    differences = np.where(shared_seeds(means), replicates - replicates[:, :1], np.nan)
    undefined = (members[..., None] & np.isnan(values)).sum(axis=(1, 2))
    return Estimates(
        mean,
        *interval(replicates, confidence),
        mean - mean[:1],
        *interval(differences, confidence),
        *_spread(means),
        n=n,
        nan=undefined,
    )


def shared_seeds(means: np.ndarray) -> np.ndarray:
    """Whether an epsilon shares a seed with the smallest one, [E, S, K] -> bool [E, K]."""
    there = ~np.isnan(means)
    return np.asarray((there & there[:1]).any(axis=1))


def _spread(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # fmin and fmax leave NaN out without a warning
    return np.fmin.reduce(means, axis=1), np.fmax.reduce(means, axis=1)


def with_width(estimates: Estimates, units: np.ndarray, trained: np.ndarray, *, confidence: float) -> Estimates:
    """The same shares with intervals that are wide enough where a bootstrap's is not, and that end at 0 and 1.

    Of one network, whose share may hang on a few images, and where all images are alike, they reach at least as far as
    Wilson's of `units` [E, K] (images count once, whatever the number of seeds). Differences of two shares of 0 or 1 have
    Newcombe's interval (1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I), which takes them for
    independent.
    trained: [E, K], how many networks have the figure.
    """
    mean, change = estimates.mean, estimates.difference
    alike = np.isin(mean, (0, 1))
    below, above = wilson(mean * units, units, confidence)
    low = np.where(alike | (trained == 1), np.fmin(estimates.low, below), estimates.low)
    high = np.where(alike | (trained == 1), np.fmax(estimates.high, above), estimates.high)
    flat = alike & alike[:1]
    flat[0] = False  # the difference from itself is 0, and known
    ends = {
        "difference_low": change - np.hypot(mean - low, high[:1] - mean[:1]),
        "difference_high": change + np.hypot(high - mean, mean[:1] - low[:1]),
    }
    wide = {name: np.where(flat, end, getattr(estimates, name)) for name, end in ends.items()}
    return bounded(replace(estimates, low=low, high=high, **wide))


def bounded(shares: Estimates) -> Estimates:
    """Shares are in [0, 1], their differences in [-1, 1]: with two or three seeds an interval would reach beyond."""
    ends = {name: np.clip(getattr(shares, name), 0, 1) for name in ("low", "high")}
    differences = {name: np.clip(getattr(shares, name), -1, 1) for name in ("difference_low", "difference_high")}
    return replace(shares, **ends, **differences)
