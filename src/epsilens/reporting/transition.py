"""Where networks stop using the cue of the shapes, and whether a metric moves at the same training epsilon.

The only studies in which the truth is known: how much a network relies on the cue is measured by its accuracy with and
without it, and no explanation is involved. Each seed has a curve over epsilon.
Units are seeds: with one seed, networks of all epsilons and cues have the same initial weights and order of batches, so that
tests exchange whole seeds. Axes: E training epsilons, S seeds, P orders of the seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from epsilens.reporting.marks import heading
from epsilens.reporting.sheet import Sheet
from epsilens.reporting.style import epsilon_axis, method_styles, plain

# Of the way from the smallest epsilon to the largest; of the reliance, what parts users of the cue from others.
HALF = 0.5
ERRORS = 3  # standard errors that an accuracy must be above chance
ALL_ORDERS = 8  # up to so many seeds all their orders are gone through, beyond them DRAWN
DRAWN = 9_999
ROUNDING = 1e-9
COLUMNS = 3  # of panels in the figure


def reliance(with_cue: np.ndarray, without: np.ndarray, classes: int, images: int) -> np.ndarray:
    """The part of the accuracy above chance that is lost with the cue, in [0, 1]. NaN where the accuracy, of so many images,
    is not clearly above chance: a network that knows nothing has nothing to lose."""
    chance = 1 / classes
    clear = with_cue > chance + ERRORS * math.sqrt(chance * (1 - chance) / images)
    lost = np.divide(with_cue - without, with_cue - chance, out=np.full(np.shape(clear), np.nan), where=clear)
    return np.clip(lost, 0, 1)


def crossing(curve: np.ndarray) -> float:
    """The number of the epsilon, from 1, at which a curve [E] has first gone half of its way, from first value to last.

    It does so in the step that ends there; where in it is not known. NaN where a value is missing, or the last is the first.
    """
    way = curve[-1] - curve[0]
    if not np.isfinite(curve).all() or way == 0:
        return float("nan")
    return float(np.argmax((curve - curve[0]) / way >= HALF))


def let_go(reliance: np.ndarray) -> float:
    """`crossing` of a reliance [E], which has a half of its own: NaN unless the cue is used at first and not at last."""
    if not (reliance[0] > HALF >= reliance[-1]):
        return float("nan")
    return float(np.argmax(reliance <= HALF))


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

    def crossings(self, measure: Any) -> tuple[np.ndarray, np.ndarray]:
        """Of each seed, [S]: where the measure crosses, and where the cue is let go."""
        curves = self.measures[measure].T
        return np.array([crossing(curve) for curve in curves]), np.array([let_go(curve) for curve in self.reliance.T])


def compare(grids: Sequence[Grid], measure: Any, better: str | None, *, alpha: float, seed: int) -> dict[str, Any]:
    """Of several cues together: does a measure move where the networks stop using the cue, and does it tell the networks
    that use it from the others? Grids have the same seeds in the same order.

    better: higher, lower, or None: the direction in which networks that use no cue are expected to be (None: higher).
    Returns what `crossed` counts; `change` from the smallest epsilon to the largest, a mean over cues, with its interval;
    `verdict`; `auroc`, the chance that a network without the cue has the better value, over all networks of a cue, and
    `auroc_within` among those of the same epsilon only, with `p_within` and the number of `pairs`. Both p are of tests that
    exchange the reliance of whole seeds, in all cues and at all epsilons alike.
    """
    orders = seed_orders(grids[0].reliance.shape[1], seed)
    changes = [grid.measures[measure][-1] - grid.measures[measure][0] for grid in grids]
    moved, found = student(np.mean(changes, axis=0), 1 - alpha), crossed(grids, measure, orders)
    still = all(low <= 0 <= high for _, low, high in (student(change, 1 - alpha) for change in changes))
    sign = -1.0 if better == "lower" else 1.0
    networks = [(sign * grid.measures[measure].ravel(), grid.reliance.reshape(1, -1)) for grid in grids]
    same_epsilon = [
        (sign * values, used[orders])
        for grid in grids
        for values, used in zip(grid.measures[measure], grid.reliance, strict=True)
    ]
    within, pairs = separation(same_epsilon)
    far = np.abs(within - 0.5) >= np.abs(within[0] - 0.5) - ROUNDING
    return found | {
        "change": moved[0],
        "change_low": moved[1],
        "change_high": moved[2],
        "verdict": _verdict(still, found, alpha),
        "auroc": float(separation(networks)[0][0]),
        "auroc_within": float(within[0]),
        "p_within": float(far.mean()) if pairs else float("nan"),
        "pairs": pairs,
    }


def seed_orders(count: int, seed: int) -> np.ndarray:
    """Orders of so many seeds, [P, S]: all of them, or DRAWN and their own; theirs is the first."""
    if count <= ALL_ORDERS:
        return np.array(list(permutations(range(count))))
    own = np.arange(count)
    drawn = np.random.default_rng([seed, 3]).permuted(np.tile(own, (DRAWN, 1)), axis=1)
    return np.concatenate([own[None], drawn])


def crossed(grids: Sequence[Grid], measure: Any, orders: np.ndarray) -> dict[str, Any]:
    """How many seeds, of all cues, cross in the `same` step between two epsilons in which they let go of the cue, or in an
    `earlier` or `later` one; `p_same`: the share of the orders of seeds with as many in the same, or more."""
    steps = [grid.crossings(measure) for grid in grids]
    apart = np.concatenate([curve - own for curve, own in steps])
    counts = np.sum([(curve == own[orders]).sum(axis=1) for curve, own in steps], axis=0)  # NaN equals nothing
    return {
        "same": int((apart == 0).sum()),
        "earlier": int((apart < 0).sum()),
        "later": int((apart > 0).sum()),
        "p_same": float((counts >= counts[0]).mean()) if np.isfinite(apart).any() else float("nan"),
    }


def _verdict(still: bool, found: dict[str, Any], alpha: float) -> str:
    """`no change shown`: it may be 0 with every cue; `with the cue`: most seeds cross in the step in which they let go of
    the cue, more than by chance; `undecided`: neither, or too few seeds."""
    if still:
        return "no change shown"
    most = found["same"] > found["earlier"] + found["later"]
    return "with the cue" if most and found["p_same"] <= alpha else "undecided"


def separation(groups: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, int]:
    """The AUROC [P] over the pairs of one network that uses the cue and one that does not, within each group, ties half; and
    how many pairs there are in the first order. groups: values [N] and reliance [P, N]. NaN without a pair."""
    won, pairs = 0.0, 0.0
    for values, used in groups:
        known = np.isfinite(values)
        larger = (values[:, None] > values) + 0.5 * (values[:, None] == values)  # [N, N]
        free, bound = ((side & known).astype(float) for side in (used <= HALF, used > HALF))  # NaN is neither
        won = won + np.einsum("pi,ij,pj->p", free, larger, bound)
        pairs = pairs + free.sum(axis=1) * bound.sum(axis=1)
    pairs = np.asarray(pairs)
    return np.divide(won, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0), int(pairs[0])


def sheet(grids: Sequence[Grid], shown: dict[Any, tuple[str, str]], norm: str) -> Sheet:
    """The reliance and then each measure against training epsilon. A line a cue: means over seeds; dots are single networks.

    shown: measure -> its label, and which way is better.
    """
    rows = math.ceil((1 + len(shown)) / COLUMNS)
    return Sheet("transition", (9.6, 3.1 * rows), partial(_draw, rows, grids, shown, norm))


def _draw(rows: int, grids: Sequence[Grid], shown: dict[Any, tuple[str, str]], norm: str, figure: Figure) -> None:
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    _panel(panels[0], grids, [grid.reliance for grid in grids], norm)
    heading(panels[0], "of the accuracy above chance, what the cue gives", title="Reliance on the cue")
    for axes, (measure, (label, better)) in zip(panels[1:], shown.items(), strict=False):
        _panel(axes, grids, [grid.measures[measure] for grid in grids], norm)
        heading(axes, better, title=plain(label))
    for axes in panels[1 + len(shown) :]:
        axes.set_axis_off()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(grids))


def _panel(axes: Axes, grids: Sequence[Grid], values: Sequence[np.ndarray], norm: str) -> None:
    """One quantity; values: for each grid, [E, S]."""
    places = epsilon_axis(axes, [epsilon for grid in grids for epsilon in grid.epsilons], norm)
    names = [f"cue of {grid.cue:g}/255" for grid in grids]
    for grid, name, curves, style in zip(grids, names, values, method_styles(names, set()).values(), strict=True):
        x = [places[epsilon] for epsilon in grid.epsilons]
        axes.plot(x, np.nanmean(curves, axis=1), label=name, **style)
        axes.plot(x, curves, linestyle="", marker=".", markersize=3, alpha=0.6, color=style["color"])
