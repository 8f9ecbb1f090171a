"""Verdicts on made-up studies whose truth is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from epsilens.config import section
from epsilens.reporting.choice import choice_table
from epsilens.reporting.claims import CLAIMS, TWO_EPSILONS, claims_table
from epsilens.reporting.config import ReportConfig
from epsilens.reporting.findings import ALIKE, NO_SHARED_SEED, ONE_IMAGE
from epsilens.reporting.multiplicity import holm
from epsilens.reporting.plausible import AUROC, RATES
from epsilens.reporting.samples import samples
from epsilens.reporting.tables import select
from tests.options import CLAIMS as CLAIMS_CONFIG

EPSILONS = (0.0, 1.0, 4.0, 8.0)
FACTS = {
    "metrics": {
        "gini": {"better": "higher"},
        "direction_sensitivity": {"better": "lower"},
        "relevance_mass_corrected": {"better": "higher"},
    },
    "attributions": {"gradient": {"kind": "method"}, "smoothgrad": {"kind": "method"}, "random": {"kind": "control"}},
}
CONFIG = {
    "attribution": "gradient",
    "metrics": ["gini", "direction_sensitivity", "relevance_mass_corrected"],
    "bootstrap": 1000,
    "seed": 0,
    "confidence": 0.95,
    "plausible": {
        "conciseness": "gini",
        "stability": "direction_sensitivity",
        "relevance": "relevance_mass_corrected",
        "control": "random",
    },
    "claims": CLAIMS_CONFIG,
    "recommend": {"metric": "direction_sensitivity", "gain": 0.1, "accuracy_loss": 0.1},
}
FLAT = (0.0, 0.0, 0.0, 0.0)
NOTHING = {"gini": FLAT, "direction_sensitivity": FLAT, "relevance_mass_corrected": FLAT, "accuracy": FLAT}
AS_CLAIMED = {
    "gini": (0, 0.2, 0.25, 0.3),
    "direction_sensitivity": (0, -0.2, -0.25, -0.3),
    "relevance_mass_corrected": FLAT,
    "accuracy": (0, -0.05, -0.2, -0.4),
}
OPPOSITE = {
    "gini": (0, -0.1, -0.2, -0.3),
    "direction_sensitivity": (0, 0.1, 0.2, 0.3),
    "relevance_mass_corrected": (0, 0.1, 0.2, 0.3),
    "accuracy": (0, 0.0, 0.01, 0.02),
}


def config(**changes: Any) -> ReportConfig:
    return section({"report": CONFIG | changes}, "report", ReportConfig)


def study(
    means: dict[str, Any], seeds: int, images: int = 40, spread: float = 0.01
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Attacks and scores whose true means over epsilon, less that at 0, are given; spread: between seeds and images."""
    rng = np.random.default_rng(0)
    scores, attacks = [], []
    for e, epsilon in enumerate(EPSILONS):
        for seed in range(seeds):
            own = rng.normal(0, spread)
            names = {"epsilon": epsilon, "seed": seed}
            for metric in FACTS["metrics"]:
                for method in FACTS["attributions"]:
                    value = 0.5 + means[metric][e] + own + rng.normal(0, spread, images)
                    table = {"image": range(images), "correct": True, "attribution": method, "metric": metric}
                    scores.append(pd.DataFrame(names | table | {"score": value}))
            right = np.arange(200) < round(200 * (0.9 + means["accuracy"][e]))
            kind = {"split": "test", "attack": "clean", "norm": "linf", "budget": 0.0}
            attacks.append(pd.DataFrame(names | kind | {"image": range(200), "correct": right}))
    return pd.concat(attacks, ignore_index=True), pd.concat(scores, ignore_index=True)


def recommended(rows: list[dict[str, Any]]) -> list[float]:
    return [row["epsilon"] for row in rows if row["recommended"]]


def plausible(mean: float, low: float, high: float, measure: str, seeds: int = 3) -> list[dict[str, Any]]:
    row = {"attribution": "gradient", "set": "all", "measure": measure, "epsilon": 8.0, "n": 40, "n_seeds": seeds}
    return [row | {"mean": mean, "low": low, "high": high}]


