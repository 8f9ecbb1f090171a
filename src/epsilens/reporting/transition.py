"""Where networks stop using the cue of the shapes, and whether a metric moves at the same training epsilon.

The only studies in which the truth is known: how much a network relies on the cue is measured by its accuracy with and
without it, and no explanation is involved. Units are seeds: each has a curve over epsilon of its own.
Axes: E training epsilons, S seeds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import combinations, product
from math import comb, factorial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from epsilens.reporting.marks import heading
from epsilens.reporting.sheet import Sheet
from epsilens.reporting.style import INK, epsilon_axis, method_styles, plain

# Of the way from the smallest epsilon to the largest; of the reliance, what parts users of the cue from others.
HALF = 0.5


def reliance(with_cue: np.ndarray, without: np.ndarray, classes: int) -> np.ndarray:
    """The part of the accuracy above chance that is lost with the cue, in [0, 1]; NaN where accuracy is at chance."""
    above = with_cue - 1 / classes
    lost = np.divide(with_cue - without, above, out=np.full(np.shape(above), np.nan), where=above > 0)
    return np.clip(lost, 0, 1)


def crossing(curve: np.ndarray) -> float:
    """The number of the epsilon, from 1, at which a curve [E] has first gone half of its way, from first value to last.

    It does so in the step that ends there; where in it is not known. NaN where a value is missing, or the last is the first.
    """
    way = curve[-1] - curve[0]
    if not np.isfinite(curve).all() or way == 0:
        return float("nan")
    return float(np.argmax((curve - curve[0]) / way >= HALF))


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
        return np.array([crossing(curve) for curve in curves.T])


def compare(grids: Sequence[Grid], measure: Any, better: str | None, *, alpha: float) -> dict[str, Any]:
    """Of several cues together: does a measure move where the networks stop using the cue, and does it tell the networks
    that use it from the others?

    better: higher, lower, or None: the direction in which networks that use no cue are expected to be (None: higher).
    Returns what `crossed` counts; `change` from the smallest epsilon to the largest with its interval; `verdict`; `auroc`,
    the chance that a network without the cue has the better value, over all networks of a cue, and `auroc_within` among
    those of the same epsilon only, with `p_within`, of labels permuted within these, and the number of `pairs`.
    """
    changes = [grid.measures[measure][-1] - grid.measures[measure][0] for grid in grids]
    moved, found = student(np.mean(changes, axis=0), 1 - alpha), crossed(grids, measure)
    sign = -1.0 if better == "lower" else 1.0
    everywhere = [stratum(sign * grid.measures[measure], grid.reliance) for grid in grids]
    within = [
        stratum(sign * values, used)
        for grid in grids
        for values, used in zip(grid.measures[measure], grid.reliance, strict=True)
    ]
    return found | {
        "change": moved[0],
        "change_low": moved[1],
        "change_high": moved[2],
        "verdict": _verdict(moved, found["p_same"], found["p_order"], alpha),
        "auroc": separation(everywhere),
        "auroc_within": separation(within),
        "p_within": permutation_p(within),
        "pairs": sum(stratum.pairs for stratum in within),
    }


def crossed(grids: Sequence[Grid], measure: Any) -> dict[str, Any]:
    """How many seeds' curves cross in the `same` step between two epsilons as their own reliance, in an `earlier` and in a
    `later` one. `p_same`: the chance of so many in the same, were each paired with the reliance of any seed of its cue;
    `p_order`: of a sign test between earlier and later. NaN and 1 where there is nothing to count."""
    steps = [_known(grid.crossings(grid.measures[measure]), grid.crossings(grid.reliance)) for grid in grids]
    apart = np.concatenate([curve - own for curve, own in steps])
    same, earlier, later = (int(part.sum()) for part in (apart == 0, apart < 0, apart > 0))
    chances = reduce(np.convolve, [matches(curve, own) for curve, own in steps], np.ones(1))
    return {
        "same": same,
        "earlier": earlier,
        "later": later,
        "p_same": float(chances[same:].sum()) if len(apart) else float("nan"),
        "p_order": float(stats.binomtest(earlier, earlier + later).pvalue) if earlier + later else 1.0,
    }


def _known(curve: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The seeds of which both crossings are known."""
    known = np.isfinite(curve) & np.isfinite(own)
    return curve[known], own[known]


