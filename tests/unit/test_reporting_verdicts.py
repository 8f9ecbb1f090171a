"""The claims as a reader sees them: cards, the sentences that say what decides, the long table."""

import math

import pytest

from epsilens.reporting.claims import CLAIMS
from epsilens.reporting.config import ClaimsConfig
from epsilens.reporting.verdicts import BADGES, RULES, cards, measured, p_text, table, tally
from tests import options

WANTED = ClaimsConfig(**options.CLAIMS)
FACTS = {
    "metrics": {"gini": {"label": "Gini index", "better": "higher"}, "shake": {"label": "Shake", "better": "lower"}},
    "attributions": {"a": {"label": "A"}, "b": {"label": "B"}},
}


def row(claim="more concise", scope="training", verdict="supported", **given):
    known = {"claim": claim, "statement": f"It is {claim}.", "scope": scope, "verdict": verdict, "why": "",
             "headline": True, "attribution": "a", "metric": "gini", "epsilon": 8.0, "estimate": 0.25,
             "interval": [0.125, 0.5], "confidence": 0.95, "p": 0.01, "p_single": 0.005,
             "standardised": 1.5, "improved": 0.75, "trend": 0.9, "trend_p": 0.02,
             "n": 3, "unit": "seeds", "n_seeds": 3}  # fmt: skip
    return known | given


def test_every_claim_has_its_rule():
    assert list(RULES) == list(CLAIMS)


@pytest.mark.parametrize(
    ("claim", "sentence"),
    {
        "more concise": "Supported: the whole interval is above 0 and p ≤ 0.05. Contradicted: it is below and p ≤ 0.05.",
        "not more relevant": (
            "Supported: the whole interval is below 0.05 and p ≤ 0.05. Contradicted: it is above and p ≤ 0.05."
        ),
        "modest training helps": (
            "Supported: the whole interval is above 50 %, the gain itself is above 0, and p ≤ 0.05. "
            "Contradicted: it is below, or there is a loss at both ε, and p ≤ 0.05."
        ),
        "costs accuracy": (
            "Supported: the whole interval is below −2 points and p ≤ 0.05. Contradicted: it is above and p ≤ 0.05."
        ),
        "plausible maps mislead": "Supported: the whole interval is above 10 %. Contradicted: it is below.",
        "plausibility is blind": "Supported: the whole interval is below 0.6. Contradicted: it is above.",
    }.items(),
)
def test_what_decides_is_said_with_the_thresholds_of_the_study(claim, sentence):
    assert RULES[claim].decides(WANTED) == sentence


def test_plausibility_that_goes_with_wrong_predictions_is_told():
    def why(*interval):
        rows = [row(claim="plausibility is blind", verdict="supported", interval=list(interval))]
        return cards(rows, FACTS, WANTED, 0.0)[0]["cases"][0]["lines"][0]["why"]

    assert why(0.2, 0.45) == "the interval is below 0.5: rather a sign of a wrong prediction"
    assert why(0.2, 0.55) == ""


def test_a_card_has_both_verdicts_with_estimate_interval_and_p():
    rows = [row(), row(scope="these networks", verdict="undecided", why="too few", n=1, unit="images", p=math.nan),
            row(attribution="b", headline=False, verdict="contradicted")]  # fmt: skip
    [card] = cards(rows, FACTS, WANTED, 0.0)
    assert card["statement"] == "It is more concise."
    assert card["figure"] == "claim-more-concise"
    assert card["methods"] == ["training: 1 supported, 1 contradicted", "these networks: 1 undecided"]
    [case] = card["cases"]
    assert case["measured"] == "gain in Gini index at ε = 8, from ε = 0"
    first, second = case["lines"]
    assert first == {"scope": "training", "n": "3 seeds", "verdict": "supported", "badge": "✓", "estimate": "+0.250",
                     "interval": "95 %: +0.125 to +0.500", "p": "p = 0.01", "why": ""}  # fmt: skip
    assert (second["n"], second["badge"], second["p"], second["why"]) == ("1 image", "?", "no test", "too few")
    assert len(set(BADGES.values())) == 3


def test_units_of_accuracy_and_of_rates():
    accuracy = row("costs accuracy", attribution="", metric="accuracy", estimate=-0.05, interval=[-0.1, 0.01])
    rate = row("plausible maps mislead", metric="rate", estimate=0.2, interval=[0.1, 0.3], n=64, unit="images")
    costs, misleads = cards([accuracy, rate], FACTS, WANTED, 0.0)
    [line] = costs["cases"][0]["lines"]
    assert (line["estimate"], line["interval"]) == ("−5.0 points", "95 %: −10.0 to +1.0")
    assert costs["methods"] == []  # it is about the networks
    [line] = misleads["cases"][0]["lines"]
    assert (line["estimate"], line["interval"]) == ("20.0 %", "95 %: 10.0 % to 30.0 %")
    assert line["n"] == "3 seeds, 64 images"


def test_what_is_undefined_has_no_interval_and_a_fall_is_told_as_one():
    unknown = row(metric="shake", estimate=math.nan, interval=[math.nan, math.nan], why="no masks", verdict="undecided")
    [card] = cards([unknown], FACTS, WANTED, 0.0)
    [line] = card["cases"][0]["lines"]
    assert (line["estimate"], line["interval"]) == ("–", "no interval")
    assert measured(unknown, FACTS, 1.0) == "gain in Shake (a fall: lower is better) at ε = 8, from ε = 1"


def test_a_claim_of_two_metrics_is_mixed_where_they_differ():
    rows = [row("modest training helps"), row("modest training helps", metric="shake", verdict="undecided"), row()]
    told = cards(rows, FACTS, WANTED, 0.0)
    assert tally(told) == ["training: 1 supported, 1 mixed"]
    assert [len(card["cases"]) for card in told] == [2, 1]
    assert told[0]["methods"] == ["training: 1 mixed"]
    assert tally([]) == []


def test_p_as_papers_write_it():
    assert [p_text(p) for p in (0.0001, 0.001, 0.0456, 1.0)] == ["p < 0.001", "p = 0.001", "p = 0.046", "p = 1"]


def test_the_long_table_has_every_row_with_labels():
    [first, second] = table([row(), row("costs accuracy", attribution="", metric="accuracy", headline=False)], FACTS)
    assert (first["attribution"], first["metric"], first["p"], first["p alone"]) == ("A", "Gini index", 0.01, 0.005)
    assert (first["effect (d_z)"], first["images that gain"]) == (1.5, 0.75)
    assert (second["attribution"], second["metric"], second["of"]) == ("–", "accuracy", "training")
