import math
import re

import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from epsilens.reporting import figures, panels
from epsilens.reporting.sheet import Sheet, Tip
from epsilens.reporting.style import COLOURS, PAPER

FACTS = {
    "metrics": {"m": {"label": "M", "better": "higher", "chance": 0.25, "low": -1, "high": 1}},
    "attributions": {"a": {"label": "A", "kind": "method"}, "r": {"label": "R", "kind": "control"}},
}


class Drawn(dict):
    def __init__(self):
        super().__init__()
        self.tips = {}


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """The figures drawn in a test, by name; `tips` holds the tips of each."""
    sheets = Drawn()

    def keep(name, size, draw):
        sheets[name] = Figure(figsize=size)
        sheets.tips[name] = list(draw(sheets[name]) or ())
        return b""

    for module in (figures, panels):
        monkeypatch.setattr(module, "Sheet", keep)
    return sheets


def accuracy(epsilon, split, attack, budget, value, norm="linf"):
    return {"epsilon": epsilon, "split": split, "attack": attack, "norm": norm, "budget": budget, "accuracy": value,
            "low": value - 0.1, "high": value + 0.05}  # fmt: skip


ACCURACY = [
    accuracy(0.0, "test", "clean", 0.0, 0.9),
    accuracy(8.0, "test", "clean", 0.0, 0.8),
    accuracy(0.0, "test", "pgd", 4.0, 0.2),
    accuracy(8.0, "test", "pgd", 4.0, 0.7),
    accuracy(8.0, "test", "pgd", 2.0, 0.75),
    accuracy(0.0, "test_b", "clean", 0.0, 0.5),
    accuracy(8.0, "test_b", "clean", 0.0, 0.6),
]
QUALITY = [
    {"epsilon": e, "attribution": method, "metric": "m", "mean": mean, "low": mean - 0.2, "high": mean + 0.1}
    for method, ends in {"a": (0.3, 0.6), "r": (0.2, 0.1)}.items()
    for e, mean in zip((0.0, 8.0), ends, strict=True)
]


def lines(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def test_accuracy_lines_show_the_headline_budget_only(drawn):
    other = [accuracy(8.0, "test", "square", 2.0, 0.1), accuracy(8.0, "test", "pgd", 4.0, 0.33, "l2")]
    rows = [*ACCURACY, *other, accuracy(8.0, "test", "autoattack", 4.0, 0.65)]
    networks = [row | {"seed": seed, "gate": "sound"} for row in rows for seed in (0, 1)]
    figures.accuracy(rows, networks, budget=4.0, norm="linf")
    (axes,) = drawn["accuracy"].axes
    shown = {label: line.get_ydata().tolist() for label, line in lines(axes).items()}
    assert shown == {
        "clean": [0.9, 0.8], "PGD, ε = 4": [0.2, 0.7], "test b, clean": [0.5, 0.6], "AutoAttack, ε = 4": [0.65]
    }  # fmt: skip
    assert axes.get_xlabel() == "training ε (1/255, L∞)"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "8"]


def test_a_network_that_did_not_pass_is_a_cross_and_has_its_place_on_the_axis(drawn):
    sound = [row | {"seed": 0, "gate": "sound"} for row in ACCURACY]
    masked = accuracy(16.0, "test", "pgd", 4.0, 0.95) | {"seed": 0, "gate": "gap, square"}
    figures.accuracy(ACCURACY, [*sound, masked], budget=4.0, norm="linf")
    (axes,) = drawn["accuracy"].axes
    crosses = [found for found in axes.collections if isinstance(found, PathCollection)]
    assert [found.get_offsets().tolist() for found in crosses] == [[[16.0, 0.95]]]  # one seed: no dots but the cross
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "8", "16"]
    legend = [text.get_text() for text in drawn["accuracy"].legends[0].get_texts()]
    assert legend == ["clean", "PGD, ε = 4", "test b, clean", "did not pass the gate"]
    figures.accuracy(ACCURACY, sound, budget=4.0, norm="linf")
    assert len(drawn["accuracy"].legends[0].get_texts()) == 3
    figures.accuracy(ACCURACY, [*sound, *(row | {"seed": 1} for row in sound), masked], budget=4.0, norm="linf")
    offsets = [
        found.get_offsets().tolist() for found in drawn["accuracy"].axes[0].collections
        if isinstance(found, PathCollection)
    ]  # fmt: skip
    assert sum(points.count([16.0, 0.95]) for points in offsets) == 1  # a cross and no dot
    assert len(offsets) == 4


