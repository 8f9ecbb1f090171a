import math

import numpy as np
import pandas as pd
import pytest

from epsilens.errors import DataError
from epsilens.reporting.config import ReportConfig
from epsilens.reporting.tables import (
    accuracy_table,
    curves_table,
    network_accuracies,
    quality_table,
    select,
    summary,
)

CONFIG = ReportConfig(attribution="gradient", metrics=("gini", "mass"), bootstrap=400, seed=1, confidence=0.9)


def attack_rows(epsilon, seed, split, attack, budget, correct):
    return [
        {"epsilon": epsilon, "seed": seed, "split": split, "image": 7 * i, "attack": attack, "budget": budget,
         "correct": bool(c), "margin": c - 0.5}
        for i, c in enumerate(correct)
    ]  # fmt: skip


ATTACKS = pd.DataFrame(
    attack_rows(8.0, 1, "test", "pgd", 8.0, [1, 0, 0, 1])
    + attack_rows(8.0, 0, "test", "pgd", 8.0, [1, 1, 1, 1])
    + attack_rows(0.0, 0, "test", "pgd", 8.0, [0, 0, 0, 1])
    + attack_rows(0.0, 1, "test", "pgd", 8.0, [0, 0, 0, 0])
    + attack_rows(8.0, 0, "other", "clean", 0.0, [1, 1])
    + attack_rows(8.0, 1, "other", "clean", 0.0, [1, 0])
    + attack_rows(0.0, 0, "other", "clean", 0.0, [0, 0])
    + attack_rows(0.0, 1, "other", "clean", 0.0, [0, 0])
    + attack_rows(8.0, 0, "test", "clean", 0.0, [1, 1, 1, 1, 1])
    + attack_rows(8.0, 1, "test", "clean", 0.0, [1, 1, 1, 1, 0])
    + attack_rows(0.0, 0, "test", "clean", 0.0, [1, 1, 1, 1, 1])
    + attack_rows(0.0, 1, "test", "clean", 0.0, [1, 1, 1, 1, 1])
)


def score_rows():
    correct = {(0.0, 0): [1, 1, 0], (0.0, 1): [1, 1, 1], (8.0, 0): [1, 1, 1], (8.0, 1): [1, 0, 1]}
    gini = {(0.0, 0): [0.1, 0.5, -3], (0.0, 1): [0.3, 0.7, 0.2], (8.0, 0): [0.6, 9, 9], (8.0, 1): [0.8, 9, np.nan]}
    for (epsilon, seed), scores in gini.items():
        for image, score in enumerate(scores):
            known = {"epsilon": epsilon, "seed": seed, "image": image, "correct": bool(correct[epsilon, seed][image])}
            yield known | {"attribution": "gradient", "metric": "gini", "score": score}
            yield known | {"attribution": "gradient", "metric": "mass", "score": np.nan}


SCORES = pd.DataFrame(score_rows())


def test_accuracy_is_the_mean_of_the_networks_with_its_spread():
    rows = accuracy_table(ATTACKS, CONFIG)
    (row,) = select(rows, epsilon=8.0, split="test", attack="pgd", budget=8.0)
    assert row["accuracy"] == 0.75
    assert (row["seed_min"], row["seed_max"]) == (0.5, 1.0)
    assert (row["n_images"], row["n_seeds"]) == (4, 2)
    assert row["difference"] == pytest.approx(0.75 - 0.125)
    assert row["low"] <= 0.75 <= row["high"]
    assert set(row) == {
        "epsilon", "split", "attack", "budget", "accuracy", "low", "high", "difference", "difference_low",
        "difference_high", "seed_min", "seed_max", "n_images", "n_seeds",
    }  # fmt: skip


def test_accuracy_rows_are_ordered_test_first_and_clean_first():
    rows = accuracy_table(ATTACKS, CONFIG)
    kinds = list(dict.fromkeys((row["split"], row["attack"]) for row in rows))
    assert kinds == [("test", "clean"), ("test", "pgd"), ("other", "clean")]
    assert [row["epsilon"] for row in rows] == [0.0, 8.0] * 3