def claims(means: dict[str, Any], seeds: int = 3, rows: Any = (), **options: Any) -> list[dict[str, Any]]:
    return claims_table(samples(*study(means, seeds, **options), FACTS, config()), list(rows), config())


def verdicts(table: list[dict[str, Any]], scope: str, attribution: str = "gradient") -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in table:
        if row["scope"] == scope and row["attribution"] in ("", attribution):
            found.setdefault(row["claim"], set()).add(row["verdict"])
    return found


@pytest.mark.parametrize("scope", ["training", "these networks"])
def test_a_study_that_is_as_claimed(scope: str) -> None:
    found = verdicts(claims(AS_CLAIMED), scope)
    expected = {"more concise", "more stable", "not more relevant", "modest training helps", "costs accuracy"}
    assert found == {claim: {"supported"} for claim in expected}


@pytest.mark.parametrize("scope", ["training", "these networks"])
def test_a_study_that_is_the_opposite(scope: str) -> None:
    found = verdicts(claims(OPPOSITE), scope)
    assert found.pop("modest training helps") == {"contradicted"}  # a third of a loss is there, and it is no gain
    expected = {"more concise", "more stable", "not more relevant", "costs accuracy"}
    assert found == {claim: {"contradicted"} for claim in expected}


def test_where_nothing_happens_nothing_is_claimed_but_equivalence() -> None:
    found = verdicts(claims(NOTHING), "training")
    assert found["more concise"] == found["more stable"] == found["modest training helps"] == {"undecided"}
    assert found["not more relevant"] == {"supported"}
    assert found["costs accuracy"] == {"contradicted"}


def test_a_difference_that_is_no_proof_of_equality_is_undecided() -> None:
    """Networks that scatter widely: no clear gain, yet none excluded."""
    found = verdicts(claims(NOTHING, spread=0.2), "training")
    assert found["not more relevant"] == {"undecided"}
    at_once = AS_CLAIMED | {"relevance_mass_corrected": (0, 0.2, 0.2, 0.2)}
    assert verdicts(claims(at_once), "training")["not more relevant"] == {"contradicted"}


def test_one_seed_says_nothing_of_training_and_something_of_these_networks() -> None:
    table = claims(AS_CLAIMED, seeds=1)
    training = [row for row in table if row["scope"] == "training"]
    assert {row["verdict"] for row in training} == {"undecided"}
    assert {row["why"] for row in training} == {"one seed: holds for these networks only"}
    assert verdicts(table, "these networks")["more concise"] == {"supported"}


def test_seeds_that_an_epsilon_between_lacks_count_for_what_compares_others() -> None:
    """Three seeds at 0, 1 and 8, one at 4: no claim compares 4 with anything."""
    whole = study(AS_CLAIMED, 3)
    ragged = (table[(table["epsilon"] != 4) | (table["seed"] == 0)] for table in whole)
    found, complete = (claims_table(samples(*tables, FACTS, config()), [], config()) for tables in (ragged, whole))
    assert {row["n_seeds"] for row in found} == {3}
    same = ("verdict", "estimate", "interval", "p_single", "n")
    assert [[row[key] for key in same] for row in found] == [[row[key] for key in same] for row in complete]
    fewer = (table[(table["epsilon"] != 1) | (table["seed"] == 0)] for table in whole)
    judged = claims_table(samples(*fewer, FACTS, config()), [], config())
    assert {row["verdict"] for row in select(judged, scope="training", claim="modest training helps")} == {"undecided"}
    assert {row["verdict"] for row in select(judged, scope="training", claim="more concise")} == {"supported"}


