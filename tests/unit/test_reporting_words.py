import json
import math
from pathlib import Path

import pytest

from epsilens.reporting.formats import better, number, percent, points, spread
from epsilens.reporting.gallery import arrange
from epsilens.reporting.sheet import own_ids
from epsilens.reporting.style import method_styles, plain, positions, unit
from epsilens.reporting.words import cautions, headlines
from tests.options import report_config

PLAUSIBLE = ("m", "m", "m", "c")
CONFIG = report_config(attribution="a", metrics=("m",), bootstrap=100, seed=0, confidence=0.95, plausible=PLAUSIBLE)
FACTS = {
    "metrics": {"m": {"label": "M", "better": "lower", "chance": 0.25}},
    "attributions": {
        "a": {"label": "A", "kind": "method"},
        "r": {"label": "R", "kind": "control"},
        "s": {"label": "S", "kind": "control"},
    },
}


def quality(difference, low, high, *, start=0.5, n=40, nan=0, n_seeds=2, epsilons=(0.0, 8.0)):
    means = {"a": start, "r": 0.3, "s": 0.2}
    return [
        {"set": name, "epsilon": e, "attribution": method, "metric": "m", "mean": mean + difference * (e > 0),
         "low": mean - 0.1, "high": mean + 0.1, "difference": difference * (e > 0), "difference_low": low * (e > 0),
         "difference_high": high * (e > 0), "n": n, "nan": nan, "n_seeds": n_seeds}
        for name in ("common", "all", "own") for method, mean in means.items() for e in epsilons
    ]  # fmt: skip


def headline(*change, **parts):
    return headlines([], quality(*change, **parts), FACTS, CONFIG, norm="linf", budget=8.0)[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, "0.123"), (-1.5, "−1.500"), (0.0, "0.000"), (0.00012, "0.00012"), (1234.56, "1234.6"), (math.nan, "–")],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def test_what_is_not_known_is_a_dash():
    assert number(None) == percent(None) == "–"


def test_shares():
    assert percent(0.1234) == "12.3 %"
    assert points(-0.05) == "−5.0"
    assert percent(math.nan) == "–"


def test_a_value_carries_its_interval():
    row = {"mean": -0.5, "low": -0.75, "high": 0.25}
    assert spread(row, "mean") == "−0.500 (−0.750 to 0.250)"
    assert spread(row, "mean", percent) == "−50.0 % (−75.0 to 25.0)"
    assert spread({"mean": 0.5, "low": math.nan, "high": math.nan}, "mean") == "0.500"
    assert spread({"mean": 0.5, "low": None, "high": None}, "mean") == "0.500"


def test_a_rise_and_a_fall_carry_their_interval_and_sign():
    rise = headline(0.2, 0.1, 0.3)
    assert rise.values == "0.500 → 0.700"
    assert rise.sentence.startswith(
        "Rises by 0.200 from training ε\xa0=\xa00 to ε\xa0=\xa08 (95\xa0% interval 0.100 to 0.300)"
    )
    fall = headline(-0.2, -0.3, -0.1)
    assert fall.sentence.startswith("Falls by 0.200")
    assert "interval 0.100 to 0.300" in fall.sentence


@pytest.mark.parametrize("interval", [(-0.01, 0.03), (0.0, 0.03), (-0.03, 0.0)])
def test_an_interval_that_touches_zero_is_no_change_and_no_proof_of_equality(interval):
    sentence = headline(0.01, *interval).sentence
    assert sentence.startswith("No clear change")
    assert "does not prove that nothing changes" in sentence


def test_the_note_names_direction_chance_and_the_best_control():
    assert (
        headline(0.2, 0.1, 0.3).note
        == "↓ lower is better · chance 0.250 · best control at ε\xa0=\xa08: 0.400 (S) · 40 images"
    )


def test_one_epsilon_and_undefined_headlines():
    assert "nothing to compare" in headline(0.0, 0.0, 0.0, epsilons=(4.0,)).sentence
    assert headline(0.1, 0.0, 0.2, start=math.nan).values == "–"


def test_accuracy_changes_are_in_points():
    row = {"split": "test_without_cue", "attack": "clean", "norm": "linf", "budget": 0.0, "n_images": 9}
    row |= {"low": 0.1, "high": 0.9}
    change = {"difference": -0.25, "difference_low": -0.3, "difference_high": -0.2}
    rows = [row | {"epsilon": 0.0, "accuracy": 0.75}, row | {"epsilon": 8.0, "accuracy": 0.5} | change]
    attacked = row | {"split": "test", "attack": "autoattack", "budget": 8.0, "epsilon": 8.0, "accuracy": 0.5}
    others = [attacked, attacked | {"norm": "l2"}, attacked | {"budget": 4.0}]
    cards = headlines([*rows, *others], quality(0.2, 0.1, 0.3), FACTS, CONFIG, norm="linf", budget=8.0)
    assert [card.title for card in cards[1:-1]] == ["Accuracy under AutoAttack, ε = 8"]
    assert "one training ε" in cards[1].sentence  # one row: neither the other norm nor the other budget
    found = cards[0]
    assert found.title == "Clean accuracy, test without cue"
    assert found.values == "75.0 % → 50.0 %"
    assert found.sentence.startswith("Falls by 25.0 points")
    assert "interval 20.0 to 30.0" in found.sentence