def test_security_curves_are_lines_of_a_training_budget_along_the_attack_budget(drawn):
    budgets = {0.0: (0.9, 0.8), 1.0: (0.3, 0.75), 8.0: (0.1, 0.4), 128.0: (0.0, 0.01)}
    rows = [
        accuracy(e, "test", "pgd", b, values[e == 8.0])
        for b, values in reversed(budgets.items()) for e in (8.0, 0.0)
    ]  # fmt: skip
    strange = [accuracy(0.0, "test", "pgd", 2.0, 0.5, "l2"), accuracy(0.0, "test", "square", 2.0, 0.5)]
    figures.security([*rows, *strange, *ACCURACY[5:]], norm="linf", trained="l2")
    (axes,) = drawn["security-linf"].axes
    shown = {label: line.get_xydata().tolist() for label, line in lines(axes).items()}
    assert shown == {
        f"training ε = {e}": [[b, values[e == 8]] for b, values in budgets.items()] for e in (0, 8)
    }  # fmt: skip
    assert axes.collections[0].get_datalim(axes.transData).intervaly.tolist() == pytest.approx([-0.1, 0.95])
    assert axes.get_xscale() == "symlog"
    places = axes.transData.transform([[b, 0] for b in (0, 1, 2, 128)])[:, 0]
    assert (places[2] - places[1]) == pytest.approx((places[3] - places[1]) / 7)  # a step for each doubling
    assert (places[1] - places[0]) == pytest.approx(places[2] - places[1], rel=0.01)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "8", "128"]
    assert axes.get_xlabel() == "attack ε of PGD (1/255, L∞), logarithmic above 1"
    assert axes.texts[0].get_text() == "↑ higher is better     training ε in L2"
    assert len(drawn.tips["security-linf"]) == 8
    assert drawn.tips["security-linf"][3].text == "training ε = 0, attack ε = 128: 0.0 % (−10.0 to 5.0)"


def test_a_security_curve_of_even_budgets_is_to_scale_and_one_of_one_budget_is_none(drawn):
    figures.security(ACCURACY, norm="linf", trained="linf")
    (axes,) = drawn["security-linf"].axes
    assert (axes.get_xscale(), axes.get_xlabel()) == ("linear", "attack ε of PGD (1/255, L∞)")
    assert figures.security(ACCURACY[:4], norm="linf", trained="linf") is None
    assert figures.security(ACCURACY, norm="l2", trained="linf") is None