def test_what_has_one_seed_is_no_test_of_training_and_makes_others_no_harder() -> None:
    """One seed at ε = 1: "modest training helps" cannot be judged; Holm's correction counts the four tests that remain."""
    tables = (t[(t["epsilon"] != 1) | (t["seed"] == 0)] for t in study(AS_CLAIMED, 3, spread=0.04))
    judged = claims_table(samples(*tables, FACTS, config()), [], config())
    judged = select(judged, scope="training", headline=True)
    single = {row["claim"]: row for row in judged if row["n_seeds"] == 1}
    assert list(single) == ["modest training helps"]
    assert all(math.isnan(single["modest training helps"][key]) for key in ("p", "p_single", "smallest_p"))
    assert np.isnan(single["modest training helps"]["interval"]).all()
    tested = [row for row in judged if row["n_seeds"] == 3]
    assert [row["claim"] for row in tested] == ["more concise", "more stable", "not more relevant", "costs accuracy"]
    expected = holm([row["p_single"] for row in tested])
    assert [row["p"] for row in tested] == pytest.approx(list(expected), abs=1e-6)


def test_seeds_that_nothing_shares_are_said_before_that_they_are_few() -> None:
    tables = (t[(t["epsilon"] != 0) ^ (t["seed"] == 0)] for t in study(AS_CLAIMED, 3))
    judged = claims_table(samples(*tables, FACTS, config()), [], config())
    assert {row["why"] for row in select(judged, claim="more concise")} == {NO_SHARED_SEED}


def test_a_gain_that_is_all_there_at_the_first_step_is_a_gain_and_no_trend() -> None:
    step = {**AS_CLAIMED, "direction_sensitivity": (0, -0.36, -0.33, -0.3)}
    for scope in ("training", "these networks"):
        [row] = select(claims(step), claim="more stable", scope=scope, attribution="gradient")
        assert row["verdict"] == "supported"
        assert row["trend"] == pytest.approx(0.0, abs=0.3)
    [row] = select(claims(step), claim="more stable", scope="training", attribution="gradient")
    assert row["trend_p"] > 0.3


def test_so_few_resamples_that_nothing_could_be_significant_are_named() -> None:
    strict = {**CONFIG["claims"], "alpha": 0.001}
    settings = config(claims=strict, bootstrap=1000)  # the smallest two-sided p is 2/1001
    rows = claims_table(samples(*study(AS_CLAIMED, 3), FACTS, settings), [], settings)
    [row] = select(rows, claim="more concise", scope="training", attribution="gradient")
    assert row["verdict"] == "undecided"
    assert row["why"].startswith("no scores could be significant with so few resamples: their smallest p is 0.002")


@pytest.mark.parametrize("scope", ["training", "these networks"])
def test_p_is_corrected_over_the_claims_of_a_method(scope: str) -> None:
    """The cost in accuracy is in the family of the headline method. Without doubt about any claim p is that of the claim for
    it, and the family has six of them with it and five without."""
    table = claims(AS_CLAIMED, spread=0.05)
    assert {row["attribution"] for row in table} == {"", "gradient", "smoothgrad"}  # controls are not judged
    for methods, count in ((("", "gradient"), 6), (("smoothgrad",), 5)):
        rows = [row for row in table if row["attribution"] in methods and row["scope"] == scope]
        singles = np.array([row["p_single"] for row in rows])
        expected = np.minimum(np.maximum.accumulate(np.sort(singles) * np.arange(count, 0, -1)), 1)
        assert np.array([row["p"] for row in rows])[np.argsort(singles, kind="stable")] == pytest.approx(
            expected, abs=1e-5
        )
        trends = [row for row in rows if row["claim"] in ("more concise", "more stable")]
        assert [row["headline"] for row in trends] == [methods != ("smoothgrad",)] * 2


def test_three_seeds_that_all_rise_have_the_trend_and_the_p_of_its_exact_null() -> None:
    for claim in ("more concise", "more stable"):
        [row] = select(claims(AS_CLAIMED), claim=claim, scope="training", attribution="gradient")
        assert row["trend"] == pytest.approx(1)
        assert row["trend_p"] == pytest.approx(2 * 2 / math.factorial(4) ** 3, abs=2e-6)


def test_other_methods_change_nothing_about_the_headline() -> None:
    attacks, scores = study(AS_CLAIMED, 3, spread=0.1)
    alone = scores[scores["attribution"] != "smoothgrad"]
    both, one = (claims_table(samples(attacks, rows, FACTS, config()), [], config()) for rows in (scores, alone))
    assert repr([row for row in both if row["headline"]]) == repr(one)  # NaN is not equal to itself


