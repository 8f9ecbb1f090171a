"""Misleading but plausible: rates, their intervals, and whether plausibility tells right from wrong."""

import math

import numpy as np
import pandas as pd
import pytest

from epsilens.reporting.auroc import auroc, auroc_estimates
from epsilens.reporting.config import PlausibleConfig
from epsilens.reporting.plausible import AUROC, RATES, misnamed, plausible_table, shares_below, with_width
from epsilens.reporting.statistics import estimate, wilson
from epsilens.reporting.tables import select
from tests.options import report_config

NAN = math.nan
NAMES = ("gini", "moved", "mass", "random")
CONFIG = report_config(attribution="map", metrics=("gini",), bootstrap=300, seed=2, confidence=0.9, plausible=NAMES)
FACTS = {
    "metrics": {"gini": {"better": "higher"}, "moved": {"better": "lower"}, "mass": {"better": "higher"},
                "aside": {"better": None}},
    "attributions": {"map": {"kind": "method"}, "random": {"kind": "control"}, "sobel": {"kind": "control"}},
}  # fmt: skip

# Of each network, image by image: gini, moved, mass, the control's mass, whether the prediction is right.
STANDARD = [(0.1, 0.9, 0.5, 0.2, 1), (0.2, 0.1, 0.1, 0.2, 1), (0.3, 0.3, 0.9, 0.2, 1), (0.4, 0.5, 0.2, 0.2, 0)]
ROBUST = [(0.9, 0.1, 0.5, 0.5, 1), (0.8, 0.2, 0.9, 0.5, 0), (0.25, 0.1, 0.1, 0.5, 1), (0.7, 0.3, NAN, 0.5, 1)]


def rows(networks):
    for (epsilon, seed), images in networks.items():
        for image, (gini, moved, mass, control, right) in enumerate(images):
            known = {"epsilon": float(epsilon), "seed": seed, "image": image, "correct": bool(right)}
            for metric, score in {"gini": gini, "moved": moved, "mass": mass, "aside": 7}.items():
                yield known | {"attribution": "map", "metric": metric, "score": score}
            for metric in ("gini", "moved", "mass", "aside"):
                yield known | {"attribution": "random", "metric": metric, "score": control}


def table(networks, config=CONFIG, facts=FACTS):
    return plausible_table(pd.DataFrame(rows(networks)), facts, config)


def one(found, **wanted):
    [row] = select(found, **wanted)
    return row


def test_rates_by_hand():
    """Medians of the standard network: gini 0.25, moved 0.4. Beyond both: image 2 there, images 0, 1, 3 of the other."""
    found = table({(8, 0): ROBUST, (0, 0): STANDARD})
    assert {row["attribution"] for row in found} == {"map"}
    assert {(row["conciseness_median"], row["stability_median"]) for row in found} == {(0.25, 0.4)}
    wanted = {
        ("all", 0): [(1 / 4, 4, 0), (0, 1, 0), (0, 4, 0), (1 / 2, 4, 0)],
        ("correct", 0): [(1 / 3, 3, 0), (0, 1, 0), (0, 3, 0), (1 / 3, 3, 0)],
        ("wrong", 0): [(0, 1, 0), (NAN, 0, 0), (0, 1, 0), (1, 1, 0)],
        ("all", 8): [(3 / 4, 4, 0), (1 / 2, 2, 1), (1 / 3, 3, 1), (2 / 3, 3, 1)],  # image 0 is exactly at the control
        ("correct", 8): [(2 / 3, 3, 0), (1, 1, 1), (1 / 2, 2, 1), (1, 2, 1)],
        ("wrong", 8): [(1, 1, 0), (0, 1, 0), (0, 1, 0), (0, 1, 0)],
    }
    for (name, epsilon), numbers in wanted.items():
        for measure, (mean, maps, nan) in zip(RATES, numbers, strict=True):
            row = one(found, set=name, epsilon=float(epsilon), measure=measure)
            assert row["mean"] == pytest.approx(mean, abs=1e-6, nan_ok=True), (name, epsilon, measure)
            assert (row["maps"], row["n"], row["nan"]) == (maps, maps, nan), (name, epsilon, measure)
            assert row["hits"] == (0 if math.isnan(mean) else round(mean * maps))


def test_a_score_that_decides_and_is_missing_leaves_the_map_out():
    broken = [(NAN, *ROBUST[0][1:]), (ROBUST[1][0], NAN, *ROBUST[1][2:]), *ROBUST[2:]]
    row = one(table({(0, 0): STANDARD, (8, 0): broken}), set="all", epsilon=8.0, measure="plausible")
    assert (row["mean"], row["maps"], row["nan"]) == (0.5, 2, 2)


