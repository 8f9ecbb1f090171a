"""Claims: a verdict that is wrong is as rare as it says, in made-up studies whose truth is known.

`null`: nothing changes. `margin`: the truth of some claims is exactly at the margin that decides, the worst there is.
Studies have 4 training epsilons, 40 images, 3 methods and 2, 3 or 5 seeds, which differ little or as much as images. A
verdict is wrong if it is supported or contradicted where neither is true. The last line is JSON.

`--trials 100` gives the figures of docs/claims.md, in about six minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from epsilens.reporting.claims import claims_table
from epsilens.reporting.config import ClaimsConfig, PlausibleConfig, RecommendConfig, ReportConfig
from epsilens.reporting.findings import Sample, draw
from epsilens.reporting.samples import ACCURACY_STREAM, Samples

METHODS, IMAGES, ATTACKED = ("first", "second", "third"), 40, 200
BETTER = {"gini": "higher", "direction_sensitivity": "lower", "relevance_mass_corrected": "higher"}
FACTS = {
    "metrics": {name: {"better": better} for name, better in BETTER.items()},
    "attributions": {name: {"kind": "method"} for name in METHODS},
}
FLAT = (0.0, 0.0, 0.0, 0.0)
TRUTHS: dict[str, tuple[Mapping[str, Sequence[float]], Sequence[float], tuple[str, ...]]] = {
    "null": (dict.fromkeys(BETTER, FLAT), (0.8,) * 4, ("more concise", "more stable", "modest training helps")),
    "margin": (
        {"gini": (0, 0.15, 0.25, 0.3), "direction_sensitivity": (0, -0.15, -0.2, -0.3),
         "relevance_mass_corrected": (0, 0.05, 0.05, 0.05)},
        (0.8, 0.78, 0.78, 0.78),
        ("not more relevant", "costs accuracy", "modest training helps"),
    ),
}  # fmt: skip  # means of the metrics, accuracies, and the claims of which no verdict is right
TAILS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
    "t3": lambda rng, shape: rng.standard_t(3, size=shape) / np.sqrt(3),
}  # of variance 1


def config(resamples: int) -> ReportConfig:
    """The margins of the default study."""
    gini, direction, relevance = BETTER
    return ReportConfig(
        attribution=METHODS[0],
        metrics=tuple(BETTER),
        bootstrap=resamples,
        seed=0,
        confidence=0.95,
        plausible=PlausibleConfig(conciseness=gini, stability=direction, relevance=relevance, control="random"),
        claims=ClaimsConfig(alpha=0.05, accuracy_margin=0.02, relevance_margin=0.05, modest_share=0.5,
                            misleading_rate=0.1, auroc_margin=0.1),
        recommend=RecommendConfig(metric=direction, gain=0.1, accuracy_loss=0.1),
    )  # fmt: skip


def study(
    rng: np.random.Generator, truth: str, tail: str, seeds: int, spread: float, options: dict[str, Any]
) -> Samples:
    """Scores with luck of seeds (half of it shared by all methods and metrics), of images, and of both together."""
    means, accuracies, _ = TRUTHS[truth]
    noise, columns = TAILS[tail], [(method, metric) for metric in BETTER for method in METHODS]
    count = len(columns)
    luck = noise(rng, (4, seeds, 1, count)) + noise(rng, (4, seeds, 1, 1))
    both = noise(rng, (4, seeds, IMAGES, count)) + noise(rng, (4, 1, IMAGES, count))
    mean = np.stack([means[metric] for _, metric in columns], axis=-1)[:, None, None]
    values = mean + spread * luck / np.sqrt(2) + 0.15 * noise(rng, (1, 1, IMAGES, count)) + 0.05 * both
    drawn = draw(values, **options)
    return Samples([0.0, 1.0, 4.0, 8.0], dict(zip(columns, drawn, strict=True)), accuracy(rng, accuracies, noise(
        rng, (4, seeds)) * 0.3 * spread, options), FACTS)  # fmt: skip


def accuracy(rng: np.random.Generator, means: Sequence[float], luck: np.ndarray, options: dict[str, Any]) -> Sample:
    """Which images are right: easy ones are right for most networks."""
    share = np.clip(np.asarray(means)[:, None] + luck, 0.01, 0.99)
    hard = 0.7 * rng.random(ATTACKED) + 0.3 * rng.random((*share.shape, ATTACKED))
    bounds = np.quantile(0.7 * rng.random(20_000) + 0.3 * rng.random(20_000), share)
    return draw((hard < bounds[..., None])[..., None].astype(float), stream=ACCURACY_STREAM, **options)[0]


def wrong(truth: str, tail: str, seeds: int, spread: float, trials: int, resamples: int) -> Iterator[set[str]]:
    """Of each study the wrong verdicts on training: `<claim>: <verdict>` of any method, `headline` of the first one."""
    settings, undecidable = config(resamples), TRUTHS[truth][2]
    for trial in range(trials):
        rng = np.random.default_rng([seeds, trial, int(spread * 100)])
        options = {"samples": resamples, "seed": trial, "confidence": settings.confidence}
        rows = claims_table(study(rng, truth, tail, seeds, spread, options), [], settings)
        rows = [row for row in rows if row["scope"] == "training" and row["verdict"] != "undecided"]
        rows = [row for row in rows if row["claim"] in undecidable]
        yield {f"{row['claim']}: {row['verdict']}" for row in rows} | {"headline" for row in rows if row["headline"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20, help="studies of each kind")
    parser.add_argument("--resamples", type=int, default=400)
    given = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for truth, tails in (("null", ("normal", "exponential")), ("margin", ("normal", "t3"))):
        kinds = [(tail, seeds, spread) for tail in tails for seeds in (2, 3, 5) for spread in (0.02, 0.1)]
        counts: Counter[str] = Counter()
        for tail, seeds, spread in kinds:
            for mistakes in wrong(truth, tail, seeds, spread, given.trials, given.resamples):
                counts.update(mistakes)
        studies = len(kinds) * given.trials
        found[truth] = {name: round(count / studies, 4) for name, count in sorted(counts.items())}
        print(f"{truth}: {studies} studies")
        for name, share in found[truth].items():
            print(f"  {name:40} {share:.3f}")
    print(json.dumps({"trials": given.trials, "wrong": found}))


if __name__ == "__main__":
    main()
