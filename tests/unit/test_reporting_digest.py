"""What the page shows of the long tables."""

from epsilens.reporting import digest

FACTS = {
    "metrics": {"gini": {"label": "Gini index"}},
    "attributions": {"gradient": {"label": "Gradient"}, "sobel": {"label": "Edges"}},
}


def test_a_recommendation_says_how_many_resamples_agree():
    known = {"metric": "gini", "epsilon": 1.0, "accuracy": 0.9, "loss": 0.05, "quality": 0.6, "gain": 0.1}
    row = known | {"front": True, "front_share": 0.904, "knee": False, "knee_share": 0.2, "recommended": True,
                   "recommended_share": 1.0}  # fmt: skip
    wanted = {"metric": "Gini index", "training ε": 1.0, "clean accuracy": 0.9, "accuracy lost": 0.05, "quality": 0.6,
              "quality gained": 0.1, "on the front": "yes (90 % of resamples)", "knee": "no (20 % of resamples)",
              "recommended": "yes (100 % of resamples)"}  # fmt: skip
    other = row | {"epsilon": 0.0, "recommended": None, "recommended_share": None}
    silent, shown = digest.recommendation([other, row], FACTS)
    assert shown == wanted
    assert silent["recommended"] == "–"
    assert digest.recommendation([row], FACTS) == []  # nothing to choose from


def test_plausible_maps_are_those_of_all_methods():
    row = {"attribution": "gradient", "measure": "plausible", "set": "all", "epsilon": 8.0, "mean": 0.5, "low": 0.4,
           "high": 0.7, "maps": 12}  # fmt: skip
    shown = {"attribution": "Gradient", "measure": "plausible", "predictions": "all", "training ε": 8.0, "value": 0.5,
             "interval": [0.4, 0.7], "maps": 12}  # fmt: skip
    found = digest.plausible([row, row | {"attribution": "sobel"}], FACTS)
    assert found == [shown, shown | {"attribution": "Edges"}]


def test_an_audit_names_the_change_that_was_made():
    row = {"metric": "gini", "kind": "blur", "amount": 2.0, "epsilon": 8.0, "standard": 0.5, "mean": 0.8,
           "transformed": 0.65, "reproduced": 0.5, "low": 0.4, "high": 0.6, "reason": ""}  # fmt: skip
    [shown] = digest.audit([row], FACTS)
    assert shown == {"metric": "Gini index", "change of the standard network": "blur by 2", "training ε": 8.0,
                     "standard": 0.5, "trained": 0.8, "standard, changed": 0.65, "reproduced": 0.5,
                     "interval": [0.4, 0.6], "why not": ""}  # fmt: skip
