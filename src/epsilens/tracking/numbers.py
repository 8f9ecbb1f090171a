"""The numbers of a state as MLflow's metrics. MLflow's pages group them by what stands before the slash.

Of a study: the scalars of metrics/summary.json, and `by_epsilon/...`, curves. Of a network: `training/...` by epoch,
`accuracy/...`, `gate/sound`, and mean scores `<attribution>/<metric>`. The ends of an interval are groups of their own:
`by_epsilon_low/...`, `accuracy_high/...`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from epsilens.artifacts import (
    ACCURACY,
    ATTACKS,
    GATE,
    HEADLINE,
    HISTORY,
    MODELS,
    NETWORKS,
    ROWS,
    SCORES,
    SUMMARY,
    cell,
    read_json,
    read_rows,
)
from epsilens.tracking.state import PipelineState, flat
from epsilens.tracking.store import Point, epoch_points

STEPS = 1000  # a step is a whole number: that of training epsilon 0.25 is 250
BOUNDS = ("low", "high")

Row = Mapping[str, Any]


def summary(state: PipelineState) -> dict[str, float]:
    """The numbers of metrics/summary.json under dotted names."""
    return {name: float(value) for name, value in flat(read_json(state.folder / SUMMARY)).items() if _is_number(value)}


def curves(state: PipelineState) -> list[Point]:
    """Headline accuracies and metrics at each training epsilon, and the ends of their intervals; the step is 1000 epsilon.

    `by_epsilon/epsilon` is epsilon itself, exactly, for the horizontal axis. Accuracies: those at the headline budget;
    metrics: those of the headline attribution on the common images. All as in metrics/accuracy.json and headline.json.
    """
    report, attack = state.params["report"], state.params["attack"]
    norm, budget = state.params["threat"]["norm"], float(attack["epsilon"])
    points = [("by_epsilon/epsilon", float(epsilon), _step(float(epsilon))) for epsilon in _epsilons(state)]
    for row in read_json(state.folder / ACCURACY):
        if row["norm"] == norm and (row["attack"] == "clean" or row["budget"] == budget):
            points += _points(f"accuracy.{_split(row)}{row['attack']}", row, "accuracy")
    for row in read_json(state.folder / HEADLINE):
        if row["metric"] in report["metrics"]:
            points += _points(row["metric"], row, "mean")
    return points


def history(state: PipelineState, epsilon: str, seed: int) -> list[Point]:
    """The training curves of one network."""
    epochs = read_json(state.folder / cell(MODELS, epsilon, seed) / HISTORY)
    return [point for epoch in epochs for point in epoch_points(epoch)]


def results(state: PipelineState, epsilon: str, seed: int) -> dict[str, float]:
    """Accuracies by split, attack, norm and budget with Wilson's intervals, mean scores and the gate of one network.

    NaN scores are left out of the means; `gate/sound` is 1 or 0, and missing where no gate was run.
    """
    found: dict[str, float] = {}
    for row in read_json(state.folder / NETWORKS):
        if (row["epsilon"], row["seed"]) == (float(epsilon), seed):
            name = _accuracy_name(row)
            found[f"accuracy/{name}"] = row["accuracy"]
            found |= {f"accuracy_{bound}/{name}": row[bound] for bound in BOUNDS}
    gate = state.folder / cell(ATTACKS, epsilon, seed) / GATE
    if gate.exists():
        found["gate/sound"] = float(read_json(gate)["sound"])
    scores = read_rows(state.folder / cell(SCORES, epsilon, seed) / ROWS).to_pandas()
    means = scores.groupby(["attribution", "metric"])["score"].mean()
    return found | {f"{attribution}/{metric}": float(mean) for (attribution, metric), mean in means.items()}


def _accuracy_name(row: Row) -> str:
    at = "" if row["attack"] == "clean" else f".{row['norm']}.{row['budget']:g}"
    return f"{_split(row)}{row['attack']}{at}"


def _points(name: str, row: Row, value: str) -> list[Point]:
    """One value and the ends of its interval; what is undefined (null) is left out."""
    found = {f"by_epsilon/{name}": row[value]} | {f"by_epsilon_{bound}/{name}": row[bound] for bound in BOUNDS}
    return [(column, float(number), _step(row["epsilon"])) for column, number in found.items() if number is not None]


def _split(row: Row) -> str:
    """Nothing for the test split: a column of MLflow's table has room for some fifteen letters."""
    return "" if row["split"] == "test" else f"{row['split']}."


def _step(epsilon: float) -> int:
    return round(STEPS * epsilon)


def _epsilons(state: PipelineState) -> Sequence[str]:
    return list(dict.fromkeys(epsilon for epsilon, _ in state.grid))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
