"""How large a difference from the smallest epsilon is, in four units; each with the interval of its scope.

Give samples that are `oriented`, and above 0 (above one half for `improved`) is better.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaln

from epsilens.reporting.findings import UNDEFINED, Alternative, Finding, Sample, finding, why_undefined
from epsilens.reporting.resampling import grand_means, image_deviations, network_means

FEW_IMAGES = "fewer than three images have a score at both epsilons"
NO_SPREAD = "the difference is the same for all images"
NO_TOTAL = "the whole change cannot be told from 0, so a share of it means nothing"


def difference(sample: Sample, index: int, *, alternative: Alternative = "two-sided") -> Finding:
    """Mean at epsilon number `index` less that at the smallest, in the unit of the metric.

    p is the share of replicates on the other side of 0 (twice the smaller one if two-sided): with one image it is the
    paired t test over seeds, with one seed nearly the paired t test over images.
    """
    reason = why_undefined(sample, [index])
    replicates = sample.replicates[:, index] - sample.replicates[:, 0]
    bounds = (math.nan, math.nan) if reason else sample.interval(replicates)
    least = (2 if alternative == "two-sided" else 1) / (len(replicates) + 1)
    p = math.nan if reason else p_value(replicates, alternative)
    estimate = sample.means[index] - sample.means[0]
    return finding(sample, "difference of means", estimate, bounds, p=p, smallest_p=least, reason=reason)


def p_value(replicates: np.ndarray, alternative: Alternative = "two-sided") -> float:
    """How much of the replicates [B] is not on the claimed side of 0, at least 1/(B + 1); undefined ones are against it."""
    count = len(replicates)
    against = {"rises": 1 + count - (replicates > 0).sum(), "falls": 1 + count - (replicates < 0).sum()}
    if alternative == "two-sided":
        return float(min(1.0, 2 * min(against.values()) / (count + 1)))
    return float(against[alternative] / (count + 1))


def standardised(sample: Sample, index: int) -> Finding:
    """The paired standardised difference d_z with Hedges' correction, of one network and its pair at the smallest epsilon.

    mean of d / sqrt(mean over seeds of the variance of d over images), d the difference of an image's scores at the two
    epsilons of a seed; times J(n - 1) = Gamma(v/2) / (sqrt(v/2) Gamma((v - 1)/2)), v = n - 1 (Hedges 1981,
    doi:10.3102/10769986006002107), n the images of a network.
    """
    test = "paired standardised difference"
    paired = sample.values[index] - sample.values[0]  # [S, N]
    n_images = int((~np.isnan(paired)).any(axis=0).sum())
    if n_images < 3:
        return finding(sample, test, math.nan, (math.nan, math.nan), reason=FEW_IMAGES)
    squares = (paired - network_means(paired[None, ..., None])[0]) ** 2 * n_images / (n_images - 1)
    variance = float(grand_means(network_means(squares[None, ..., None])).item())
    if not variance > 0:
        return finding(sample, test, math.nan, (math.nan, math.nan), reason=NO_SPREAD)
    means = sample.of(paired[None])
    options = {"samples": len(sample.replicates), "seed": sample.seed, "stream": sample.stream}
    # Of the same draws as the means.
    variances = variance + image_deviations(squares[None, ..., None], **options)[:, 0, 0]
    scales = hedges(n_images - 1) / np.sqrt(np.maximum(variances, variance / n_images))  # never 0: all of one image
    bounds = sample.interval(scales * means.replicates[:, 0])
    return finding(means, test, hedges(n_images - 1) * means.means[0] / math.sqrt(variance), bounds)


def hedges(dof: int) -> float:
    """The factor that makes a standardised difference unbiased, in (0, 1); dof > 1."""
    return math.exp(gammaln(dof / 2) - gammaln((dof - 1) / 2)) / math.sqrt(dof / 2)


def improved(sample: Sample, index: int) -> Finding:
    """The share of pairs (image, seed) whose score is higher than at the smallest epsilon, ties half, in [0, 1].

    The common-language effect of paired data; 2 share - 1 is the paired form of Cliff's delta. One half: no effect.
    """
    paired = sample.values[index] - sample.values[0]
    share = sample.of(((np.sign(paired) + 1) / 2)[None])
    bounds = np.clip(share.interval(share.replicates[:, 0]), 0.0, 1.0)
    reason = UNDEFINED if np.isnan(share.means[0]) else ""
    return finding(share, "share of images that improve", share.means[0], (bounds[0], bounds[1]), reason=reason)


def share_of_gain(sample: Sample) -> Finding:
    """(mean at the second epsilon - mean at the smallest) / (mean at the largest - mean at the smallest).

    1: all of the gain is there at the smallest epsilon above the first; beyond 1: later ones lose some of it.

    NaN, with the reason, where the interval of the whole gain holds 0: then the ratio may be anything (Fieller 1954), and
    so is its interval. Else replicates whose whole gain has the other sign count as infinitely far, on both sides.
    """
    test = "share of the gain at the smallest epsilon, of the last"
    undefined = UNDEFINED if len(sample.means) < 2 else why_undefined(sample, range(len(sample.means)))
    if undefined:
        return finding(sample, test, math.nan, (math.nan, math.nan), reason=undefined)
    gains, replicates = sample.means[1:] - sample.means[0], sample.replicates[:, 1:] - sample.replicates[:, :1]
    whole, wholes = float(gains[-1]), replicates[:, -1]
    low, high = sample.interval(wholes)
    if low <= 0 <= high:
        return finding(sample, test, math.nan, (math.nan, math.nan), reason=NO_TOTAL)
    same = np.sign(wholes) == np.sign(whole)
    ratios = np.divide(replicates[:, 0], wholes, out=np.full(len(wholes), np.nan), where=same)
    tails = (1 - sample.confidence) / 2, (1 + sample.confidence) / 2
    # Between infinite and finite is nothing to interpolate.
    low = np.quantile(np.where(same, ratios, -np.inf), tails[0], method="lower")
    high = np.quantile(np.where(same, ratios, np.inf), tails[1], method="higher")
    return finding(sample, test, gains[0] / whole, (float(low), float(high)))
