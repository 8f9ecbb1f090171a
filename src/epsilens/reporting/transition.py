"""Where networks stop using the cue of the shapes, and whether a metric moves at the same training epsilon.

The only studies in which the truth is known: how much a network relies on the cue is measured by its accuracy with and
without it, and no explanation is involved. Units are seeds: each has a curve over epsilon of its own.
Axes: E training epsilons, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from epsilens.reporting.marks import heading
from epsilens.reporting.sheet import Sheet
from epsilens.reporting.style import INK, epsilon_axis, method_styles, plain

HALF = (
    0.5  # of the way from the smallest epsilon to the largest; of the reliance, what parts users of the cue from others
)
FACTOR = 2.0  # between two epsilons that count as the same one
PERMUTATIONS = 9_999


def reliance(with_cue: np.ndarray, without: np.ndarray, classes: int) -> np.ndarray:
    """The part of the accuracy above chance that is lost with the cue, in [0, 1]; NaN where accuracy is at chance."""
    above = with_cue - 1 / classes
    lost = np.divide(with_cue - without, above, out=np.full(np.shape(above), np.nan), where=above > 0)
    return np.clip(lost, 0, 1)


def crossing(epsilons: Sequence[float], curve: np.ndarray) -> float:
    """The epsilon at which a curve [E] has first gone half of its way from the first value to the last, by linear
    interpolation. NaN where a value is missing, or the first is the last."""
    way = curve[-1] - curve[0]
    if not np.isfinite(curve).all() or way == 0:
        return float("nan")
    gone = (curve - curve[0]) / way
    after = int(np.argmax(gone >= HALF))
    share = (HALF - gone[after - 1]) / (gone[after] - gone[after - 1])
    return float(epsilons[after - 1] + share * (epsilons[after] - epsilons[after - 1]))


def student(values: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Mean and its interval over the values that are there; NaN where there are fewer than two."""
    known = values[np.isfinite(values)]
    if len(known) < 2:
        return (float(known[0]) if len(known) else float("nan")), float("nan"), float("nan")
    half = stats.t.ppf((1 + confidence) / 2, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known))
    return float(known.mean()), float(known.mean() - half), float(known.mean() + half)


@dataclass(frozen=True)
class Grid:
    """The networks of one cue: how much each relies on it, [E, S], and the means of its metrics, by name [E, S]."""

    cue: float  # amplitude in 1/255
    epsilons: Sequence[float]  # ascending
    reliance: np.ndarray
    measures: dict[Any, np.ndarray]

    def crossings(self, curves: np.ndarray) -> np.ndarray:
        """`crossing` of each seed's curve, [S]."""
        return np.array([crossing(self.epsilons, curve) for curve in curves.T])


def compare(grids: Sequence[Grid], measure: Any, better: str | None, *, alpha: float, seed: int) -> dict[str, Any]:
    """Of several cues together: does a measure move where the networks stop using the cue, and does it tell the networks
    that use it from the others?

    better: higher, lower, or None: the direction in which networks that use no cue are expected to be (None: higher).
    Returns `ratio` with its interval: of the measure's crossing to that of the reliance, a seed's mean over the cues in
    logarithms; `change` from the smallest epsilon to the largest with its interval; `verdict`; `auroc`, the chance that a
    network without the cue has the better value, over all networks of a cue, and `auroc_within` among those of the same
    epsilon only, with the p of a permutation within these and the number of `pairs`.
    """
    shifts = [np.log2(grid.crossings(grid.measures[measure]) / grid.crossings(grid.reliance)) for grid in grids]
    changes = [grid.measures[measure][-1] - grid.measures[measure][0] for grid in grids]
    shift, change = _seeds(shifts), _seeds(changes)
    moved, narrow, wide = student(change, 1 - alpha), student(shift, 1 - 2 * alpha), student(shift, 1 - alpha)
    sign = -1.0 if better == "lower" else 1.0
    apart = [stratum(sign * grid.measures[measure], grid.reliance) for grid in grids]
    within = [
        stratum(sign * values, used)
        for grid in grids
        for values, used in zip(grid.measures[measure], grid.reliance, strict=True)
    ]
    same = separation(within)
    return {
        "ratio": 2 ** wide[0],
        "ratio_low": 2 ** wide[1],
        "ratio_high": 2 ** wide[2],
        "n_seeds": int(np.isfinite(shift).sum()),
        "change": moved[0],
        "change_low": moved[1],
        "change_high": moved[2],
        "verdict": _verdict(moved, narrow, wide),
        "auroc": separation(apart),
        "auroc_within": same,
        "p_within": permutation_p(within, same, seed=seed),
        "pairs": sum(stratum.pairs for stratum in within),
    }