def test_seeds_are_averaged_and_maps_counted():
    found = table({(0, 0): STANDARD, (0, 1): STANDARD, (8, 0): ROBUST, (8, 1): ROBUST[2:]})
    row = one(found, set="all", epsilon=8.0, measure="plausible")
    assert (row["mean"], row["maps"], row["hits"], row["n"]) == ((3 / 4 + 1 / 2) / 2, 6, 4, 4)
    assert (row["seed_min"], row["seed_max"]) == (0.5, 0.75)


def test_a_rate_of_one_has_the_width_of_wilsons_interval():
    always, never = [(0.9, 0.1, 0.5, 0.2, 1)] * 6, [(0.1, 0.5, 0.1, 0.2, 1)] * 6
    found = table({(0, 0): never, (0, 1): never, (8, 0): always, (8, 1): always})
    last = one(found, set="all", epsilon=8.0, measure="plausible")
    assert (last["low"], last["high"]) == pytest.approx(wilson(6, 6, 0.9), abs=1e-6)
    first = one(found, set="all", epsilon=0.0, measure="plausible")
    assert (first["low"], first["high"]) == pytest.approx(wilson(0, 6, 0.9), abs=1e-6)
    assert (first["difference_low"], first["difference_high"]) == (0, 0)
    width = 1 - wilson(6, 6, 0.9)[0]
    assert (last["difference_low"], last["difference_high"]) == pytest.approx(
        (1 - math.hypot(width, width), 1), abs=1e-6
    )


def test_directions_come_from_the_facts():
    turned = {**FACTS, "metrics": {name: {"better": {"higher": "lower", "lower": "higher"}.get(fact["better"])}
                                   for name, fact in FACTS["metrics"].items()}}  # fmt: skip
    found = table({(0, 0): STANDARD, (8, 0): ROBUST}, facts=turned)
    first = one(found, set="all", epsilon=0.0, measure="plausible")
    assert (first["mean"], first["conciseness_median"], first["stability_median"]) == (0.25, 0.25, 0.4)  # image 0
    assert (
        one(found, set="all", epsilon=0.0, measure="misleading given plausible")["mean"] == 1
    )  # 0.5 is worse than 0.2


def test_plausibility_that_is_being_right_has_one_its_opposite_zero_and_no_error_nothing():
    right, wrong = (0.9, 0.1, 0.5, 0.2, 1), (0.1, 0.8, 0.5, 0.2, 0)
    inverse = [(*right[:4], 0), (*wrong[:4], 1), (0.5, 0.5, 0.5, 0.2, 1)]
    networks = {(0, 0): STANDARD, (1, 0): [right, wrong, right], (4, 0): inverse, (8, 0): [right, right, right]}
    found = select(table(networks), measure=AUROC)
    assert [row["mean"] for row in found][1:3] == [1, 0]
    assert [row["difference"] for row in found][:3] == pytest.approx([0, 1 - found[0]["mean"], -found[0]["mean"]])
    assert math.isnan(found[3]["mean"])
    assert math.isnan(found[3]["low"])
    assert [(row["n"], row["maps"], row["hits"]) for row in found] == [(4, 4, 3), (3, 3, 2), (3, 3, 2), (3, 3, 3)]


def test_plausibility_is_not_saturated_beyond_the_range_of_the_standard_network():
    """All maps are beyond it; the more plausible ones are right."""
    beyond = [(0.9 + i / 100, 0.01 - i / 1000, 0.5, 0.2, int(i > 1)) for i in range(5)]
    found = table({(0, 0): STANDARD, (8, 0): beyond})
    assert one(found, epsilon=8.0, measure=AUROC)["mean"] == 1


def test_names_that_cannot_be_used_are_reported_together():
    told = PlausibleConfig(conciseness="ginni", stability="aside", relevance="mass", control="map")
    recommend = CONFIG.recommend.model_copy(update={"metric": "nothing"})
    wrong = CONFIG.model_copy(update={"plausible": told, "recommend": recommend})
    lines = misnamed(pd.DataFrame(rows({(0, 0): STANDARD})), FACTS, wrong)
    assert lines == [
        "params.yaml: report.plausible.conciseness: found 'ginni', possible are gini, moved, mass",
        "params.yaml: report.plausible.stability: found 'aside', possible are gini, moved, mass",
        "params.yaml: report.plausible.control: found 'map', possible are random",
        "params.yaml: report.recommend.metric: found 'nothing', possible are gini, moved, mass",
    ]
    assert misnamed(pd.DataFrame(rows({(0, 0): STANDARD})), FACTS, CONFIG) == []


def test_shares_below_count_equal_ones_half():
    found = shares_below(np.array([[3.0, 1.0, NAN, 3.0], [NAN] * 4]))
    assert found[0, [0, 1, 3]].tolist() == pytest.approx([2 / 3, 1 / 6, 2 / 3])
    assert np.isnan(found[0, 2])
    assert np.isnan(found[1]).all()


