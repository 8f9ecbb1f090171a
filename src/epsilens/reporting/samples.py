"""From rows to what the tests start from: the scores of one metric and attribution, the clean accuracy, as samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from epsilens.reporting.config import ReportConfig
from epsilens.reporting.findings import Better, Sample, draw
from epsilens.reporting.statistics import cube, image_sets
from epsilens.reporting.tables import correctness

Facts = Mapping[str, Any]
ACCURACY_STREAM = 1  # of other images than the scores, but of the same networks


@dataclass(frozen=True)
class Samples:
    """Every score on the images that all networks get right, as measured, and the clean accuracy on the test split."""

    epsilons: list[float]  # [E], ascending
    scores: Mapping[tuple[str, str], Sample]  # by attribution and metric
    accuracy: Sample
    facts: Facts

    def of(self, attribution: str, metric: str) -> Sample:
        """The scores with the sign with which more is better. Of a metric that has no better, as measured."""
        better: Better = "lower" if self.facts["metrics"][metric]["better"] == "lower" else "higher"
        return self.scores[attribution, metric].oriented(better)

    @property
    def methods(self) -> list[str]:
        """The attributions that are no controls."""
        known = dict.fromkeys(attribution for attribution, _ in self.scores)
        return [name for name in known if self.facts["attributions"][name]["kind"] == "method"]


def samples(attacks: pd.DataFrame, scores: pd.DataFrame, facts: Facts, config: ReportConfig) -> Samples:
    """From the rows of the networks that passed the gate."""
    options: dict[str, Any] = {"samples": config.bootstrap, "seed": config.seed, "confidence": config.confidence}
    found = cube(scores, ["attribution", "metric"], "score")
    common = image_sets(correctness(scores))["common"]
    drawn = draw(np.where(common[..., None], found.values, np.nan), **options)
    clean = cube(attacks.loc[(attacks["split"] == "test") & (attacks["attack"] == "clean")], ["attack"], "correct")
    return Samples(
        epsilons=found.epsilons,
        scores=dict(zip(((str(a), str(m)) for a, m in found.columns), drawn, strict=True)),
        accuracy=draw(clean.values, stream=ACCURACY_STREAM, **options)[0],
        facts=facts,
    )