def test_estimates_are_those_of_the_rows_with_more_is_better() -> None:
    attacks, scores = study(AS_CLAIMED, 3)
    rows = claims_table(samples(attacks, scores, FACTS, config()), [], config())
    for claim, metric, sign in (("more concise", "gini", 1), ("more stable", "direction_sensitivity", -1)):
        own = scores[(scores["metric"] == metric) & (scores["attribution"] == "gradient")]
        means = own.groupby("epsilon")["score"].mean()
        [row] = select(rows, claim=claim, scope="training", attribution="gradient")
        assert row["estimate"] == pytest.approx(sign * (means[8.0] - means[0.0]), abs=1e-6)
        assert row["interval"][0] < row["estimate"] < row["interval"][1]
        pairs = own.pivot_table(index=["seed", "image"], columns="epsilon", values="score")
        gains = sign * (pairs[8.0] - pairs[0.0])
        assert row["improved"] == pytest.approx((gains > 0).mean())
        spread = np.sqrt(np.mean([part.var(ddof=1) for _, part in gains.groupby("seed")]))
        assert row["standardised"] == pytest.approx(gains.mean() / spread * (1 - 3 / (4 * 39 - 1)), rel=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "measure", "verdict"),
    [
        (0.2, 0.4, RATES[1], "supported"),
        (0.0, 0.05, RATES[1], "contradicted"),
        (0.05, 0.2, RATES[1], "undecided"),
        (0.4, 0.55, AUROC, "supported"),
        (0.7, 0.9, AUROC, "contradicted"),
        (0.5, 0.65, AUROC, "undecided"),
    ],
)
def test_rates_are_judged_by_their_interval(low: float, high: float, measure: str, verdict: str) -> None:
    name = "plausible maps mislead" if measure == RATES[1] else "plausibility is blind"
    table = claims(AS_CLAIMED, rows=plausible((low + high) / 2, low, high, measure))
    [row] = select(table, claim=name)
    assert (row["verdict"], row["n"], row["unit"], row["scope"]) == (verdict, 3, "seeds", "training")
    alone = claims(AS_CLAIMED, 1, plausible((low + high) / 2, low, high, measure, seeds=1))
    assert [row["verdict"] for row in select(alone, claim=name)] == ["undecided", verdict]
    assert [(row["n"], row["unit"]) for row in select(alone, claim=name)] == [(40, "images")] * 2


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_networks_that_are_all_alike_say_nothing_of_training(rate: float) -> None:
    """Their interval is of images alone, however many seeds there are: it must not pass for one of training."""
    low, high = (0.0, 0.06) if rate == 0 else (0.94, 1.0)
    training, networks = select(
        claims(AS_CLAIMED, rows=plausible(rate, low, high, RATES[1])), claim="plausible maps mislead"
    )
    assert (training["scope"], training["verdict"], training["why"]) == ("training", "undecided", ALIKE)
    assert np.isnan(training["interval"]).all()
    assert (networks["scope"], networks["verdict"]) == ("these networks", "supported" if rate else "contradicted")
    assert (networks["n"], networks["unit"], networks["interval"]) == (40, "images", [low, high])


def test_undefined_relevance_is_said_to_be_undefined() -> None:
    attacks, scores = study(AS_CLAIMED, 2)
    scores.loc[scores["metric"] == "relevance_mass_corrected", "score"] = np.nan
    rows = claims_table(samples(attacks, scores, FACTS, config()), [], config())
    for row in select(rows, claim="not more relevant"):
        assert row["verdict"] == "undecided"
        assert "no defined score" in row["why"]


def test_one_epsilon_has_no_claims() -> None:
    attacks, scores = study(AS_CLAIMED, 2)
    attacks, scores = (rows[rows["epsilon"] == 0] for rows in (attacks, scores))
    assert claims_table(samples(attacks, scores, FACTS, config()), [], config()) == []