def test_networks_one_by_one():
    (row,) = select(network_accuracies(ATTACKS), epsilon=8.0, seed=1, split="test", attack="clean")
    assert row == {"epsilon": 8.0, "seed": 1, "split": "test", "attack": "clean", "budget": 0.0, "accuracy": 0.8}


def test_quality_on_the_three_sets():
    rows = quality_table(SCORES, CONFIG)
    found = {(r["set"], r["epsilon"]): r for r in select(rows, metric="gini")}
    assert found["common", 0.0]["mean"] == pytest.approx((0.1 + 0.3) / 2)
    assert found["common", 8.0]["mean"] == pytest.approx((0.6 + 0.8) / 2)
    assert found["common", 8.0]["difference"] == pytest.approx(0.5)
    assert found["common", 8.0]["n"] == 1
    assert found["all", 0.0]["mean"] == pytest.approx(((0.1 + 0.5 - 3) / 3 + 0.4) / 2)
    assert found["own", 0.0]["mean"] == pytest.approx((0.3 + 0.4) / 2)
    assert found["own", 8.0]["mean"] == pytest.approx((6.2 + 0.8) / 2)
    assert (found["own", 8.0]["n"], found["own", 8.0]["nan"]) == (3, 1)
    assert (found["all", 8.0]["n"], found["all", 8.0]["nan"]) == (3, 1)


def test_a_metric_without_any_score_is_nan_and_counted():
    (row,) = select(quality_table(SCORES, CONFIG), metric="mass", set="all", epsilon=0.0)
    assert all(math.isnan(row[key]) for key in ("mean", "low", "high", "difference", "seed_min"))
    assert (row["n"], row["nan"]) == (0, 6)


def test_a_network_that_is_right_and_wrong_on_one_image_is_an_error():
    twisted = SCORES.copy()
    twisted.loc[0, "correct"] = not twisted.loc[0, "correct"]
    with pytest.raises(DataError, match="correct: two rows"):
        quality_table(twisted, CONFIG)


def test_summary_is_few_rounded_scalars():
    found = summary(accuracy_table(ATTACKS, CONFIG), quality_table(SCORES, CONFIG), CONFIG, 8.0)
    assert found["clean"] == {"standard": 1.0, "robust": 0.9}
    assert found["pgd"] == {"standard": 0.125, "robust": 0.75}
    assert found["gini"] == {"standard": 0.2, "robust": 0.7}
    assert math.isnan(found["mass"]["robust"])
    assert sum(map(len, found.values())) <= 12


@pytest.mark.parametrize(("epsilon", "name"), [(0.0, "standard"), (8.0, "robust")])
def test_summary_of_one_epsilon_does_not_call_it_both(epsilon, name):
    attacks, scores = ATTACKS[ATTACKS["epsilon"] == epsilon], SCORES[SCORES["epsilon"] == epsilon]
    found = summary(accuracy_table(attacks, CONFIG), quality_table(scores, CONFIG), CONFIG, 8.0)
    assert {tuple(ends) for ends in found.values()} == {(name,)}


def test_summary_leaves_out_an_attack_that_did_not_run():
    assert "pgd" not in summary(accuracy_table(ATTACKS, CONFIG), quality_table(SCORES, CONFIG), CONFIG, 4.0)


def test_curves_are_flat_and_ordered():
    rows = curves_table(
        {(8.0, 1): [{"epoch": 0, "loss": 2.0}], (0.0, 0): [{"epoch": 0, "loss": 1.0}, {"epoch": 1, "loss": 0.5}]}
    )
    assert rows[0] == {"epsilon": 0.0, "seed": 0, "epoch": 0, "loss": 1.0}
    assert [(row["epsilon"], row["epoch"]) for row in rows] == [(0.0, 0), (0.0, 1), (8.0, 0)]
