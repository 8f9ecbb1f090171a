"""Which epsilon to take: accuracy against quality, with the Pareto front, its knee and the recommendation, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from epsilens.reporting.config import ReportConfig
from epsilens.reporting.gate import Row
from epsilens.reporting.samples import Samples
from epsilens.reporting.tables import rounded
from epsilens.reporting.tradeoff import Recommendation, TradeOff, recommend, trade_off


def choice_table(found: Samples, config: ReportConfig) -> list[Row]:
    """One row a metric and training epsilon, of the headline method, the headline metrics with a better direction, and the
    metric that decides.

    `accuracy` is clean, in [0, 1]; `loss` of it and `gain` in `quality` are from the smallest epsilon, above 0 for worse
    accuracy and better quality. Shares are of the bootstrap's replicates; `knee_interval` is that of the knee, two epsilons,
    among those that have one (the same in all rows of a metric). `recommended` and its share are None where
    another metric decides.
    """
    directed = [name for name in config.metrics if found.facts["metrics"][name]["better"]]
    wanted = dict.fromkeys([*directed, config.recommend.metric])
    return [row for metric in wanted for row in _rows(found, metric, config)]


def _rows(found: Samples, metric: str, config: ReportConfig) -> list[Row]:
    quality, accuracy = found.of(config.attribution, metric), found.accuracy
    shape = trade_off(accuracy, quality)
    decides = metric == config.recommend.metric
    taken = recommend(accuracy, quality, gain=config.recommend.gain, loss=config.recommend.accuracy_loss)
    measured = found.scores[config.attribution, metric].means
    return [
        {
            "metric": metric,
            "epsilon": epsilon,
            "accuracy": rounded(accuracy.means[e]),
            "quality": rounded(measured[e]),
            "loss": rounded(accuracy.means[0] - accuracy.means[e]),
            "gain": rounded(quality.means[e] - quality.means[0]),
        }
        | _of_front(shape, e, found.epsilons)
        | (_of_choice(taken, e) if decides else dict.fromkeys(CHOICE))
        | {"n_seeds": shape.n_seeds, "scope": shape.scope, "reason": shape.reason}
        for e, epsilon in enumerate(found.epsilons)
    ]


CHOICE = ("recommended", "qualifies_share", "recommended_share", "none_share")


def _of_front(shape: TradeOff, e: int, epsilons: Sequence[float]) -> dict[str, Any]:
    ends = (None if index is None else epsilons[index] for index in (shape.knee_low, shape.knee_high))
    return {
        "front": bool(shape.front[e]),
        "front_share": rounded(shape.front_share[e]),
        "knee": shape.knee == e,
        "knee_share": rounded(shape.knee_share[e]),
        "knee_interval": list(ends),
    }


def _of_choice(taken: Recommendation, e: int) -> dict[str, Any]:
    shares = (taken.qualifies_share[e], taken.recommended_share[e], taken.none_share)
    return dict(zip(CHOICE, (taken.index == e, *map(rounded, shares)), strict=True))
