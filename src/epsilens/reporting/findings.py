"""What the tests start from, and what they return: one column of scores with its replicates, one figure with how sure
it is. Axes: E training epsilons (ascending; 0 is the smallest), S seeds, N images, B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from epsilens.errors import DataError
from epsilens.reporting.resampling import (
    Values,
    grand_means,
    interval,
    network_means,
    resampled_images,
    seed_deviations,
)

Scope = Literal["training", "these networks"]
Better = Literal["higher", "lower"]
Alternative = Literal["two-sided", "rises", "falls"]

ONE_SEED = "one seed: holds for these networks only"
ALIKE = "the same for all networks: no spread that would tell of another training"
UNDEFINED = "no defined score at an epsilon that is compared"
NO_SHARED_SEED = "no seed is at both epsilons"
ONE_IMAGE = "one image: nothing tells how others would score"


@dataclass(frozen=True)
class Finding:
    """One figure with its uncertainty. What does not exist is NaN, and `reason` says why.

    `low` and `high` bound the estimate at `confidence`. `p` is of `test`; `smallest_p` is the smallest that so many
    units could have given whatever their scores: where it is above the level, nothing can be concluded, and a large p
    is no evidence for "no effect". `n` counts the units that the claim is replicated over.
    `scope`: "training" speaks of networks trained again, "these networks" only of those that were measured.
    """

    test: str
    estimate: float
    low: float
    high: float
    confidence: float
    p: float
    smallest_p: float
    n: int
    unit: Literal["seeds", "images"]
    n_seeds: int  # the fewest at any epsilon of the sample
    scope: Scope
    reason: str = ""


@dataclass(frozen=True)
class Sample:
    """The scores of one metric and attribution (or the accuracy), and replicates of their means.

    Made by `draw`. With one seed at some epsilon `scope` is "these networks", whatever was asked for.
    """

    values: np.ndarray  # [E, S, N], NaN where a score is missing, undefined or outside the set of images
    replicates: np.ndarray  # [B, E]
    confidence: float
    seed: int
    stream: int
    scope: Scope

    @property
    def networks(self) -> np.ndarray:
        """Mean over images of each network, [E, S]."""
        return network_means(self.values[..., None])[..., 0]

    @property
    def means(self) -> np.ndarray:
        """Mean over seeds of the means over images, [E]."""
        return grand_means(self.networks[..., None])[:, 0]

    @property
    def n_seeds(self) -> int:
        """The fewest networks with a score at any epsilon."""
        return int((~np.isnan(self.networks)).sum(axis=1).min())

    @property
    def n_images(self) -> int:
        """Images with a score of at least one network."""
        return int((~np.isnan(self.values)).any(axis=(0, 1)).sum())

    def oriented(self, better: Better) -> Sample:
        """With the sign changed where lower is better: then more is better, and a rise is an improvement."""
        return self if better == "higher" else replace(self, values=-self.values, replicates=-self.replicates)

    def of(self, values: np.ndarray, *, scope: Scope | None = None) -> Sample:
        """Other values [E', S, N] of the same networks and images, resampled in the same way."""
        options = {"samples": len(self.replicates), "seed": self.seed, "stream": self.stream}
        return draw(values[..., None], confidence=self.confidence, scope=scope or self.scope, **options)[0]

    def interval(self, replicates: np.ndarray) -> tuple[float, float]:
        """The percentile interval of replicates [B] of any figure."""
        low, high = interval(replicates[:, None], self.confidence)
        return float(low[0]), float(high[0])

    def paired(self, index: int) -> bool:
        """Whether a seed has a network both here and at the smallest epsilon."""
        return bool((~np.isnan(self.networks[[0, index]])).all(axis=0).any())


def draw(
    values: Values, *, samples: int, seed: int, confidence: float, scope: Scope = "training", stream: int = 0
) -> list[Sample]:
    """The K columns of `values` [E, S, N, K] as samples, resampled together.

    Columns of other images (accuracy) take another `stream` and the same `seed`: then they share the draws of seeds.
    Scope "these networks" leaves the spread between trainings out.
    """
    n_seeds = (~np.isnan(network_means(values))).sum(axis=1).min(axis=0)  # [K], the fewest at any epsilon
    held: list[Scope] = [scope if count > 1 else "these networks" for count in n_seeds]
    replicates = resampled_images(values, samples=samples, seed=seed, stream=stream)
    trained = [k for k, own in enumerate(held) if own == "training"]
    if trained:
        replicates[..., trained] += seed_deviations(network_means(values), samples=samples, seed=seed)[..., trained]
    return [Sample(values[..., k], replicates[..., k], confidence, seed, stream, held[k]) for k in range(len(held))]


def finding(sample: Sample, test: str, estimate: float, bounds: tuple[float, float], **more: Any) -> Finding:
    """A figure of a sample: n and unit as its scope has it, no test unless `p` and `smallest_p` are among `more`."""
    by_seed = sample.scope == "training"
    known: dict[str, Any] = {
        "confidence": sample.confidence,
        "p": np.nan,
        "smallest_p": np.nan,
        "n": sample.n_seeds if by_seed else sample.n_images,
        "unit": "seeds" if by_seed else "images",
        "n_seeds": sample.n_seeds,
        "scope": sample.scope,
    }
    low, high = bounds
    return Finding(test=test, estimate=float(estimate), low=float(low), high=float(high), **(known | more))


def why_undefined(sample: Sample, indices: Sequence[int]) -> str:
    """The reason why nothing can be said of these epsilons, empty where something can."""
    if np.isnan(sample.means[list(indices)]).any():
        return UNDEFINED
    if not all(sample.paired(index) for index in indices):
        return NO_SHARED_SEED
    images = (~np.isnan(sample.values[[0, *indices]])).any(axis=1).sum(axis=1)
    return ONE_IMAGE if sample.scope == "these networks" and images.min() < 2 else ""


def same_grid(first: Sample, second: Sample) -> None:
    """Raises DataError unless two samples have the same epsilons and share their draws of seeds."""
    if first.replicates.shape != second.replicates.shape or first.seed != second.seed:
        raise DataError(
            f"two samples must have the same epsilons, resamples and seed: found {first.replicates.shape}, "
            f"seed {first.seed}, and {second.replicates.shape}, seed {second.seed}"
        )
