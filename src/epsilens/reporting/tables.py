"""The flat tables of a study (lists of dicts, ready for JSON and for `dvc plots`), and its few headline scalars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from epsilens.reporting.config import ReportConfig
from epsilens.reporting.gate import ENSEMBLES, Row, Selection
from epsilens.reporting.statistics import Cube, Estimates, cube, estimate, image_sets, wilson, with_width

History = Sequence[Mapping[str, Any]]

DIGITS = 6  # of the tables: what a different order of summation changes is below
SCALARS = 12  # of the summary: what `dvc exp show` has room for


def accuracy_table(attacks: pd.DataFrame, config: ReportConfig) -> list[Row]:
    """One row a training epsilon, split, attack, norm and attack budget: accuracy over all attacked images of the split.

    Accuracy is in [0, 1]; `difference` is from the smallest training epsilon; intervals end where accuracies do, and have
    a width where all images are alike.
    """
    keys = ["split", "attack", "norm", "budget"]
    rows: list[Row] = []
    for _, part in sorted(attacks.groupby(keys), key=lambda item: _order(item[0])):
        found = cube(part, keys, "correct")
        estimates = _estimate(found, ~np.isnan(found.values[..., 0]), config)
        trained = np.array(found.n_seeds)[:, None]
        rows += _rows(found, with_width(estimates, estimates.n, trained, confidence=config.confidence), keys)
    return [_renamed(row, n="n_images", mean="accuracy") for row in rows]


def network_accuracies(attacks: pd.DataFrame, config: ReportConfig, chosen: Selection) -> list[Row]:
    """One row a network (training epsilon and seed), split, attack, norm and attack budget: its accuracy in [0, 1].

    Networks that did not pass the gate are here too: `gate` is its verdict. `low` and `high` are Wilson's interval: of
    this very network, over images.
    """
    keys = ["epsilon", "seed", "split", "attack", "norm", "budget"]
    groups: Any = attacks.groupby(keys)["correct"].agg(["sum", "size"])
    ordered = sorted(groups.itertuples(name=None), key=lambda item: (*item[0][:2], *_order(item[0][2:])))
    return [_network(names, int(right), int(images), config, chosen) for names, right, images in ordered]


def _network(names: Any, right: int, images: int, config: ReportConfig, chosen: Selection) -> Row:
    epsilon, seed, split, attack, norm, budget = names
    low, high = map(rounded, wilson(right, images, config.confidence))
    network = {"epsilon": float(epsilon), "seed": int(seed)}
    kind = {"split": split, "attack": attack, "norm": norm, "budget": float(budget)}
    found = {"accuracy": round(right / images, DIGITS), "low": low, "high": high, "n_images": images}
    return network | kind | found | {"gate": chosen.verdict((float(epsilon), int(seed)))}


def quality_table(scores: pd.DataFrame, config: ReportConfig) -> list[Row]:
    """One row a set of images, training epsilon, attribution and metric; see `image_sets` for the sets.

    `n` counts the images with a defined score, `nan` the undefined scores of all seeds together.
    """
    keys = ["attribution", "metric"]
    found = cube(scores, keys, "score")
    sets = image_sets(correctness(scores))
    rows: list[Row] = []
    for name, members in sets.items():
        rows += [{"set": name} | row for row in _rows(found, _estimate(found, members, config), keys)]
    return rows


def correctness(scores: pd.DataFrame) -> np.ndarray:
    """Whether each network gets each image right, [E, S, N]: 1, 0, NaN where it did not see it."""
    verdicts = scores[["epsilon", "seed", "image", "correct"]].drop_duplicates().assign(all="")
    return cube(verdicts, ["all"], "correct").values[..., 0]


def headline_table(quality: Sequence[Row], facts: Mapping[str, Any], config: ReportConfig) -> list[Row]:
    """Of `quality`, the headline attribution on the common images: what is drawn and compared between experiments.

    The headline metrics come first. `better` is the metric's direction, None where it has none.
    """
    keys = ("metric", "attribution", "epsilon", "mean", "low", "high", "n", "n_seeds")
    chosen = select(quality, set="common", attribution=config.attribution)
    found = list(dict.fromkeys([*config.metrics, *(row["metric"] for row in chosen)]))
    ordered = [row for metric in found for row in select(chosen, metric=metric)]
    return [{key: row[key] for key in keys} | {"better": facts["metrics"][row["metric"]]["better"]} for row in ordered]


def curves_table(histories: Mapping[tuple[float, int], History]) -> list[Row]:
    """One row a training epsilon, seed and epoch, with whatever the training recorded."""
    return [
        {"epsilon": float(epsilon), "seed": int(seed)} | dict(entry)
        for (epsilon, seed), history in sorted(histories.items())
        for entry in history
    ]


def at_headline(rows: Sequence[Row], *, norm: str, budget: float) -> list[Row]:
    """The rows of accuracies that headlines are made of: clean, and each attack in this norm at this budget."""
    return [row for row in rows if row["norm"] == norm and (row["attack"] == "clean" or row["budget"] == budget)]


def summary(
    accuracy: Sequence[Row], quality: Sequence[Row], config: ReportConfig, *, norm: str, budget: float
) -> dict[str, Any]:
    """At most 12 scalars for `dvc exp show`: accuracy clean, under PGD and under AutoAttack (`ensemble` where it is another
    set of attacks or other numbers), and the headline metrics, of two networks.

    standard is the smallest training epsilon, robust the largest; a study of one epsilon has only one of them.
    Metrics are those of the headline attribution on the commonly correct images. Where that is more than 12, accuracies
    under attack are of the robust network alone.
    """
    reached = at_headline(accuracy, norm=norm, budget=budget)
    columns = {name: _values(reached, "accuracy", split="test", attack=name) for name in ("clean", "pgd", *ENSEMBLES)}
    for metric in config.metrics:
        chosen = {"attribution": config.attribution, "metric": metric, "set": "common"}
        columns[metric] = _values(quality, "mean", **chosen)
    found = {name: _ends(values) for name, values in columns.items() if values}
    return found if sum(map(len, found.values())) <= SCALARS else _without_attacked_standard(found)


def _without_attacked_standard(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    attacked = ("pgd", *ENSEMBLES)
    return {
        name: {"robust": ends["robust"]} if name in attacked and "robust" in ends else ends
        for name, ends in found.items()
    }


def select(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    """The rows that have all the wanted values."""
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def _order(key: Any) -> tuple[bool, str, int, str, str, float]:
    """The test split first, clean, PGD and the ensemble before other attacks, then by norm and budget."""
    split, attack, norm, budget = key
    first = ("clean", "pgd", *ENSEMBLES)
    return split != "test", split, first.index(attack) if attack in first else len(first), attack, norm, budget


def _estimate(found: Cube, members: np.ndarray, config: ReportConfig) -> Estimates:
    return estimate(found.values, members, samples=config.bootstrap, seed=config.seed, confidence=config.confidence)


def _rows(found: Cube, estimates: Estimates, keys: Sequence[str]) -> list[Row]:
    arrays = asdict(estimates)
    return [
        {"epsilon": epsilon}
        | dict(zip(keys, column, strict=True))
        | {name: rounded(array[e, k]) for name, array in arrays.items()}
        | {"n_seeds": found.n_seeds[e]}
        for k, column in enumerate(found.columns)
        for e, epsilon in enumerate(found.epsilons)
    ]


def rounded(value: Any) -> float | int:
    """A number of a table: counts as they are, others with DIGITS decimals."""
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