def matches(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The chances of 0, 1, ... equal pairs where each of `first` [S] is paired with one of `second` [S] at random, exactly:
    the ways to place i equal pairs, by inclusion and exclusion."""
    count, placed = len(first), np.ones(1)
    for value in np.intersect1d(first, second):
        a, b = int((first == value).sum()), int((second == value).sum())
        placed = np.convolve(placed, [comb(a, i) * comb(b, i) * factorial(i) for i in range(min(a, b) + 1)])
    ways = [
        sum((-1) ** (i - k) * comb(i, k) * placed[i] * factorial(count - i) for i in range(k, len(placed)))
        for k in range(len(placed))
    ]
    return np.array(ways) / factorial(count)


def _verdict(moved: tuple[float, float, float], p_same: float, p_order: float, alpha: float) -> str:
    """`does not move`: the change may be 0; `with the cue`: in the same step more often than by chance; `earlier or later`:
    on one side of it more often than by chance; `undecided`: none of these, or too few seeds."""
    if not np.isfinite([*moved, p_same]).all():
        return "undecided"
    if moved[1] <= 0 <= moved[2]:
        return "does not move"
    if p_same <= alpha:
        return "with the cue"
    return "earlier or later" if p_order <= alpha else "undecided"


@dataclass(frozen=True)
class Stratum:
    """Networks that are compared with each other: the ranks of their values, and which of them use no cue, both [N]."""

    ranks: np.ndarray
    free: np.ndarray

    @property
    def pairs(self) -> int:
        """Of one that uses the cue and one that does not."""
        return int(self.free.sum() * (~self.free).sum())

    @property
    def won(self) -> float:
        """In how many of the pairs the one without the cue has the larger value; a tie is half of one."""
        return float(self._won(self.ranks[self.free]))

    def chances(self) -> dict[float, float]:
        """Of each number of pairs that could be won, where any of the networks might be those without the cue."""
        drawn = [self._won(np.array(ranks)) for ranks in combinations(self.ranks, int(self.free.sum()))]
        return {won: count / len(drawn) for won, count in Counter(drawn).items()}

    def _won(self, ranks: np.ndarray) -> float:
        return ranks.sum() - len(ranks) * (len(ranks) + 1) / 2


def stratum(values: np.ndarray, reliance: np.ndarray) -> Stratum:
    """Of the networks whose value and reliance are known."""
    known = np.isfinite(values) & np.isfinite(reliance)
    return Stratum(stats.rankdata(values[known]), reliance[known] <= HALF)


def separation(strata: Sequence[Stratum]) -> float:
    """The AUROC over the pairs of all strata, in [0, 1]; NaN without a pair."""
    pairs = sum(each.pairs for each in strata)
    return sum(each.won for each in strata) / pairs if pairs else float("nan")


def permutation_p(strata: Sequence[Stratum]) -> float:
    """Two-sided, counted exactly: how often the labels, permuted within each stratum, part at least as far from 1/2 as they
    do; NaN without a pair. All C(N, k) labelings of a stratum are gone through."""
    mixed = [each for each in strata if each.pairs]
    if not mixed:
        return float("nan")
    middle = sum(each.pairs for each in mixed) / 2
    total: dict[float, float] = {0.0: 1.0}
    for each in mixed:
        summed: defaultdict[float, float] = defaultdict(float)
        for (won, chance), (more, part) in product(total.items(), each.chances().items()):
            summed[won + more] += chance * part
        total = summed
    seen = abs(sum(each.won for each in mixed) - middle)
    return sum(chance for won, chance in total.items() if abs(won - middle) >= seen)


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