def _seeds(by_cue: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over cues of each seed, [S]; a seed that lacks one is missing."""
    return np.mean(np.stack(by_cue), axis=0)


def _verdict(moved: tuple[float, ...], narrow: tuple[float, ...], wide: tuple[float, ...]) -> str:
    """`same`: within FACTOR by two one-sided tests; `elsewhere`: the whole interval is beyond it; `does not move`: the
    change may be 0; `undecided`: none of these, or too few seeds."""
    bound = np.log2(FACTOR)
    if not np.isfinite([*moved, *wide]).all():
        return "undecided"
    if moved[1] <= 0 <= moved[2]:
        return "does not move"
    if -bound <= narrow[1] and narrow[2] <= bound:
        return "same"
    return "elsewhere" if wide[1] > bound or wide[2] < -bound else "undecided"


@dataclass(frozen=True)
class Stratum:
    """Networks that are compared with each other: the ranks of their values, and which of them use no cue, both [N]."""

    ranks: np.ndarray
    free: np.ndarray

    @property
    def pairs(self) -> int:
        """Of one that uses the cue and one that does not."""
        return int(self.free.sum() * (~self.free).sum())

    def won(self, free: np.ndarray) -> np.ndarray:
        """In how many of the pairs the one without the cue has the larger value, for each row of `free` [B, N]."""
        count = free.sum(axis=1)
        return free @ self.ranks - count * (count + 1) / 2


def stratum(values: np.ndarray, reliance: np.ndarray) -> Stratum:
    """Of the networks whose value and reliance are known."""
    known = np.isfinite(values) & np.isfinite(reliance)
    return Stratum(stats.rankdata(values[known]), reliance[known] <= HALF)


def separation(strata: Sequence[Stratum]) -> float:
    """The AUROC over the pairs of all strata, in [0, 1]; NaN without a pair."""
    pairs = sum(each.pairs for each in strata)
    won = sum(float(each.won(each.free[None])[0]) for each in strata)
    return won / pairs if pairs else float("nan")


def permutation_p(strata: Sequence[Stratum], found: float, *, seed: int) -> float:
    """Two-sided: how often the labels, permuted within each stratum, part at least as far from 1/2 as `found`."""
    mixed = [each for each in strata if each.pairs]
    if not mixed:
        return float("nan")
    rng, won = np.random.default_rng([seed, 3]), np.zeros(PERMUTATIONS)
    for each in mixed:
        won += each.won(rng.permuted(np.tile(each.free, (PERMUTATIONS, 1)), axis=1))
    extreme = np.abs(won / sum(each.pairs for each in mixed) - 0.5) >= abs(found - 0.5) - 1e-9
    return float((extreme.sum() + 1) / (PERMUTATIONS + 1))


def sheet(grids: Sequence[Grid], shown: dict[Any, str], norm: str) -> Sheet:
    """A panel a cue: how much of the reliance is gone, and how far each measure is on its way, against training epsilon.

    shown: measure -> label. Lines are means over seeds, dots single networks; 0 is the smallest epsilon, 1 the largest
    (of the reliance: none, and all of it gone).
    """
    return Sheet("transition", (1.2 + 3.1 * len(grids), 3.4), partial(_draw, grids, shown, norm))


def _draw(grids: Sequence[Grid], shown: dict[Any, str], norm: str, figure: Figure) -> None:
    panels = figure.subplots(1, len(grids), sharey=True, squeeze=False)[0]
    styles = method_styles(list(shown.values()), set())
    for axes, grid in zip(panels, grids, strict=True):
        places = epsilon_axis(axes, grid.epsilons, norm)
        x = [places[epsilon] for epsilon in grid.epsilons]
        axes.axhline(HALF, color=INK, linewidth=0.6)
        lines = {"cue no longer used": (1 - grid.reliance, {"color": INK, "linewidth": 2.4})}
        for measure, label in shown.items():
            values = grid.measures[measure]
            begin, end = np.nanmean(values[[0, -1]], axis=1)
            lines[label] = ((values - begin) / (end - begin), styles[label])
        for label, (curves, style) in lines.items():
            axes.plot(x, np.nanmean(curves, axis=1), label=plain(label), **style)
            axes.plot(x, curves, linestyle="", marker=".", markersize=3, alpha=0.6, color=style["color"])
        heading(axes, f"cue of {grid.cue:g}/255")
    panels[0].set_ylabel("share of the way")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, 2 * len(panels)))
