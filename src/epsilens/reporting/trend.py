"""Does a score rise or fall with the training epsilon?

Page's test (1963, doi:10.1080/01621459.1963.10500843): ranks over epsilon within each block, then L = sum over blocks
and epsilons of position times rank. Under the null every order of a block is equally likely. Two tests for two claims:
blocks of networks (a seed with its E networks) speak of training; blocks of images speak of these networks only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy.stats import norm, rankdata

from epsilens.reporting.findings import UNDEFINED, Alternative, Finding, Sample, finding

EXACT_LENGTH = 8  # epsilons: 8! = 40,320 orders of a block are counted out
EXACT_BLOCKS = 20  # above, the normal distribution is close
DRAWS = 99_999  # of the permutation test where a block is longer than that
CLOSE = 1e-9  # below any step of L, above its rounding


@dataclass(frozen=True)
class Trend(Finding):
    """`estimate` is the slope: the least-squares rise of the mean per step of the sweep.

    `rho` in [-1, 1] is Page's statistic as a mean rank correlation: 1 where every block rises all the way.
    """

    rho: float = math.nan


@dataclass(frozen=True)
class Page:
    """Page's statistic of a table of blocks: `rho` in [-1, 1], p, the smallest p that any table of that form can have."""

    rho: float
    p: float
    smallest_p: float
    blocks: int


def trend(sample: Sample, *, alternative: Alternative = "two-sided") -> Trend:
    """Of training: blocks are seeds, a block's entries the means of its networks over images; exact null.

    Assumes that under the null the networks of a seed are exchangeable. Images are no replicates of training, and do
    not make p smaller. With S seeds of E epsilons the smallest two-sided p is 2/E!^S: .083 for 1 and 4, .0035 for 2 and 4.
    """
    found = page(sample.networks.T, alternative, seed=sample.seed)
    return _trend(sample, found, "Page's test, blocks of seeds", "seeds")


def trend_of_these_networks(sample: Sample, *, alternative: Alternative = "two-sided") -> Trend:
    """Of these networks: blocks are images, an entry the mean over seeds; nothing follows for other trainings.

    Whatever difference there is between these networks, whyever, is found with enough images.
    """
    conditional = sample.of(sample.values, scope="these networks")
    by_image = _mean(sample.values)  # [E, N]
    found = page(by_image.T, alternative, seed=sample.seed)
    return _trend(conditional, found, "Page's test, blocks of images, of these networks", "images")


def _mean(values: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(values)
    count = defined.sum(axis=1)
    return np.where(count > 0, np.nansum(values, axis=1) / np.maximum(count, 1), np.nan)


def _trend(sample: Sample, found: Page, test: str, unit: str) -> Trend:
    weights = slope_weights(len(sample.means))
    slopes = sample.replicates @ weights
    reason = UNDEFINED if np.isnan(sample.means).any() or found.blocks == 0 else ""
    known = {"p": found.p, "smallest_p": found.smallest_p, "n": found.blocks, "unit": unit, "reason": reason}
    base = finding(sample, test, float(sample.means @ weights), sample.interval(slopes), **known)
    return Trend(**vars(base), rho=found.rho)


def slope_weights(count: int) -> np.ndarray:
    """The weights [E] of the least-squares slope over equally spaced steps; 0 for one epsilon."""
    steps = np.arange(count) - (count - 1) / 2
    return steps / max(steps @ steps, 1e-300)


def page(table: np.ndarray, alternative: Alternative, *, seed: int) -> Page:
    """Page's test of a table [blocks, E]; NaN entries are left out of their block, blocks of fewer than 2 altogether.

    Ties get mean ranks, and the null is that of the ranks as they are. Exact up to 8 epsilons and 20 blocks; beyond 20
    blocks the normal approximation, beyond 8 epsilons 99,999 permutations from `seed`.
    """
    blocks = [(np.flatnonzero(~np.isnan(row)) + 1, rankdata(row[~np.isnan(row)])) for row in table]
    blocks = [(positions, ranks) for positions, ranks in blocks if len(ranks) > 1]
    if not blocks:
        return Page(math.nan, math.nan, math.nan, 0)
    centre = sum(positions.sum() * ranks.mean() for positions, ranks in blocks)
    largest = sum((p - p.mean()) @ np.arange(len(p)) for p, _ in blocks)
    excess = float(sum(p @ r for p, r in blocks) - centre)
    orders = math.prod(math.factorial(len(ranks)) for _, ranks in blocks)
    smallest = (2 if alternative == "two-sided" else 1) / orders
    if len(blocks) > EXACT_BLOCKS:
        p = _normal(blocks, excess, alternative)
    elif max(len(ranks) for _, ranks in blocks) <= EXACT_LENGTH:
        p = _exact(blocks, excess, alternative)
    else:
        p = _drawn(blocks, excess, alternative, np.random.default_rng([seed, 2]))
        smallest = max(smallest, 1 / (DRAWS + 1))
    return Page(float(excess / largest), min(max(p, smallest), 1.0), smallest, len(blocks))


Blocks = Sequence[tuple[np.ndarray, np.ndarray]]  # positions and ranks of each


def _exact(blocks: Blocks, excess: float, alternative: Alternative) -> float:
    """The null of L is the convolution of those of its blocks; 2L is an integer, with ties too."""
    total = np.ones(1)
    offset = 0
    known: dict[tuple[float, ...], tuple[int, np.ndarray]] = {}
    for positions, ranks in blocks:
        key = (*positions, *sorted(ranks))
        known[key] = known.get(key) or _orders(positions, ranks)
        offset += known[key][0]
        total = np.convolve(total, known[key][1])
    centre = sum(p.sum() * r.mean() for p, r in blocks)
    return float(total[_beyond((offset + np.arange(len(total))) / 2 - centre, excess, alternative)].sum())


def _orders(positions: np.ndarray, ranks: np.ndarray) -> tuple[int, np.ndarray]:
    """The smallest 2L of a block, and the probability of each from there on."""
    twice = np.rint(2 * (np.array(list(permutations(ranks))) @ positions)).astype(int)
    counts = np.bincount(twice - twice.min())
    return int(twice.min()), counts / counts.sum()


def _normal(blocks: Blocks, excess: float, alternative: Alternative) -> float:
    """With the variance of L over the orders of the ranks as they are, ties included."""
    variance = sum(p.var() * r.var() * len(r) ** 2 / (len(r) - 1) for p, r in blocks)
    if variance == 0:
        return 1.0
    z = excess / math.sqrt(variance)
    sign = {"rises": z, "falls": -z, "two-sided": abs(z)}[alternative]
    return float(norm.sf(sign)) * (2 if alternative == "two-sided" else 1)


def _drawn(blocks: Blocks, excess: float, alternative: Alternative, rng: np.random.Generator) -> float:
    found = np.zeros(DRAWS)
    for positions, ranks in blocks:
        found += rng.permuted(np.tile(ranks, (DRAWS, 1)), axis=1) @ positions - positions.sum() * ranks.mean()
    return float((_beyond(found, excess, alternative).sum() + 1) / (DRAWS + 1))


def _beyond(found: np.ndarray, excess: float, alternative: Alternative) -> np.ndarray:
    """Which values of L, less its mean, are at least as extreme as `excess`."""
    if alternative == "two-sided":
        return np.abs(found) >= abs(excess) - CLOSE
    return found >= excess - CLOSE if alternative == "rises" else found <= excess + CLOSE
