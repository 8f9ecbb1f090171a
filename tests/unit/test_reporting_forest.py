"""Figures of the claims, the confounds and plausible maps: what is drawn where, and what the tips say."""

import math

import pytest
from matplotlib.figure import Figure

from epsilens.metrics import METRICS
from epsilens.reporting import forest, rates
from epsilens.reporting.findings import ONE_SEED
from epsilens.reporting.plausible import AUROC, RATES
from tests.unit.test_reporting_advice import look
from tests.unit.test_reporting_verdicts import FACTS, WANTED, row


def drawn(sheet):
    """The figure of a sheet and its tips."""
    figure = Figure(figsize=sheet.size, layout="constrained")
    return figure, list(sheet.draw(figure) or ())


def spans(axes):
    return [patch.get_x() for patch in axes.patches], [patch.get_x() + patch.get_width() for patch in axes.patches]


def test_a_claim_is_drawn_against_its_bound_and_shaded_where_it_is_supported():
    rows = [row(), row(scope="these networks", estimate=0.3), row(attribution="b", headline=False, estimate=9.0)]
    sheets = forest.claims(rows, FACTS, WANTED, 0.0)
    assert list(sheets) == ["claim-more-concise", "claims"]
    figure, tips = drawn(sheets["claim-more-concise"])
    [axes] = figure.axes
    assert [tip[1:3] for tip in tips] == [(0.25, 0), (0.3, 1)]
    assert tips[0].text == "training: +0.250 (+0.125 to +0.500), supported"
    assert [text.get_text() for text in axes.get_yticklabels()] == ["training", "these networks"]
    assert axes.collections[0].get_segments()[0].tolist() == [[0.125, 0], [0.5, 0]]
    low, high = axes.get_xlim()
    assert low < 0 < high
    assert spans(axes) == ([0.0], [high])
    assert axes.yaxis_inverted()


def test_a_claim_of_less_is_shaded_below_its_bound():
    sheet = forest.claims([row("not more relevant")], FACTS, WANTED, 0.0)["claim-not-more-relevant"]
    [axes] = drawn(sheet)[0].axes
    assert spans(axes) == ([axes.get_xlim()[0]], [0.05])
    assert axes.lines[-1].get_xdata() == [0.05, 0.05]


def test_an_undefined_claim_says_why_and_two_metrics_are_two_panels():
    undefined = {"estimate": math.nan, "interval": [math.nan] * 2, "why": "no $gain$"}
    rows = [row("modest training helps"), row("modest training helps", metric="shake", **undefined)]
    sheets = forest.claims(rows, FACTS, WANTED, 0.0)
    figure, tips = drawn(sheets["claim-modest-training-helps"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Gini index", "Shake"]
    assert [text.get_text() for text in figure.axes[1].texts] == [r"no \$gain\$"]
    assert len(tips) == 1
    every, _ = drawn(sheets["claims"])
    title = "Modest training helps\nshare of the gain in Gini index that is there at ε = 8"
    assert every.axes[0].get_title(loc="left") == title
    assert forest.claims([], FACTS, WANTED, 0.0) == {}
    sheets["claims"].svg()


@pytest.mark.parametrize("label", sorted({metric.facts.label for metric in METRICS.values()}))
def test_titles_are_on_the_figure(label):
    facts = {"metrics": {"shake": {"label": label, "better": "lower"}}}
    figure, _ = drawn(
        forest.claims([row("modest training helps", metric="shake", epsilon=0.25)], facts, WANTED, 0.0)["claims"]
    )
    figure.draw_without_rendering()
    title = figure.axes[0]._left_title.get_window_extent()
    assert 0 < title.x0 < title.x1 < figure.bbox.width
    assert 0 < title.y0 < title.y1 <= figure.bbox.height


def test_what_has_no_interval_is_not_drawn_but_said():
    """Of training with one seed: an estimate, and nothing that says how sure it is."""
    single = row(interval=[math.nan] * 2, why=ONE_SEED)
    figure, tips = drawn(forest.claims([single], FACTS, WANTED, 0.0)["claims"])
    [axes] = figure.axes
    assert tips == []
    assert [text.get_text() for text in axes.texts] == [ONE_SEED]
    assert len(axes.collections) == 0
    assert axes.get_xlim() == (-0.5, 0.5)


def confound(metric, kind, reproduced, low, high, reason=""):
    return {"metric": metric, "kind": kind, "amount": 2.0, "trait": "norm", "trait_matched": 0.5, "trait_trained": 0.25,
            "reproduced": reproduced, "low": low, "high": high, "reason": reason}  # fmt: skip


def test_confounds_are_drawn_from_none_to_all_with_arrows_beyond():
    rows = [confound("gini", "blur", 0.5, 0.25, 7.0), confound("gini", "scale", -9.0, -11.0, -8.0),
            confound("shake", "blur", math.nan, math.nan, math.nan, "too small")]  # fmt: skip
    figure, tips = drawn(forest.audit(rows, FACTS))
    [axes] = figure.axes
    left, right = axes.get_xlim()
    assert (left, right) == pytest.approx((-1.08, 2.08))
    assert [tip.x for tip in tips] == [0.5, left]
    assert tips[0].text == "blur by 2 (norm 0.5, trained 0.25): 50.0 % (25.0 to 700.0) reproduced"
    arrows = [(line.get_marker(), line.get_xdata()[0]) for line in axes.lines if line.get_marker() in "<>"]
    assert arrows == [(">", right), ("<", left)]
    assert [line.get_xdata()[0] for line in axes.lines[:2]] == [0, 1]
    assert "undefined: too small" in [text.get_text() for text in axes.texts]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["blur", "scale"]
    assert forest.audit([], FACTS) is None


def test_plausible_maps_have_a_line_a_set_and_the_bounds_of_the_claims():
    rows = [look(measure, epsilon, 0.2, low=0.1, within=within) | {"n": 9}
            for measure in RATES[:2] for within in rates.SETS for epsilon in (0.0, 8.0)]  # fmt: skip
    rows += [look(AUROC, epsilon, 0.7) | {"n": 9} for epsilon in (0.0, 8.0)]
    rows += [look(RATES[0], 16.0, math.nan, maps=0) | {"n": 0}]
    sheets = rates.plausible(rows, "a", norm="linf", margin=0.1, rate=0.25)
    assert list(sheets) == ["plausible-rate", "plausible-misleading", "plausible-auroc"]
    figure, tips = drawn(sheets["plausible-rate"])
    [axes] = figure.axes
    assert len(tips) == 6  # none where no map counts
    assert tips[0].text == "all predictions, training ε = 0: 20.0 % (10.0 to 50.0), 9 images"
    assert axes.texts[0].get_text() == "no direction is better in itself"
    assert len({line.get_xdata()[0] for line in axes.lines}) == 3  # beside each other
    [axes] = drawn(sheets["plausible-misleading"])[0].axes
    assert axes.texts[0].get_text() == "↓ lower is better"
    assert axes.lines[-1].get_ydata() == [0.25, 0.25]
    [axes] = drawn(sheets["plausible-auroc"])[0].axes
    assert [line.get_ydata()[0] for line in axes.lines] == pytest.approx([0.7, 0.5, 0.6])
    assert rates.plausible(rows, "other", norm="linf", margin=0.1, rate=0.25) == {}