def test_a_difference_of_networks_that_share_no_seed_has_no_interval():
    sentence = headline(0.2, math.nan, math.nan).sentence
    assert sentence == (
        "Differs by 0.200 from training ε\xa0=\xa00 to ε\xa0=\xa08; no interval, because the two share no seed."
    )


def test_cautions_say_what_is_missing():
    def said(**parts):
        return " ".join(cautions(quality(0.2, 0.1, 0.3, **parts), FACTS, CONFIG))

    assert "One seed: the intervals hold for these very networks" in said(n_seeds=1)
    assert "2 seeds" in said()
    assert "only roughly" not in said(n_seeds=5)
    assert "Only 12 of 12" in said(n=12)
    assert "headline set is empty" in said(n=0)
    assert "Undefined on every image (relevance needs masks): M" in said(n=0, nan=40)
    assert "12 single scores are undefined" in said(nan=2)
    assert "Among 3 pairs" in said()
    assert "One training ε" in said(epsilons=(1.0,))
    assert "One training ε" not in said()


def test_one_of_everything_says_what_cannot_be_concluded():
    """One image, one seed, one epsilon, which is not 0."""
    one = quality(0.0, math.nan, math.nan, n=1, n_seeds=1, epsilons=(8.0,))
    said = " ".join(cautions(one, FACTS, CONFIG))
    for told in (
        "One seed: the intervals hold for these very networks",
        "One image was scored: nothing here tells how others would score.",
        "One training ε: the study has nothing to compare it with.",
        "No network was trained without an adversary: what that changes cannot be concluded. ε = 8 stands",
    ):
        assert told in said
    assert headlines([], one, FACTS, CONFIG, norm="linf", budget=8.0)[0].note.endswith(" · 1 image")
    usual = " ".join(cautions(quality(0.2, 0.1, 0.3), FACTS, CONFIG))
    assert "One" not in usual
    assert "without an adversary" not in usual


def test_even_budgets_keep_their_scale_and_crowded_ones_do_not():
    assert positions([8, 0, 1, 4, 0]) == {0: 0, 1: 1, 4: 4, 8: 8}
    assert positions([0, 5, 0.01, 0.5]) == {0: 0, 0.01: 1, 0.5: 2, 5: 3}
    assert positions([4.0]) == {4.0: 4.0}


def test_no_two_lines_look_alike_and_controls_are_grey():
    names = [f"m{i}" for i in range(12)] + [f"c{i}" for i in range(8)]
    styles = method_styles(names, {name for name in names if name[0] == "c"})
    assert len({(s["color"], s["marker"], str(s["linestyle"])) for s in styles.values()}) == 20
    assert all((s["linestyle"] == "-") == (name[0] == "m") for name, s in styles.items())


def test_text_helpers():
    assert plain("a$b$") == r"a\$b\$"
    assert own_ids('<g id="x"><use href="#x"/><p clip-path="url(#y)"/>', "a b") == (
        '<g id="a-b-x"><use href="#a-b-x"/><p clip-path="url(#a-b-y)"/>'
    )
    assert (unit("linf"), unit("l2"), unit("L1")) == ("1/255, L∞", "L2", "L1")
    assert better({"better": None}) == "no direction is better in itself"


def test_gallery_matches_images_by_id_and_leaves_gaps():
    card = {"methods": ["a"], "images": [{"row": 0, "id": 5, "label": "x", "prediction": "y", "confidence": 0.5}]}
    other = {"methods": ["a", "r"], "images": [{"row": 1, "id": 5, "label": "x", "prediction": "x", "confidence": 0.9}]}
    (image,) = arrange({8.0: (other, {"1-a": b"b", "1-r": b"c"}), 0.0: (card, {"0-a": b"a", "0-input": b"i"})}, FACTS)
    assert [column["epsilon"] for column in image["columns"]] == [0.0, 8.0]
    assert [column["right"] for column in image["columns"]] == [False, True]
    assert image["input"] == "data:image/png;base64,aQ=="
    assert image["rows"] == [
        {"method": "A", "control": False, "cells": ["data:image/png;base64,YQ==", "data:image/png;base64,Yg=="]},
        {"method": "R", "control": True, "cells": [None, "data:image/png;base64,Yw=="]},
    ]


def test_the_plot_template_of_dvc_is_json_with_its_anchors():
    template = (Path(__file__).parents[2] / ".dvc/plots/lines_by_model.json").read_text(encoding="utf-8")
    assert "vega-lite/v5" in json.loads(template)["$schema"]
    for anchor in ("DATA", "TITLE", "X", "Y", "X_LABEL", "Y_LABEL"):
        assert f"<DVC_METRIC_{anchor}>" in template
