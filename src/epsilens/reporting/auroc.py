"""The area under the ROC curve of a score for a yes or no, over networks and images, with intervals."""

from __future__ import annotations

import numpy as np

from epsilens.reporting.resampling import grand_means, interval, resampling_weights, seed_deviations
from epsilens.reporting.statistics import Estimates


def auroc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The chance that a positive has a higher score than a negative, ties half (Mann and Whitney 1947,
    doi:10.1214/aoms/1177730491), in [0, 1], once for each row of weights.

    scores: [N], without NaN; positive: bool [N]; weights: how often each counts, [B, N]. NaN where one side is empty.
    """
    if not len(scores):
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)  # of runs of equal scores
    yes, no = (np.add.reduceat((weights * side)[:, order], starts, axis=1) for side in (positive, ~positive))
    won = (yes * (np.cumsum(no, axis=1) - no / 2)).sum(axis=1)
    pairs = yes.sum(axis=1) * no.sum(axis=1)
    return np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def auroc_estimates(
    values: np.ndarray, positive: np.ndarray, undefined: np.ndarray, *, samples: int, seed: int, confidence: float
) -> Estimates:
    """The AUROC of each network, averaged over seeds, each array [E, 1]; seeds and images are resampled as for means.

    values: [E, S, N], NaN where a score is undefined; positive: bool [E, S, N]. undefined: [E, 1], how many scores are
    missing. `n` counts the images with a score.
    """
    drawn = resampling_weights(values.shape[2], samples, np.random.default_rng([seed, 1, 0]))
    weights = np.concatenate([np.ones((1, values.shape[2])), drawn])  # first the data as they are
    known = ~np.isnan(values)
    each = np.array(
        [
            [auroc(values[e, s, use], positive[e, s, use], weights[:, use]) for s, use in enumerate(uses)]
            for e, uses in enumerate(known)
        ]
    )  # [E, S, 1 + B]
    means = grand_means(each)  # [E, 1 + B]
    seeds = seed_deviations(each[..., :1], samples=samples, seed=seed)
    mean = np.concatenate([means[None, :, :1], means.T[1:, :, None] + seeds])  # [1 + B, E, 1]
    return Estimates(
        mean[0],
        *interval(mean[1:], confidence),
        mean[0] - mean[0, :1],
        *interval(mean[1:] - mean[1:, :1], confidence),
        np.fmin.reduce(each[..., 0], axis=1)[:, None],
        np.fmax.reduce(each[..., 0], axis=1)[:, None],
        n=known.any(axis=1).sum(axis=1)[:, None],
        nan=undefined,
    )
