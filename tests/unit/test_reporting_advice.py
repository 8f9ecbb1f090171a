"""What the trade-off, plausible maps and the confounds say in sentences."""

import math

from epsilens.reporting import advice
from epsilens.reporting.config import PlausibleConfig, RecommendConfig
from epsilens.reporting.plausible import AUROC, RATES

WANTED = RecommendConfig(metric="gini", gain=0.1, accuracy_loss=0.1)
LOOKS = PlausibleConfig(conciseness="gini", stability="shake", relevance="mass", control="random")
FACTS = {
    "metrics": {name: {"label": name.title(), "better": "higher"} for name in ("gini", "shake", "mass")},
    "attributions": {"a": {"label": "A"}, "random": {"label": "Random"}},
}


def bargain(epsilon, gain, loss, *, recommended=False, knee=False, metric="gini"):
    return {"metric": metric, "epsilon": epsilon, "gain": gain, "loss": loss, "recommended": recommended, "knee": knee,
            "knee_share": 0.75, "recommended_share": 0.8, "none_share": 0.2, "reason": ""}  # fmt: skip


def test_a_recommended_epsilon_is_named_with_its_bargain():
    rows = [bargain(0.0, 0.0, 0.0), bargain(2.0, 0.25, 0.05, recommended=True, knee=True), bargain(8.0, 0.3, 0.5)]
    told = advice.choice(rows, FACTS, WANTED)
    assert told["answer"] == "Recommended: ε = 2"
    assert told["why"] == (
        "The smallest ε that gains at least 0.1 in Gini for at most 10 points of clean accuracy: it gains 0.250 and costs "
        "5.0 points (80 % of resamples agree)."
    )
    assert told["knees"] == "Knee of the front: ε = 2 for Gini (75 % of resamples)."


def test_where_none_is_recommended_each_says_what_it_lacks():
    rows = [bargain(0.0, 0.0, 0.0), bargain(2.0, 0.05, 0.1), bargain(8.0, 0.1, 0.5)]
    told = advice.choice([*rows, bargain(2.0, 0.0, 0.0, metric="mass", knee=True)], FACTS, WANTED)
    assert told["answer"] == "No ε is recommended"
    assert told["why"].endswith(
        "(20 % of resamples agree): ε = 2 gains 0.050 (too little) and costs 10.0 points; ε = 8 gains 0.100 and costs "
        "50.0 points (too much)."
    )
    assert told["knees"].startswith("Knee of the front: ε = 2 for Mass (75 % of resamples). No knee")
    assert told["knees"].endswith(": Gini.")
    undefined = [row | {"reason": "no defined score"} for row in rows]
    assert advice.choice(undefined, FACTS, WANTED)["why"] == "No defined score."
    assert advice.choice(rows[:1], FACTS, WANTED) == {}


def look(measure, epsilon, mean, maps=100, low=0.0, high=0.5, within="all"):
    return {"attribution": "a", "set": within, "measure": measure, "epsilon": epsilon, "mean": mean, "low": low,
            "high": high, "maps": maps, "conciseness_median": 0.5, "stability_median": 0.25}  # fmt: skip


def test_plausible_maps_are_defined_and_counted_at_both_ends():
    rows = [look(RATES[0], 0.0, 0.2, low=0.1), look(RATES[0], 4.0, 0.3), look(RATES[0], 8.0, 0.4, high=0.9),
            look(RATES[1], 0.0, math.nan, maps=0), look(RATES[1], 8.0, 0.1), look(RATES[0], 8.0, 0.9, within="wrong"),
            look(AUROC, 0.0, 0.7), look(AUROC, 4.0, 0.6), look(AUROC, 8.0, math.nan)]  # fmt: skip
    meaning, plausible, misleading, auroc = advice.plausible(rows, "a", LOOKS, FACTS)
    assert "Gini and Shake both better than the median map of the standard network (0.500 and 0.250)" in meaning
    assert "Mass no better than that of the control “Random”" in meaning
    assert plausible == (
        "Plausible: 20.0 % (10.0 to 50.0) of 100 maps at ε = 0, 40.0 % (0.0 to 90.0) of 100 maps at ε = 8."
    )
    assert misleading == "Misleading among the plausible: 10.0 % (0.0 to 50.0) of 100 maps at ε = 8."
    assert auroc.endswith("0.600 (0.000 to 0.500) at ε = 4; 0.5 says nothing.")
    assert advice.plausible(rows, "other", LOOKS, FACTS) == []
    robust = advice.plausible([look(RATES[0], 8.0, 0.0, maps=1, low=math.nan)], "a", LOOKS, FACTS)
    assert "both better than the median map at ε = 8 (0.500 and 0.250)" in robust[0]
    assert robust[1] == "Plausible: 0.0 % of 1 map at ε = 8."
    assert advice.plausible(rows[:1], "a", LOOKS, FACTS)[-1].startswith("AUROC undefined")


def confound(kind, reproduced, reason="", metric="gini", epsilon=8.0):
    return {"metric": metric, "kind": kind, "epsilon": epsilon, "reproduced": reproduced, "low": 0.1, "high": 0.9,
            "reason": reason}  # fmt: skip


def test_confounds_name_the_change_that_reproduces_most_or_why_there_is_none():
    rows = [confound("scale", 0.0), confound("blur", 0.7), confound("temperature", math.nan, "no trait"),
            confound("blur", -0.2, metric="shake"), confound("blur", math.nan, "no change", metric="mass")]  # fmt: skip
    assert advice.audit(rows, FACTS) == [
        "Gini: blur reproduces most of the change, 70.0 % (10.0 to 90.0). Undefined: temperature: no trait.",
        "Shake: none of the changes reproduces any of it.",
        "Mass: nothing to explain away: no change.",
    ]


def test_the_headline_of_the_audit_is_of_the_largest_epsilon():
    rows = [confound("blur", 0.1, epsilon=4.0), confound("blur", 0.2), confound("blur", 0.3, metric="mass")]
    assert advice.headlined(rows, ("mass", "gini")) == rows[1:]
    assert advice.headlined(rows, ("mass",)) == rows[2:]
    assert advice.headlined(rows, ("other",)) == rows[1:]
    assert advice.headlined([], ("gini",)) == []