def test_auroc_is_the_share_of_pairs_with_and_without_weights():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, size=30).astype(float), rng.random(30) < 0.4
    weights = np.stack([np.ones(30), rng.integers(0, 3, size=30)])
    for row, found in zip(weights, auroc(scores, positive, weights), strict=True):
        pairs = [
            (row[i] * row[j], (scores[i] > scores[j]) + (scores[i] == scores[j]) / 2)
            for i in np.flatnonzero(positive)
            for j in np.flatnonzero(~positive)
        ]
        assert found == pytest.approx(sum(w * v for w, v in pairs) / sum(w for w, _ in pairs))
    assert np.isnan(auroc(scores, np.ones(30, dtype=bool), weights)).all()
    assert np.isnan(auroc(scores[:0], positive[:0], weights[:, :0])).all()


def test_the_interval_of_an_auroc_covers_one_half_where_nothing_is_told():
    """Nominal 90 %: of 200 studies with one seed of 60 images, between 160 and 197 must cover."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        values, positive = rng.random((1, 1, 60)), rng.random((1, 1, 60)) < 0.6
        found = auroc_estimates(values, positive, np.zeros((1, 1)), samples=200, seed=0, confidence=0.9)
        covered += found.low[0, 0] <= 0.5 <= found.high[0, 0]
    assert 160 <= covered <= 197


def test_the_same_rows_give_the_same_table():
    networks = {(0, 0): STANDARD, (8, 0): ROBUST}
    assert repr(table(networks)) == repr(table(dict(reversed(networks.items()))))


def test_a_map_that_is_not_plausible_need_not_have_a_relevance():
    found = table({(0, 0): STANDARD, (8, 0): [ROBUST[0], (0.1, 0.9, NAN, 0.5, 1)]})
    nans = [one(found, set="all", epsilon=8.0, measure=measure)["nan"] for measure in RATES]
    assert nans == [0, 0, 1, 1]


def test_plausibility_weighs_both_looks_alike():
    """What is more concise is less stable: all tie."""
    images = [(0.1 * i, 0.1 * i, 0.5, 0.2, int(i > 2)) for i in range(1, 6)]
    assert one(table({(0, 0): images}), epsilon=0.0, measure=AUROC)["mean"] == 0.5


def test_a_rate_of_one_network_that_hangs_on_few_maps_is_as_wide_as_wilsons():
    maps = [(0.9, 0.1, 0.5 if i else 0.1, 0.2, 1) for i in range(30)]
    row = one(table({(0, 0): STANDARD, (8, 0): maps}), set="all", epsilon=8.0, measure=RATES[1])
    low, high = wilson(1, 30, 0.9)
    assert row["mean"] == pytest.approx(1 / 30, abs=1e-6)
    assert row["low"] <= low + 1e-6
    assert row["high"] >= high - 1e-6


def test_an_auroc_that_hangs_on_one_wrong_map_tells_nothing():
    """The most plausible map is the only wrong one: the interval is Wilson's of a single trial."""
    maps = [(0.01 * i, 0.5 - 0.01 * i, 0.5, 0.2, int(i < 29)) for i in range(30)]
    row = one(table({(0, 0): STANDARD, (8, 0): maps}), epsilon=8.0, measure=AUROC)
    assert (row["mean"], row["low"]) == (0, 0)
    assert row["high"] == pytest.approx(wilson(0, 1, 0.9)[1], abs=1e-6)


def test_seeds_are_those_that_have_the_figure_and_intervals_end_at_0_and_1():
    """The second network has no plausible map, and errs nowhere."""
    dull = [(0.1, 0.9, 0.5, 0.2, 1)] * 4
    found = table({(0, 0): STANDARD, (0, 1): STANDARD, (8, 0): ROBUST, (8, 1): dull})
    rows_at_8 = {row["measure"]: row for row in select(found, set="all", epsilon=8.0)}
    assert [rows_at_8[name]["n_seeds"] for name in (*RATES, AUROC)] == [2, 1, 2, 2, 1]
    wide = rows_at_8["plausible"]  # .75 and 0: Student's t of one degree of freedom is far wider than [0, 1]
    assert (wide["mean"], wide["low"], wide["high"]) == (0.375, 0, 1)
    assert (wide["difference_low"], wide["difference_high"]) == (-1, 1)


def test_the_difference_of_two_rates_that_are_all_and_none_is_newcombes():
    values = np.stack([np.ones((1, 6, 1)), np.zeros((1, 6, 1))])  # all at the first epsilon, none at the second
    flat = estimate(values, np.ones((2, 1, 6), dtype=bool), samples=100, seed=0, confidence=0.9)
    found = with_width(flat, flat.n, np.ones((2, 1), dtype=int), confidence=0.9)
    width = wilson(0, 6, 0.9)[1]
    ends = (found.difference_low[1, 0], found.difference_high[1, 0])
    assert ends == pytest.approx((-1, -1 + math.hypot(width, width)))
