"""Is a difference so small that it does not matter? A large p against "no difference" does not say so; this does.

Two one-sided tests (Schuirmann 1987, doi:10.1007/BF01068419): equivalent at alpha where the difference is above the lower
margin and below the upper one, each at alpha; the same as a 1 - 2 alpha interval inside the margins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from epsilens.errors import ConfigError
from epsilens.reporting.effects import p_value
from epsilens.reporting.findings import Finding, Sample, finding, why_undefined


@dataclass(frozen=True)
class Equivalence(Finding):
    """`low` and `high` are at 1 - 2 alpha, and `confidence` says so; p is the larger of the two one-sided ones.

    `p_above`: that the difference is above the lower margin; `p_below`: that it is below the upper one. A claim with one
    side ("not more relevant") needs one of them only.
    """

    p_above: float = math.nan
    p_below: float = math.nan


def equivalence(sample: Sample, index: int, *, margin: tuple[float, float], alpha: float) -> Equivalence:
    """Of the means at epsilon number `index` and at the smallest. Raises ConfigError for margins that do not enclose 0."""
    if not margin[0] < 0 < margin[1]:
        raise ConfigError(f"margin of equivalence: found {margin[0]:g} to {margin[1]:g}, it must enclose 0")
    wide = replace(sample, confidence=1 - 2 * alpha)
    reason = why_undefined(sample, [index])
    estimate = sample.means[index] - sample.means[0]
    test = "two one-sided tests, replicates over seeds and images"
    if reason:
        return Equivalence(**vars(finding(wide, test, estimate, (math.nan, math.nan), reason=reason)))
    replicates = sample.replicates[:, index] - sample.replicates[:, 0]
    above, below = p_value(replicates - margin[0], "rises"), p_value(replicates - margin[1], "falls")
    known = {"p": max(above, below), "smallest_p": 1 / (len(replicates) + 1)}
    base = finding(wide, test, estimate, wide.interval(replicates), **known)
    return Equivalence(**vars(base), p_above=above, p_below=below)
