"""Claims: 95 % intervals over seeds and images cover at least 93 %, also with two seeds; a family of trend tests is wrong at
most as often as it says.

Toy scores with known means: score = seed + image + interaction, each of its own spread. Beside the scheme in use stands the
plain bootstrap of both (seeds and images drawn with replacement, one less than there are). The last line is JSON.

`--trials 2000` gives the figures of docs/statistics.md (half an hour of one core); the default takes two minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from epsilens.reporting.findings import draw
from epsilens.reporting.multiplicity import holm
from epsilens.reporting.resampling import interval, resampled_means, resampling_weights
from epsilens.reporting.trend import page, slope_weights, trend_of_these_networks

SPREADS = {  # of seeds, images, interaction
    "seeds": (1.0, 1.0, 0.5),
    "even": (0.15, 1.0, 0.5),
    "images": (0.02, 1.0, 0.3),
    "interaction": (0.05, 0.3, 1.0),
    "skewed": (0.15, 1.0, 0.5),  # images have an exponential distribution
}
EPSILONS, METRICS, LEVEL = 4, 4, 0.05
Scheme = Callable[[np.ndarray, int, int], np.ndarray]


def toy(kind: str, n_seeds: int, n_images: int, rng: np.random.Generator) -> np.ndarray:
    """Scores [1, S, N, 1] whose expectation is 0; a single seed is the only network there is, so it has no spread."""
    of_seeds, of_images, of_both = SPREADS[kind]
    seeds = rng.normal(size=(1, n_seeds, 1, 1)) * (n_seeds > 1)
    shape = (1, 1, n_images, 1)
    images = rng.exponential(size=shape) - 1 if kind == "skewed" else rng.normal(size=shape)
    return of_seeds * seeds + of_images * images + of_both * rng.normal(size=(1, n_seeds, n_images, 1))


def ours(values: np.ndarray, samples: int, seed: int) -> np.ndarray:
    return resampled_means(values, samples=samples, seed=seed)[:, 0, 0]


def plain(values: np.ndarray, samples: int, seed: int) -> np.ndarray:
    rng, (n_seeds, n_images) = np.random.default_rng(seed), values.shape[1:3]
    seeds, images = (resampling_weights(count, samples, rng) for count in (n_seeds, n_images))
    return np.einsum("bs,sn,bn->b", seeds, values[0, ..., 0], images, optimize=True) / (seeds.sum(1) * images.sum(1))


def coverage(kind: str, n_seeds: int, n_images: int, trials: int, samples: int) -> dict[str, float]:
    """The share of 95 % intervals that hold 0, of both schemes on the same data."""
    schemes: dict[str, Scheme] = {"ours": ours, "plain": plain}
    hits = dict.fromkeys(schemes, 0)
    for trial in range(trials):
        values = toy(kind, n_seeds, n_images, np.random.default_rng([n_seeds, n_images, trial]))
        for name, scheme in schemes.items():
            low, high = interval(scheme(values, samples, trial)[:, None], 1 - LEVEL)
            hits[name] += int(low[0] <= 0 <= high[0])
    return {name: count / trials for name, count in hits.items()}


def family(n_seeds: int, trials: int, *, persistence: float) -> dict[str, float]:
    """How often any of the trends of 4 metrics over 4 epsilons is called one, where there is none: by Page's test and Holm,
    and by 95 % intervals of the slope with Bonferroni's level.

    `persistence`: correlation of the luck of a seed at neighbouring epsilons; the exact test assumes that it is the same
    for all pairs.
    """
    rng, wrong = np.random.default_rng([n_seeds, round(100 * persistence)]), np.zeros(2)
    lags = np.abs(np.subtract.outer(np.arange(EPSILONS), np.arange(EPSILONS)))
    shared = np.linalg.cholesky(np.eye(METRICS) + 0.5 * (1 - np.eye(METRICS)))
    luck = np.linalg.cholesky(persistence**lags) if persistence else np.eye(EPSILONS)
    for trial in range(trials):
        networks = luck @ rng.normal(size=(n_seeds, EPSILONS, METRICS)) @ shared.T  # [S, E, K]
        p = [page(networks[..., k], "two-sided", seed=trial).p for k in range(METRICS)]
        wrong[0] += holm(p).min() <= LEVEL
        samples = draw(np.moveaxis(networks, 1, 0)[:, :, None], samples=999, seed=trial, confidence=1 - LEVEL / METRICS)
        ends = [sample.interval(sample.replicates @ slope_weights(EPSILONS)) for sample in samples]
        wrong[1] += n_seeds > 1 and any(low > 0 or high < 0 for low, high in ends)
    return dict(zip(("page", "slope"), wrong / trials, strict=True))


def mistaken(n_seeds: int, trials: int) -> float:
    """How often the test that holds for these networks only would be wrong of training: networks differ by chance."""
    rng, wrong = np.random.default_rng(n_seeds), 0
    for trial in range(trials):
        networks, images = rng.normal(size=(EPSILONS, n_seeds, 1, 1)), rng.normal(size=(1, 1, 60, 1))
        values = 0.15 * networks + images + 0.5 * rng.normal(size=(EPSILONS, n_seeds, 60, 1))
        sample = draw(values, samples=100, seed=trial, confidence=1 - LEVEL)[0]
        wrong += trend_of_these_networks(sample).p <= LEVEL
    return wrong / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--samples", type=int, default=1000)
    given = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for kind in SPREADS:
        for n_seeds in (1, 2, 3, 5, 10):
            for n_images in (20, 60, 200):
                name = f"{kind}, {n_seeds} seeds, {n_images} images"
                found[name] = coverage(kind, n_seeds, n_images, given.trials, given.samples)
                print(f"{name:40s} ours {found[name]['ours']:.3f}   plain {found[name]['plain']:.3f}", flush=True)
    for persistence in (0.0, 0.7):
        for n_seeds in (1, 2, 3, 5):
            name = f"family, {n_seeds} seeds, persistence {persistence:g}"
            found[name] = family(n_seeds, given.trials, persistence=persistence)
            print(f"{name:40s} page {found[name]['page']:.3f}   slope {found[name]['slope']:.3f}", flush=True)
    for n_seeds in (1, 3):
        name = f"images as replicates, {n_seeds} seeds"
        found[name] = {"wrong": mistaken(n_seeds, given.trials)}
        print(f"{name:40s} wrong {found[name]['wrong']:.3f}", flush=True)
    print(json.dumps({"trials": given.trials, "samples": given.samples, "rates": found}))


if __name__ == "__main__":
    main()
