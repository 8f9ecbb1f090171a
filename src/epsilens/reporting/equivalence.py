"""Is a difference so small that it does not matter? A large p against "no difference" does not say so; this does.

Two one-sided tests (Schuirmann 1987, doi:10.1007/BF01068419): equivalent at alpha where the difference is above the lower
margin and below the upper one, each at alpha; the same as a 1 - 2 alpha interval inside the margins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.stats import ttest_1samp

from epsilens.errors import ConfigError
from epsilens.reporting.effects import p_value
from epsilens.reporting.findings import Finding, Sample, finding, why_undefined

Verdict = Literal["equivalent", "beyond the margin", "undecided"]


@dataclass(frozen=True)
class Equivalence(Finding):
    """`low` and `high` are at 1 - 2 alpha, and `confidence` says so; p is the larger of the two one-sided ones.

    `p_above`: that the difference is above the lower margin; `p_below`: that it is below the upper one. A claim with one
    side ("not more relevant") needs one of them only.
    """

    margin: tuple[float, float] = (math.nan, math.nan)
    p_above: float = math.nan
    p_below: float = math.nan
    verdict: Verdict = "undecided"


def equivalence(sample: Sample, index: int, *, margin: tuple[float, float], alpha: float) -> Equivalence:
    """Of the mean at epsilon number `index` and that at the smallest.

    `beyond the margin`: the whole interval is outside. Raises ConfigError for margins that do not enclose 0.
    """
    _check(margin)
    wide = replace(sample, confidence=1 - 2 * alpha)
    reason = why_undefined(sample, [index])
    estimate = sample.means[index] - sample.means[0]
    test = "two one-sided tests, replicates over seeds and images"
    if reason:
        base = finding(wide, test, estimate, (math.nan, math.nan), reason=reason)
        return Equivalence(**vars(base), margin=margin)
    replicates = sample.replicates[:, index] - sample.replicates[:, 0]
    above, below = p_value(replicates - margin[0], "rises"), p_value(replicates - margin[1], "falls")
    bounds = wide.interval(replicates)
    known = {"p": max(above, below), "smallest_p": 1 / (len(replicates) + 1)}
    base = finding(wide, test, estimate, bounds, **known)
    verdict = _verdict(bounds, margin, max(above, below) <= alpha)
    return Equivalence(**vars(base), margin=margin, p_above=above, p_below=below, verdict=verdict)


def _verdict(bounds: tuple[float, float], margin: tuple[float, float], inside: bool) -> Verdict:
    if inside:
        return "equivalent"
    return "beyond the margin" if bounds[0] >= margin[1] or bounds[1] <= margin[0] else "undecided"


def paired_tost(differences: Sequence[float] | np.ndarray, *, margin: tuple[float, float]) -> tuple[float, float]:
    """The two one-sided paired t tests of independent differences [n], n > 1: (p_above, p_below).

    For differences of networks by seed. Raises ConfigError for margins that do not enclose 0.
    """
    _check(margin)
    above: Any = ttest_1samp(differences, margin[0], alternative="greater")  # the stubs hide the fields of the result
    below: Any = ttest_1samp(differences, margin[1], alternative="less")
    return float(above.pvalue), float(below.pvalue)


def _check(margin: tuple[float, float]) -> None:
    if not margin[0] < 0 < margin[1]:
        raise ConfigError(f"margin of equivalence: found {margin[0]:g} to {margin[1]:g}, it must enclose 0")
