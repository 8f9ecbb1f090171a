"""The confound audit: what is reproduced by a change of the standard network, in closed form."""

import math

import numpy as np
import pandas as pd
import pytest

from epsilens.reporting.audit import NO_CHANGE, NO_TRAIT, audit_table
from epsilens.reporting.tables import select
from tests.unit.test_reporting_plausible import CONFIG

IMAGES = 12
TRAITS = {"norm": 8.0, "frequency": 0.4, "confidence": 0.9}
CHANGED = {
    ("scale", 0.25): ({"norm": 2.0}, 0.0),
    ("scale", 0.5): ({"norm": 4.0}, 0.0),
    ("blur", 1.0): ({"frequency": 0.2}, 0.5),
    ("blur", 2.0): ({"frequency": 0.1}, 0.8),
    ("temperature", 4.0): ({"confidence": 0.5}, -0.25),
}  # (kind, amount): its traits, and what it adds to the metric


def tables(added, traits, epsilons=(0.0, 4.0, 8.0), seeds=(0, 1)):
    """Scores of a metric and of one that never changes: `added` by epsilon on top of an image's own; `traits` by epsilon."""
    base = np.random.default_rng(0).random((len(seeds), IMAGES))
    scores, audited, its_traits = [], [], []
    for epsilon in epsilons:
        for seed in seeds:
            for image in range(IMAGES):
                known = {"epsilon": epsilon, "seed": seed, "image": image, "correct": image != 3 or epsilon < 8,
                         "attribution": "map"}  # fmt: skip
                own = base[seed, image]
                for metric, score in (("gini", own + added[epsilon]), ("still", own)):
                    scores.append(known | {"metric": metric, "score": score})
                for name, value in (TRAITS | traits[epsilon]).items():
                    its_traits.append(known | {"kind": "none", "amount": 0.0, "trait": name, "value": value})
                for (kind, amount), (changed, more) in CHANGED.items() if epsilon == 0 else ():
                    change = {"kind": kind, "amount": amount}
                    for metric, score in (("gini", own + more), ("still", own)):
                        audited.append(known | change | {"metric": metric, "score": score})
                    for name, value in (TRAITS | changed).items():
                        its_traits.append(known | change | {"trait": name, "value": value})
    other = [row | {"attribution": "random", "score": 99.0} for row in scores]
    return pd.DataFrame(scores + other), pd.DataFrame(audited), pd.DataFrame(its_traits)


ADDED = {0.0: 0.0, 4.0: 0.5, 8.0: 0.8}
ROBUST = {0.0: {}, 4.0: {"norm": 3.8, "frequency": 0.21, "confidence": 0.75},
          8.0: {"norm": 1.0, "frequency": 0.11, "confidence": 0.45}}  # fmt: skip


def one(found, **wanted):
    [row] = select(found, **wanted)
    return row


def test_the_standard_network_blurred_is_reproduced_by_blur_and_by_nothing_else():
    found = audit_table(*tables(ADDED, ROBUST), CONFIG)
    for epsilon, sigma in ((4.0, 1.0), (8.0, 2.0)):
        row = one(found, metric="gini", kind="blur", epsilon=epsilon)
        assert (row["amount"], row["reason"]) == (sigma, "")
        assert (row["reproduced"], row["low"], row["high"]) == pytest.approx((1, 1, 1))
        scaled = one(found, metric="gini", kind="scale", epsilon=epsilon)
        assert (scaled["reproduced"], scaled["low"], scaled["high"]) == (0, 0, 0)
        assert math.copysign(1, scaled["reproduced"]) == 1
    assert len(found) == 2 * 2 * 3


def test_the_amount_is_the_one_whose_trait_is_nearest_and_none_is_one_of_them():
    found = audit_table(*tables(ADDED, ROBUST), CONFIG)
    amounts = {(row["kind"], row["epsilon"]): row["amount"] for row in select(found, metric="gini")}
    assert amounts == {("scale", 4.0): 0.5, ("scale", 8.0): 0.25, ("blur", 4.0): 1.0, ("blur", 8.0): 2.0,
                       ("temperature", 4.0): 1.0, ("temperature", 8.0): 4.0}  # fmt: skip
    unchanged = one(found, metric="gini", kind="temperature", epsilon=4.0)
    assert (unchanged["reproduced"], unchanged["trait_matched"], unchanged["trait_trained"]) == (0, 0.9, 0.75)
    opposite = one(found, metric="gini", kind="temperature", epsilon=8.0)
    assert opposite["reproduced"] == pytest.approx(-0.25 / 0.8, abs=1e-6)