def test_matrix_rows_are_training_budgets_and_columns_attack_budgets(drawn):
    rows = [row | {"norm": "l2"} if row["attack"] == "pgd" else row for row in ACCURACY]
    figures.matrix([*rows, accuracy(0.0, "test", "pgd", 2.0, 0.33)], attack="pgd", norm="l2", trained="linf")
    (axes,) = drawn["matrix-pgd-l2"].axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("attack ε of PGD (L2)", "training ε (1/255, L∞)")
    *numbers, remark = axes.texts
    assert remark.get_text() == "test accuracy in %     ↑ higher is better"
    cells = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in numbers}
    assert cells == {(0.5, 0.5): "90.0", (0.5, 1.5): "–", (0.5, 2.5): "20.0",
                     (1.5, 0.5): "80.0", (1.5, 1.5): "75.0", (1.5, 2.5): "70.0"}  # fmt: skip
    assert [text.get_text() for text in axes.get_xticklabels()] == ["clean", "2", "4"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0", "8"]
    assert axes.yaxis_inverted()
    assert figures.matrix(ACCURACY, attack="square", norm="linf", trained="linf") is None
    assert figures.matrix(ACCURACY, attack="pgd", norm="l2", trained="linf") is None
    assert figures.matrix(ACCURACY[:4], attack="pgd", norm="linf", trained="linf") is None  # one budget is no matrix


def test_metric_shows_methods_with_intervals_controls_without_and_chance(drawn):
    panels.metric(QUALITY, "m", FACTS, norm="linf")
    (axes,) = drawn["metric-m"].axes
    shown = lines(axes)
    assert shown["A"].get_ydata().tolist() == [0.3, 0.6]
    assert shown["A"].get_color() in COLOURS
    assert shown["R"].get_ydata().tolist() == [0.2, 0.1]
    assert shown["R"].get_linestyle() != "-"
    assert list(shown["chance level"].get_ydata()) == [0.25, 0.25]
    band, bars = axes.collections
    assert band.get_datalim(axes.transData).intervaly.tolist() == pytest.approx([0.1, 0.7])
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [
        pytest.approx([0.1, 0.4]),
        pytest.approx([0.4, 0.7]),
    ]
    assert [text.get_text() for text in axes.texts] == ["↑ higher is better     range −1 to 1"]
    assert axes.get_ylabel() == "mean score"
    assert {line.get_gid() for line in (shown["A"], shown["R"])} == {"series-0.line", "series-1.line"}
    assert [tip.text for tip in drawn.tips["metric-m"]][1::2] == [
        "A, training ε = 8: 0.600 (0.400 to 0.700)", "R, training ε = 8: 0.100 (−0.100 to 0.200)",
    ]  # fmt: skip


def test_an_undefined_score_has_no_mark_and_no_tip(drawn):
    rows = [row | {"mean": math.nan} if row["attribution"] == "a" else row for row in QUALITY]
    panels.metric(rows, "m", FACTS, norm="linf")
    assert [tip.text[0] for tip in drawn.tips["metric-m"]] == ["R", "R"]


def test_a_line_has_its_style_and_key_whatever_metric_lacks_it(drawn):
    other = [row | {"metric": "o"} for row in QUALITY if row["attribution"] == "r"]
    facts = {**FACTS, "metrics": FACTS["metrics"] | {"o": {"label": "O", "better": None}}}
    panels.metric([*QUALITY, *other], "o", facts, norm="linf")
    (axes,) = drawn["metric-o"].axes
    assert lines(axes)["R"].get_gid() == "series-1.line"
    assert axes.texts[0].get_text() == "no direction is better in itself"


def test_trade_off_has_a_cross_at_each_epsilon(drawn):
    panels.trade_off(ACCURACY, QUALITY, "m", "a", FACTS, norm="linf")
    (axes,) = drawn["trade-off-m"].axes
    assert axes.lines[0].get_xydata().tolist() == [[0.9, 0.3], [0.8, 0.6]]
    across, up = axes.collections[:2]
    assert across.get_segments()[0].ravel().tolist() == pytest.approx([0.8, 0.3, 0.95, 0.3])
    assert up.get_segments()[0].ravel().tolist() == pytest.approx([0.9, 0.1, 0.9, 0.4])
    assert [text.get_text() for text in axes.texts][:2] == ["ε = 0", "ε = 8"]
    assert axes.get_xlabel() == "clean accuracy (%; → higher is better)"
    assert axes.get_xlim()[1] <= 1.03
    assert [tip[1:3] for tip in drawn.tips["trade-off-m"]] == [(0.9, 0.3), (0.8, 0.6)]
    assert drawn.tips["trade-off-m"][1].text == (
        "training ε = 8: 0.600 (0.400 to 0.700), clean accuracy 80.0 % (70.0 to 85.0)"
    )
    undefined = [row | {"mean": math.nan} for row in QUALITY]
    assert panels.trade_off(ACCURACY, undefined, "m", "a", FACTS, norm="linf") is None


def test_a_trade_off_marks_the_front_its_knee_and_the_recommended_epsilon(drawn):
    kinds = {0.0: (True, False, None), 4.0: (True, True, True), 8.0: (False, False, False)}
    choice = [
        {"metric": "m", "epsilon": e, "front": front, "knee": knee, "recommended": taken}
        for e, (front, knee, taken) in kinds.items()
    ]
    choice.append(choice[1] | {"metric": "other", "epsilon": 8.0})
    rows = [accuracy(e, "test", "clean", 0.0, value) for e, value in ((0.0, 0.9), (4.0, 0.8), (8.0, 0.7))]
    quality = [
        {"epsilon": e, "attribution": "a", "metric": "m", "mean": mean, "low": mean, "high": mean}
        for e, mean in ((0.0, 0.1), (4.0, 0.6), (8.0, 0.5))
    ]
    panels.trade_off(rows, quality, "m", "a", FACTS, norm="linf", choice=choice)
    (axes,) = drawn["trade-off-m"].axes
    path, front, *marks = axes.lines
    assert len(path.get_xdata()) == 3
    assert front.get_xydata().tolist() == [[0.8, 0.6], [0.9, 0.1]]
    ring, square = (next(line for line in marks if line.get_markersize() == size) for size in (12, 15))
    assert ring.get_xydata().tolist() == square.get_xydata().tolist() == [[0.8, 0.6]]
    points = [line for line in marks if line.get_markersize() == 6]
    assert [line.get_markerfacecolor() == PAPER for line in points] == [False, False, True]
    names = [text.get_text() for text in drawn["trade-off-m"].legends[0].get_texts()]
    assert names == ["Pareto front", "dominated", "knee", "recommended"]
    tips = [tip.text.partition("; ")[2] for tip in drawn.tips["trade-off-m"]]
    assert tips == ["on the Pareto front", "on the Pareto front; knee of the front; recommended", ""]


def test_training_marks_the_kept_epoch_and_skips_what_was_not_recorded(drawn):
    rows = [
        {"epsilon": 0.0, "seed": 0, "epoch": e, "loss": 3.0 - e, "validation_accuracy": 0.5 + e / 10,
         "validation_robust_accuracy": None, "kept": e == 1}
        for e in range(3)
    ]  # fmt: skip
    figures.training(rows)
    top, bottom = drawn["training"].axes
    assert [line.get_ydata().tolist() for line in top.lines] == [[0.5, 0.6, 0.7]]
    assert [line.get_ydata().tolist() for line in bottom.lines] == [[3.0, 2.0, 1.0]]
    assert top.collections[0].get_offsets().tolist() == [[1.0, 0.6]]
    assert [axes.texts[0].get_text() for axes in (top, bottom)] == ["↑ higher is better", "↓ lower is better"]
    assert figures.training([]) is None


SHEET = Sheet("name", (2, 1), lambda figure: figure.add_subplot().set_title("A") and None)


def test_files_do_not_tell_when_they_were_drawn():
    svg, pdf = SHEET.svg(), SHEET.pdf()
    assert b"<dc:date>" not in svg
    assert b"CreationDate" not in pdf
    assert (svg, pdf) == (SHEET.svg(), SHEET.pdf())


def test_a_pdf_embeds_its_fonts_as_type_42():
    pdf = SHEET.pdf()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf


def sheet_with_tips(figure):
    axes = figure.add_axes((0.25, 0.25, 0.5, 0.5))
    axes.set(xlim=(0, 10), ylim=(0, 1))
    axes.plot([0, 10], [0, 1], label="a line")
    figure.legend(loc="outside lower center")
    return [Tip(axes, 10.0, 1.0, "A < B & C"), Tip(axes, 0.0, 1.0, "D")]


@pytest.mark.filterwarnings("ignore:There are no gridspecs")
def test_a_tip_lies_where_its_mark_is():
    svg = Sheet("tips", (4, 2), sheet_with_tips).svg().decode()
    marks = re.findall(r'<circle class="tip" cx="([\d.]+)" cy="([\d.]+)"[^>]*><title>([^<]*)</title>', svg)
    assert marks == [("216.0", "36.0", "A &lt; B &amp; C"), ("72.0", "36.0", "D")]  # 288 x 144 points, y downwards
    assert svg.rstrip().endswith("</g>\n</svg>")


@pytest.mark.filterwarnings("ignore:There are no gridspecs")
def test_a_panel_has_no_legend_and_not_its_room():
    sheet = Sheet("tips", (4, 2), sheet_with_tips)
    whole, panel = sheet.svg().decode(), sheet.panel().decode()
    assert 'id="tips-legend_1"' in whole
    assert "legend" not in panel
    heights = [float(re.search(r'viewBox="0 0 288 ([\d.]+)"', svg)[1]) for svg in (whole, panel)]
    assert heights[0] == 144
    assert 115 < heights[1] < 135
