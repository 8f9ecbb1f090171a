"""The flat tables of a study (lists of dicts, ready for JSON and for `dvc plots`), and its few headline scalars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from epsilens.reporting.config import ReportConfig
from epsilens.reporting.statistics import Cube, Estimates, cube, estimate, image_sets

Row = dict[str, Any]
History = Sequence[Mapping[str, Any]]

DIGITS = 6  # of the tables: what a different order of summation changes is below


def accuracy_table(attacks: pd.DataFrame, config: ReportConfig) -> list[Row]:
    """One row a training epsilon, split, attack and attack budget: accuracy over all attacked images of the split.

    Accuracy is in [0, 1]; `difference` is from the smallest training epsilon; intervals are percentile bootstrap.
    """
    keys = ["split", "attack", "budget"]
    rows: list[Row] = []
    for _, part in sorted(attacks.groupby(keys), key=lambda item: _order(item[0])):
        found = cube(part, keys, "correct")
        estimates = _estimate(found, ~np.isnan(found.values[..., 0]), config)
        rows += _rows(found, estimates, keys)
    return [_renamed(row, n="n_images", mean="accuracy") for row in rows]


def network_accuracies(attacks: pd.DataFrame) -> list[Row]:
    """One row a network (training epsilon and seed), split, attack and attack budget: its accuracy in [0, 1]."""
    keys = ["epsilon", "seed", "split", "attack", "budget"]
    groups: Any = attacks.groupby(keys)  # the stubs take the keys of groups for scalars
    return [
        {"epsilon": float(epsilon), "seed": int(seed), "split": split, "attack": attack, "budget": float(budget)}
        | {"accuracy": float(part["correct"].mean())}
        for (epsilon, seed, split, attack, budget), part in groups
    ]


def quality_table(scores: pd.DataFrame, config: ReportConfig) -> list[Row]:
    """One row a set of images, training epsilon, attribution and metric; see `image_sets` for the sets.

    `n` counts the images with a defined score, `nan` the undefined scores of all seeds together.
    """
    keys = ["attribution", "metric"]
    found = cube(scores, keys, "score")
    verdicts = scores[["epsilon", "seed", "image", "correct"]].drop_duplicates().assign(all="")
    sets = image_sets(cube(verdicts, ["all"], "correct").values[..., 0])
    rows: list[Row] = []
    for name, members in sets.items():
        rows += [{"set": name} | row for row in _rows(found, _estimate(found, members, config), keys)]
    return rows


def curves_table(histories: Mapping[tuple[float, int], History]) -> list[Row]:
    """One row a training epsilon, seed and epoch, with whatever the training recorded."""
    return [
        {"epsilon": float(epsilon), "seed": int(seed)} | dict(entry)
        for (epsilon, seed), history in sorted(histories.items())
        for entry in history
    ]


def summary(accuracy: Sequence[Row], quality: Sequence[Row], config: ReportConfig, budget: float) -> dict[str, Any]:
    """At most 12 scalars for `dvc exp show`: clean and PGD accuracy and the headline metrics, of two networks.

    standard is the smallest training epsilon, robust the largest; a study of one epsilon has only one of them.
    Metrics are those of the headline attribution on the commonly correct images.
    """
    columns = {
        "clean": _values(accuracy, "accuracy", split="test", attack="clean"),
        "pgd": _values(accuracy, "accuracy", split="test", attack="pgd", budget=budget),
    }
    for metric in config.metrics:
        chosen = {"attribution": config.attribution, "metric": metric, "set": "common"}
        columns[metric] = _values(quality, "mean", **chosen)
    return {name: _ends(values) for name, values in columns.items() if values}


def select(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    """The rows that have all the wanted values."""
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def _order(key: Any) -> tuple[bool, str, bool, str, float]:
    """The test split first, clean before attacked, then by budget."""
    split, attack, budget = key
    return split != "test", split, attack != "clean", attack, budget


def _estimate(found: Cube, members: np.ndarray, config: ReportConfig) -> Estimates:
    return estimate(found.values, members, samples=config.bootstrap, seed=config.seed, confidence=config.confidence)


def _rows(found: Cube, estimates: Estimates, keys: Sequence[str]) -> list[Row]:
    arrays = asdict(estimates)
    return [
        {"epsilon": epsilon}
        | dict(zip(keys, column, strict=True))
        | {name: _number(array[e, k]) for name, array in arrays.items()}
        | {"n_seeds": len(found.seeds)}
        for k, column in enumerate(found.columns)
        for e, epsilon in enumerate(found.epsilons)
    ]


def _number(value: Any) -> float | int:
    return int(value) if isinstance(value, np.integer) else round(float(value), DIGITS)


def _renamed(row: Row, **names: str) -> Row:
    return {names.get(key, key): value for key, value in row.items() if key != "nan"}


def _values(rows: Sequence[Row], value: str, **wanted: Any) -> dict[float, float]:
    return {row["epsilon"]: row[value] for row in select(rows, **wanted)}


def _ends(values: Mapping[float, float]) -> dict[str, float]:
    smallest, largest = min(values), max(values)
    ends = {"standard": values[smallest], "robust": values[largest]}
    if smallest == largest:
        ends.pop("robust" if smallest == 0 else "standard")
    return {name: round(value, 4) for name, value in ends.items()}
