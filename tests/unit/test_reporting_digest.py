"""What the page shows of the long tables."""

from epsilens.reporting import digest

FACTS = {"metrics": {"gini": {"label": "Gini index"}}}
CLAIM = {
    "claim": "more concise", "statement": "Concise.", "scope": "training", "verdict": "undecided", "why": "one seed",
    "headline": True, "attribution": "gradient", "metric": "gini", "epsilon": 8.0, "estimate": 0.2,
    "interval": [0.1, 0.3], "p": 0.01,
}  # fmt: skip


def test_a_claim_has_the_verdicts_of_both_scopes():
    own = CLAIM | {"scope": "these networks", "verdict": "supported", "why": "", "p": 0.5}
    others = [CLAIM | {"headline": False, "attribution": "sobel"}, own | {"metric": "mass", "verdict": "contradicted"}]
    assert digest.claims([CLAIM, own, *others], FACTS) == [
        {
            "claim": "Concise.", "measured": "Gini index", "at ε": 8.0, "estimate": 0.2, "interval": [0.1, 0.3], "p": 0.01,
            "verdict": "undecided", "of these networks": "supported", "what is open": "one seed",
        }
    ]  # fmt: skip


def test_what_is_open_of_these_networks_is_said_where_training_is_decided():
    decided = CLAIM | {"verdict": "supported", "why": "", "metric": "accuracy"}
    [row] = digest.claims([decided, decided | {"scope": "these networks", "why": "open"}], FACTS)
    assert (row["measured"], row["what is open"]) == ("accuracy", "open")
    [alone] = digest.claims([decided], FACTS)
    assert (alone["of these networks"], alone["what is open"]) == ("–", "")


def test_a_recommendation_says_how_many_resamples_agree():
    known = {"metric": "gini", "epsilon": 1.0, "accuracy": 0.9, "loss": 0.05, "quality": 0.6, "gain": 0.1}
    row = known | {"front": True, "front_share": 0.904, "knee": False, "knee_share": 0.2, "recommended": True,
                   "recommended_share": 1.0}  # fmt: skip
    wanted = {"metric": "Gini index", "training ε": 1.0, "clean accuracy": 0.9, "accuracy lost": 0.05, "quality": 0.6,
              "quality gained": 0.1, "on the front": "yes (90 % of resamples)", "knee": "no (20 % of resamples)",
              "recommended": "yes (100 % of resamples)"}  # fmt: skip
    assert digest.recommendation([row], FACTS) == [wanted]
    [silent] = digest.recommendation([row | {"recommended": None, "recommended_share": None}], FACTS)
    assert silent["recommended"] == "–"


def test_plausible_maps_are_those_of_the_headline_method():
    row = {"attribution": "gradient", "measure": "plausible", "set": "all", "epsilon": 8.0, "mean": 0.5, "low": 0.4,
           "high": 0.7, "maps": 12}  # fmt: skip
    assert digest.plausible([row, row | {"attribution": "sobel"}], "gradient") == [
        {
            "measure": "plausible",
            "predictions": "all",
            "training ε": 8.0,
            "value": 0.5,
            "interval": [0.4, 0.7],
            "maps": 12,
        }
    ]


def test_an_audit_names_the_change_that_was_made():
    row = {"metric": "gini", "kind": "blur", "amount": 2.0, "epsilon": 8.0, "standard": 0.5, "mean": 0.8,
           "transformed": 0.65, "reproduced": 0.5, "low": 0.4, "high": 0.6, "reason": ""}  # fmt: skip
    [shown] = digest.audit([row], FACTS)
    assert shown == {"metric": "Gini index", "change of the standard network": "blur by 2", "training ε": 8.0,
                     "standard": 0.5, "trained": 0.8, "standard, changed": 0.65, "reproduced": 0.5,
                     "interval": [0.4, 0.6], "why not": ""}  # fmt: skip