def test_where_the_smallest_epsilon_did_not_pass_the_next_one_is_compared_with() -> None:
    attacks, scores = (rows[rows["epsilon"] > 0] for rows in study(AS_CLAIMED, 3))
    rows = claims_table(samples(attacks, scores, FACTS, config()), [], config())
    assert {row["reference"] for row in rows} == {1.0}
    [row] = select(rows, claim="costs accuracy", scope="training")
    assert (row["epsilon"], row["estimate"]) == (8.0, pytest.approx(-0.35))


def test_every_claim_has_a_sentence() -> None:
    assert all(claim.statement.endswith(".") for claim in CLAIMS.values())


def test_the_recommendation_is_the_smallest_epsilon_that_gains_enough_for_little() -> None:
    found = samples(*study(AS_CLAIMED, 3), FACTS, config())
    rows = choice_table(found, config())
    assert recommended(rows) == [1.0]
    [row] = select(rows, metric="direction_sensitivity", epsilon=1.0)
    assert row["gain"] == pytest.approx(0.2, abs=0.03)
    assert row["loss"] == pytest.approx(0.05)
    assert row["qualifies_share"] > 0.9
    assert {row["recommended"] for row in select(rows, metric="gini")} == {None}
    dear = config(recommend={"metric": "direction_sensitivity", "gain": 0.1, "accuracy_loss": 0.01})
    assert recommended(choice_table(found, dear)) == []
    weak = config(recommend={"metric": "gini", "gain": 0.5, "accuracy_loss": 0.9})
    assert recommended(choice_table(found, weak)) == []


def test_the_front_and_its_knee_are_those_of_the_means() -> None:
    rows = select(choice_table(samples(*study(AS_CLAIMED, 3), FACTS, config()), config()), metric="gini")
    assert [row["front"] for row in rows] == [True] * 4
    assert [row["knee"] for row in rows] == [False, True, False, False]
    assert {tuple(row["knee_interval"]) for row in rows} == {(1.0, 1.0)}
    assert sum(row["knee_share"] for row in rows) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("gini", "verdict"),
    [
        ((0, 0.2, 0.25, 0.3), "supported"),
        ((0, 0.1, 0.25, 0.3), "contradicted"),
        ((0, 0.2, 0.0, -0.2), "undecided"),  # of a loss there is no share, and the first step gains
        ((0, -0.2, -0.2, -0.2), "contradicted"),
        ((0, -0.1, 0.1, 0.3), "contradicted"),
        ((0, 0.2, 0.1, 0.0), "undecided"),  # nothing is gained in the end
    ],
)
def test_modest_training_helps_where_the_first_step_gains_most_of_what_is_gained(gini: Any, verdict: str) -> None:
    table = claims(AS_CLAIMED | {"gini": gini}, seeds=5)
    row = select(table, claim="modest training helps", metric="gini", scope="training", attribution="gradient")[0]
    assert row["verdict"] == verdict
    if verdict != "undecided":
        assert row["estimate"] == pytest.approx(gini[1] / gini[3], abs=0.1)
        assert row["p_single"] <= row["p"] <= 0.05


def test_two_epsilons_say_nothing_of_modest_training() -> None:
    attacks, scores = (rows[rows["epsilon"] % 8 == 0] for rows in study(AS_CLAIMED, 3))
    rows = claims_table(samples(attacks, scores, FACTS, config()), [], config())
    assert {row["verdict"] for row in select(rows, claim="more concise")} == {"supported"}
    for row in select(rows, claim="modest training helps"):
        assert (row["verdict"], row["why"]) == ("undecided", TWO_EPSILONS)
        assert math.isnan(row["estimate"])


def test_one_image_says_nothing_of_others() -> None:
    attacks, scores = study(AS_CLAIMED, 3, images=1)
    rows = claims_table(samples(attacks, scores, FACTS, config()), [], config())
    for claim in ("more concise", "more stable", "not more relevant", "modest training helps"):
        for row in select(rows, claim=claim, scope="these networks"):
            assert (row["verdict"], row["why"]) == ("undecided", ONE_IMAGE)
    assert {row["verdict"] for row in select(rows, claim="costs accuracy")} == {"supported"}  # of 200 other images
