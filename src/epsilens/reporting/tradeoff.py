"""What a gain in quality costs in accuracy: the Pareto front over epsilon, its knee, and which epsilon to take.

Both samples higher is better (`Sample.oriented`), of the same networks and with the same seed: then a replicate is one
draw of seeds for both. E training epsilons, B replicates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epsilens.reporting.findings import UNDEFINED, Sample, Scope, same_grid

NO_KNEE = -1
CLOSE = 1e-9  # what rounding may leave above the chord, of a side of the unit square


@dataclass(frozen=True)
class TradeOff:
    """`front`, `knee_share` [E]: by epsilon. `knee` is the index of an epsilon, or None where the front has none.

    `knee_share` is the share of replicates in which each epsilon is the knee; what lacks to 1 have none.
    `knee_low`, `knee_high` are indices: the percentile interval among the replicates that have a knee.
    """

    front: np.ndarray
    front_share: np.ndarray  # of replicates in which the epsilon is on the front
    knee: int | None
    knee_share: np.ndarray
    knee_low: int | None
    knee_high: int | None
    n_seeds: int
    scope: Scope
    reason: str = ""


@dataclass(frozen=True)
class Recommendation:
    """The smallest epsilon that gains at least `gain` for at most `loss`; `index` is None where none does.

    By epsilon: `qualifies_share` and `recommended_share`, of replicates. The latter and `none_share` add up to 1.
    """

    index: int | None
    gain: float
    loss: float
    qualifies_share: np.ndarray
    recommended_share: np.ndarray
    none_share: float
    n_seeds: int
    scope: Scope
    reason: str = ""


def trade_off(accuracy: Sample, quality: Sample) -> TradeOff:
    """Front and knee, from the means and from every replicate. Raises DataError for samples that do not belong together."""
    same_grid(accuracy, quality)
    n_epsilons = len(accuracy.means)
    drawn = knee(accuracy.replicates, quality.replicates)
    share = np.array([(drawn == index).mean() for index in range(n_epsilons)])
    with_knee = np.sort(drawn[drawn != NO_KNEE])
    ends = _ends(with_knee, min(accuracy.confidence, quality.confidence))
    found = int(knee(accuracy.means[None], quality.means[None])[0])
    return TradeOff(
        front=pareto(accuracy.means[None], quality.means[None])[0],
        front_share=pareto(accuracy.replicates, quality.replicates).mean(axis=0),
        knee=None if found == NO_KNEE else found,
        knee_share=share,
        knee_low=ends[0],
        knee_high=ends[1],
        **_common(accuracy, quality),
    )


def _ends(ordered: np.ndarray, confidence: float) -> tuple[int | None, int | None]:
    if not len(ordered):
        return None, None
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low = np.quantile(ordered, tails[0], method="lower")
    return int(low), int(np.quantile(ordered, tails[1], method="higher"))


def _common(accuracy: Sample, quality: Sample) -> dict:
    both = (accuracy, quality)
    scope: Scope = "training" if all(sample.scope == "training" for sample in both) else "these networks"
    undefined = any(np.isnan(sample.means).any() for sample in both)
    n_seeds = min(sample.n_seeds for sample in both)
    return {"n_seeds": n_seeds, "scope": scope, "reason": UNDEFINED if undefined else ""}


def pareto(accuracy: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Which epsilons no other one dominates (at least as good in both, better in one), [B, E] twice -> bool [B, E].

    Equals stand beside each other; an epsilon without one of the two is not on the front.
    """
    known = ~np.isnan(accuracy) & ~np.isnan(quality)
    no_worse = (accuracy[:, None] >= accuracy[:, :, None]) & (quality[:, None] >= quality[:, :, None])
    better = (accuracy[:, None] > accuracy[:, :, None]) | (quality[:, None] > quality[:, :, None])
    return known & ~(no_worse & better).any(axis=2)


def knee(accuracy: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """The knee of each front, [B, E] twice -> index of an epsilon, [B]; NO_KNEE where there is none.

    Both axes are scaled to [0, 1] over the front, whose ends are then (1, 0) and (0, 1); the knee is the epsilon of the
    front that is farthest beyond the chord between them, that is with the largest x + y - 1 (the rule of Satopaa et al.
    2011, doi:10.1109/ICDCSW.2011.20, "kneedle", without smoothing). None where nothing is beyond the chord: a front of one
    or two epsilons, or one that is straight or sags. Of equals the smallest epsilon.
    """
    front = pareto(accuracy, quality)
    height = _unit(accuracy, front) + _unit(quality, front) - 1
    height = np.where(front, height, -np.inf)
    best = height.argmax(axis=1)
    return np.where(height.max(axis=1) > CLOSE, best, NO_KNEE)


def _unit(values: np.ndarray, front: np.ndarray) -> np.ndarray:
    low = np.where(front, values, np.inf).min(axis=1, keepdims=True)
    high = np.where(front, values, -np.inf).max(axis=1, keepdims=True)
    wide = high > low  # not where the front is empty or a single point
    return np.where(front & wide, values - low, 0.0) / np.where(wide, high - low, 1.0)


def recommend(accuracy: Sample, quality: Sample, *, gain: float, loss: float) -> Recommendation:
    """The smallest epsilon above the first with quality up by `gain` or more and accuracy down by `loss` or less.

    Both from the smallest epsilon, in the units of the samples. Raises DataError for samples that do not belong together.
    """
    same_grid(accuracy, quality)
    by_mean = _qualifies(accuracy.means[None], quality.means[None], gain, loss)[0]
    drawn = _qualifies(accuracy.replicates, quality.replicates, gain, loss)
    first = np.where(drawn.any(axis=1), drawn.argmax(axis=1), NO_KNEE)
    return Recommendation(
        index=int(by_mean.argmax()) if by_mean.any() else None,
        gain=gain,
        loss=loss,
        qualifies_share=drawn.mean(axis=0),
        recommended_share=np.array([(first == index).mean() for index in range(len(by_mean))]),
        none_share=float((first == NO_KNEE).mean()),
        **_common(accuracy, quality),
    )


def _qualifies(accuracy: np.ndarray, quality: np.ndarray, gain: float, loss: float) -> np.ndarray:
    enough = (quality - quality[:, :1] >= gain) & (accuracy[:, :1] - accuracy <= loss)
    enough[:, 0] = False
    return enough