def test_norms_are_matched_by_their_ratio():
    """2.9 is nearer to 2 by difference, and to 4 by ratio."""
    traits = ROBUST | {4.0: {"norm": 2.9}, 8.0: {"norm": 2.75}}
    found = select(audit_table(*tables(ADDED, traits), CONFIG), metric="gini", kind="scale")
    assert [row["amount"] for row in found] == [0.5, 0.25]


def test_numbers_are_of_the_images_that_every_network_gets_right():
    scores, audited, traits = tables(ADDED, ROBUST)
    row = one(audit_table(scores, audited, traits, CONFIG), metric="gini", kind="blur", epsilon=8.0)
    kept = scores[(scores["attribution"] == "map") & (scores["metric"] == "gini") & (scores["image"] != 3)]
    assert row["n"] == IMAGES - 1
    assert row["standard"] == pytest.approx(kept[kept["epsilon"] == 0]["score"].mean(), abs=1e-6)
    assert (row["change"], row["transformed"] - row["standard"]) == pytest.approx((0.8, 0.8), abs=2e-6)
    traits["value"] += np.random.default_rng(1).normal(0, 0.01, size=len(traits))
    row = one(audit_table(scores, audited, traits, CONFIG), metric="gini", kind="blur", epsilon=8.0)
    own = traits[(traits["trait"] == "frequency") & (traits["image"] != 3)]
    places = {"standard": (0.0, 0.0), "trained": (8.0, 0.0), "matched": (0.0, 2.0)}  # training epsilon, amount
    for name, (epsilon, amount) in places.items():
        its = own[(own["epsilon"] == epsilon) & (own["amount"] == amount)]["value"]
        assert row[f"trait_{name}"] == pytest.approx(its.mean(), abs=1e-6)


def test_a_change_that_is_none_is_not_divided_by():
    for row in select(audit_table(*tables(ADDED, ROBUST), CONFIG), metric="still"):
        assert row["reason"] == NO_CHANGE
        assert np.isnan([row["reproduced"], row["low"], row["high"]]).all()


def test_a_change_within_its_interval_is_not_divided_by():
    scores, audited, traits = tables(ADDED, ROBUST)
    noisy = (scores["epsilon"] == 8) & (scores["metric"] == "gini")
    scores.loc[noisy, "score"] += np.random.default_rng(0).normal(-0.8, 1, size=noisy.sum())
    row = one(audit_table(scores, audited, traits, CONFIG), metric="gini", kind="blur", epsilon=8.0)
    assert row["change_low"] < 0 < row["change_high"]
    assert row["reason"] == NO_CHANGE


def test_without_a_trait_nothing_is_matched():
    scores, audited, traits = tables(ADDED, ROBUST)
    traits.loc[(traits["epsilon"] == 8) & (traits["trait"] == "frequency"), "value"] = np.nan
    row = one(audit_table(scores, audited, traits, CONFIG), metric="gini", kind="blur", epsilon=8.0)
    assert row["reason"] == NO_TRAIT
    assert np.isnan([row["amount"], row["transformed"], row["reproduced"], row["low"]]).all()


def test_no_audit_and_one_epsilon_have_no_rows():
    scores, audited, traits = tables(ADDED, ROBUST)
    assert audit_table(scores, pd.DataFrame(), pd.DataFrame(), CONFIG) == []
    alone = (table[table["epsilon"] == 0] for table in (scores, audited, traits))
    assert audit_table(*alone, CONFIG) == []


def test_maps_that_are_all_zero_are_nearest_to_the_smallest_scale():
    traits = ROBUST | {8.0: {"norm": 0.0}}
    assert one(audit_table(*tables(ADDED, traits), CONFIG), metric="gini", kind="scale", epsilon=8.0)["amount"] == 0.25
