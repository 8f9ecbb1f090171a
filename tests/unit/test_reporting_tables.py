import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from epsilens.errors import DataError
from epsilens.reporting.gate import selection
from epsilens.reporting.statistics import wilson
from epsilens.reporting.tables import (
    accuracy_table,
    curves_table,
    headline_table,
    network_accuracies,
    quality_table,
    select,
    summary,
)
from tests.options import report_config

PLAUSIBLE = ("gini", "sensitivity", "mass", "random")
CONFIG = report_config(
    attribution="gradient", metrics=("gini", "mass"), bootstrap=400, seed=1, confidence=0.9, plausible=PLAUSIBLE
)


def attack_rows(epsilon, seed, split, attack, budget, correct, norm="linf"):
    return [
        {"epsilon": epsilon, "seed": seed, "split": split, "image": 7 * i, "attack": attack, "norm": norm,
         "budget": budget, "correct": bool(c), "margin": c - 0.5}
        for i, c in enumerate(correct)
    ]  # fmt: skip


ATTACKS = pd.DataFrame(
    attack_rows(8.0, 1, "test", "pgd", 8.0, [1, 0, 0, 1])
    + attack_rows(8.0, 0, "test", "pgd", 8.0, [1, 1, 1, 1])
    + attack_rows(0.0, 0, "test", "pgd", 8.0, [0, 0, 0, 1])
    + attack_rows(0.0, 1, "test", "pgd", 8.0, [0, 0, 0, 0])
    + attack_rows(8.0, 0, "test", "autoattack", 8.0, [1, 0])
    + attack_rows(8.0, 1, "test", "autoattack", 8.0, [0, 0])
    + attack_rows(0.0, 1, "test", "autoattack", 8.0, [0, 0])
    + attack_rows(0.0, 0, "test", "autoattack", 8.0, [0, 0])
    + attack_rows(8.0, 0, "test", "pgd", 8.0, [0, 0, 1, 0], "l2")
    + attack_rows(8.0, 1, "test", "pgd", 8.0, [0, 0, 0, 0], "l2")
    + attack_rows(0.0, 0, "test", "pgd", 8.0, [0, 0, 0, 0], "l2")
    + attack_rows(0.0, 1, "test", "pgd", 8.0, [0, 0, 0, 0], "l2")
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
HEADLINE = {"norm": "linf", "budget": 8.0}
UNEXAMINED = selection(SCORES, {})


def test_an_accuracy_of_none_or_all_has_wilsons_interval_over_images():
    [row] = select(accuracy_table(ATTACKS, CONFIG), attack="autoattack", epsilon=0.0)
    assert (row["accuracy"], row["low"]) == (0.0, 0.0)
    assert row["high"] == pytest.approx(binomtest(0, 2).proportion_ci(0.9, method="wilson").high, abs=1e-6)


def test_intervals_of_accuracies_end_where_accuracies_do():
    """Two seeds at .5 and 1.0: Student's t with one degree of freedom reaches beyond."""
    rows = accuracy_table(ATTACKS, CONFIG)
    (row,) = select(rows, epsilon=8.0, split="test", attack="pgd", norm="linf", budget=8.0)
    assert (row["low"], row["high"], row["difference_high"]) == (0, 1, 1)
    assert row["difference_low"] >= -1
    found = accuracy_table(ATTACKS[ATTACKS["epsilon"] == 8.0], CONFIG)
    assert {row["difference_low"] for row in found} == {0}


def test_accuracy_is_the_mean_of_the_networks_with_its_spread():
    rows = accuracy_table(ATTACKS, CONFIG)
    (row,) = select(rows, epsilon=8.0, split="test", attack="pgd", norm="linf", budget=8.0)
    assert row["accuracy"] == 0.75
    assert (row["seed_min"], row["seed_max"]) == (0.5, 1.0)
    assert (row["n_images"], row["n_seeds"]) == (4, 2)
    assert row["difference"] == pytest.approx(0.75 - 0.125)
    assert row["low"] <= 0.75 <= row["high"]
    assert set(row) == {
        "epsilon", "split", "attack", "norm", "budget", "accuracy", "low", "high", "difference", "difference_low",
        "difference_high", "seed_min", "seed_max", "n_images", "n_seeds",
    }  # fmt: skip
    (other,) = select(rows, epsilon=8.0, split="test", attack="pgd", norm="l2", budget=8.0)
    assert other["accuracy"] == 0.125


def test_accuracy_rows_are_ordered_test_first_and_clean_first():
    rows = accuracy_table(ATTACKS, CONFIG)
    kinds = list(dict.fromkeys((row["split"], row["attack"], row["norm"]) for row in rows))
    test = [("test", "clean", "linf"), ("test", "pgd", "l2"), ("test", "pgd", "linf"), ("test", "autoattack", "linf")]
    assert kinds == [*test, ("other", "clean", "linf")]
    assert [row["epsilon"] for row in rows] == [0.0, 8.0] * 5


def test_networks_one_by_one():
    rows = network_accuracies(ATTACKS, CONFIG, UNEXAMINED)
    (row,) = select(rows, epsilon=8.0, seed=1, split="test", attack="clean")
    low, high = wilson(4, 5, 0.9)
    assert row == {"epsilon": 8.0, "seed": 1, "split": "test", "attack": "clean", "norm": "linf", "budget": 0.0,
                   "accuracy": 0.8, "low": pytest.approx(low, abs=1e-6), "high": pytest.approx(high, abs=1e-6),
                   "n_images": 5, "gate": "not run"}  # fmt: skip
    norms = {row["norm"]: row["accuracy"] for row in select(rows, epsilon=8.0, seed=0, attack="pgd", budget=8.0)}
    assert norms == {"l2": 0.25, "linf": 1.0}
    assert [(row["attack"], row["norm"]) for row in select(rows, epsilon=8.0, seed=0, split="test")] == [
        ("clean", "linf"), ("pgd", "l2"), ("pgd", "linf"), ("autoattack", "linf")
    ]  # fmt: skip


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


def test_the_headline_table_is_the_headline_attribution_on_the_common_images():
    quality = quality_table(SCORES, CONFIG)
    facts = {"metrics": {"gini": {"better": "higher"}, "mass": {"better": None}}}
    rows = headline_table(quality, facts, CONFIG.model_copy(update={"metrics": ("mass",)}))
    assert [(row["metric"], row["epsilon"], row["better"]) for row in rows] == [
        ("mass", 0.0, None), ("mass", 8.0, None), ("gini", 0.0, "higher"), ("gini", 8.0, "higher"),
    ]  # fmt: skip
    wanted = select(quality, set="common", attribution="gradient", metric="gini")
    assert [(row["mean"], row["low"], row["high"], row["n"]) for row in rows[2:]] == [
        (row["mean"], row["low"], row["high"], row["n"]) for row in wanted
    ]


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
    found = summary(accuracy_table(ATTACKS, CONFIG), quality_table(SCORES, CONFIG), CONFIG, **HEADLINE)
    assert found["clean"] == {"standard": 1.0, "robust": 0.9}
    assert found["pgd"] == {"standard": 0.125, "robust": 0.75}
    assert found["autoattack"] == {"standard": 0.0, "robust": 0.25}
    assert found["gini"] == {"standard": 0.2, "robust": 0.7}
    assert math.isnan(found["mass"]["robust"])
    assert sum(map(len, found.values())) <= 12


@pytest.mark.parametrize(("epsilon", "name"), [(0.0, "standard"), (8.0, "robust")])
def test_summary_of_one_epsilon_does_not_call_it_both(epsilon, name):
    attacks, scores = ATTACKS[ATTACKS["epsilon"] == epsilon], SCORES[SCORES["epsilon"] == epsilon]
    found = summary(accuracy_table(attacks, CONFIG), quality_table(scores, CONFIG), CONFIG, **HEADLINE)
    assert {tuple(ends) for ends in found.values()} == {(name,)}


def test_summary_leaves_out_an_attack_that_did_not_run():
    tables = accuracy_table(ATTACKS, CONFIG), quality_table(SCORES, CONFIG)
    assert not {"pgd", "autoattack"} & set(summary(*tables, CONFIG, norm="linf", budget=4.0))


def test_summary_takes_the_headline_norm():
    tables = accuracy_table(ATTACKS, CONFIG), quality_table(SCORES, CONFIG)
    found = summary(*tables, CONFIG, norm="l2", budget=8.0)
    assert found["pgd"] == {"standard": 0.0, "robust": 0.125}
    assert "autoattack" not in found


def test_a_summary_of_more_than_12_scalars_does_without_the_standard_network_under_attack():
    names = ("gini", "mass", "third", "fourth")
    scores = pd.concat([SCORES, *(SCORES.assign(metric=name)[:12] for name in names[2:])]).drop_duplicates(
        ["epsilon", "seed", "image", "metric"]
    )
    tables = accuracy_table(ATTACKS, CONFIG), quality_table(scores, CONFIG)
    found = summary(*tables, CONFIG.model_copy(update={"metrics": names}), **HEADLINE)
    assert (found["pgd"], found["autoattack"]) == ({"robust": 0.75}, {"robust": 0.25})
    assert found["clean"] == {"standard": 1.0, "robust": 0.9}
    assert set(found) == {"clean", "pgd", "autoattack", *names}
    assert sum(map(len, found.values())) == 12
    three = summary(*tables, CONFIG.model_copy(update={"metrics": names[:3]}), **HEADLINE)
    assert three["pgd"] == {"standard": 0.125, "robust": 0.75}
    assert sum(map(len, three.values())) == 12


def test_curves_are_flat_and_ordered():
    rows = curves_table(
        {(8.0, 1): [{"epoch": 0, "loss": 2.0}], (0.0, 0): [{"epoch": 0, "loss": 1.0}, {"epoch": 1, "loss": 0.5}]}
    )
    assert rows[0] == {"epsilon": 0.0, "seed": 0, "epoch": 0, "loss": 1.0}
    assert [(row["epsilon"], row["epoch"]) for row in rows] == [(0.0, 0), (0.0, 1), (8.0, 0)]


def test_an_ensemble_that_is_not_autoattack_is_called_so_in_the_summary():
    attacks = ATTACKS.replace({"attack": {"autoattack": "ensemble"}})
    found = summary(accuracy_table(attacks, CONFIG), quality_table(SCORES, CONFIG), CONFIG, **HEADLINE)
    assert found["ensemble"] == {"standard": 0.0, "robust": 0.25}
    assert "autoattack" not in found
