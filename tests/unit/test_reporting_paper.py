"""The files for a paper: PDF figures, LaTeX tables, from the rows alone."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from epsilens import artifacts
from epsilens.reporting import latex, paper
from epsilens.reporting.report import tabulate
from stages import paper as stage
from tests.unit.test_reporting_report import CONFIG, EVIL, gate, study
from tests.unit.test_reporting_stage import results  # noqa: F401 - a fixture


def made(inputs):
    return paper.build(inputs, tabulate(inputs, CONFIG), CONFIG)


def body(tex):
    """The cells of each line of a tabular, and its rules."""
    lines = tex.decode().splitlines()
    inside = lines[next(i for i, line in enumerate(lines) if line.startswith(r"\begin{tabular}")) + 1 : -1]
    return [line if line.startswith("\\") else line.removesuffix(r" \\").split(" & ") for line in inside]


@pytest.fixture(scope="module")
def files():
    return made(study())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"50 % of {a_b} & \c $x$", r"50 \% of \{a\_b\} \& \textbackslash{}c \$x\$"),
        ("#1 ~ ^", r"\#1 \textasciitilde{} \textasciicircum{}"),
        ("ε × −1 |x| <y> ∞ –", r"$\varepsilon$ $\times$ $-$1 $|$x$|$ $<$y$>$ $\infty$ --"),
        ("plain", "plain"),
        (latex.Tex(r"\emph{a}"), r"\emph{a}"),
    ],
)  # fmt: skip
def test_escaping(text, wanted):
    assert latex.escape(text) == wanted


def test_an_interval_stands_small_behind_its_value():
    row = {"mean": -0.5, "low": -0.75, "high": 0.25, "accuracy": 0.5}
    assert latex.interval(row, "mean") == r"$-$0.500 {\scriptsize ($-$0.750, 0.250)}"
    assert latex.interval({"mean": 0.5, "low": math.nan, "high": math.nan}, "mean") == "0.500"
    assert latex.interval({"mean": math.nan, "low": math.nan, "high": math.nan}, "mean") == "--"
    assert latex.interval(None, "mean") == "--"


def test_a_table_is_a_tabular_with_rules_between_its_groups():
    found = latex.render(
        latex.Table(["a", "b", "c"], [[["x", "1", "2"]], [], [["y", "3", "4"]]], ["a note\nof two lines"])
    )
    assert found.decode().splitlines() == [
        r"% needs \usepackage{booktabs}", "% a note of two lines", r"\begin{tabular}{lrr}", r"\toprule", r"a & b & c \\",
        r"\midrule", r"x & 1 & 2 \\", r"\midrule", r"y & 3 & 4 \\", r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip


def test_files_of_a_paper(files):
    assert {name for name in files if name.endswith(".tex")} == {
        "tables/accuracy.tex", "tables/explanations.tex", "tables/methods-gini.tex", "tables/methods-mass.tex",
    }  # fmt: skip
    pdfs = {name for name in files if name.endswith(".pdf")}
    assert {"figures/accuracy.pdf", "figures/trade-off-gini.pdf", "figures/metric-mass.pdf"} <= pdfs
    assert {"figures/claims.pdf", "figures/plausible-auroc.pdf"} <= pdfs
    assert len(pdfs) == 12 + 8 + 3
    for name in pdfs:
        assert files[name].startswith(b"%PDF")
        assert b"/Type3" not in files[name]
        assert b"CreationDate" not in files[name]


def test_tables_have_their_rows_in_place(files):
    for name, tex in files.items():
        if name.endswith(".tex"):
            lengths = {len(line) for line in body(tex) if isinstance(line, list)}
            assert len(lengths) == 1
            assert re.search(r"\\begin\{tabular\}\{l(r+)\}", tex.decode())[1] == "r" * (lengths.pop() - 1)
    rows = body(files["tables/accuracy.tex"])
    assert [line[0] for line in rows if isinstance(line, list)][1:] == ["0", "1", "4", "8"]
    assert rows[1][1] == "clean"
    assert r"PGD, $\varepsilon$ = 8" in rows[1]
    methods = body(files["tables/methods-gini.tex"])
    rules = [i for i, line in enumerate(methods) if line == r"\midrule"]
    assert [line[0] for line in methods[rules[1] + 1 : -1]] == ["Random"]  # controls
    assert methods[1][0] == r"Gini index $\uparrow$"


def test_numbers_are_those_of_the_tables(files):
    tables = tabulate(study(), CONFIG)
    (row,) = [r for r in tables.headline if r["metric"] == "gini" and r["epsilon"] == 4.0]
    line = next(line for line in body(files["tables/explanations.tex"]) if line[0] == "4")
    assert line[1] == rf"{row['mean']:.3f} {{\scriptsize ({row['low']:.3f}, {row['high']:.3f})}}"


def test_same_rows_same_bytes(files):
    assert files == made(study())


def test_what_was_left_out_and_one_seed_are_said():
    inputs = study(images=8)
    masked = replace(inputs, gates=inputs.gates | {(8.0, 1): gate(0.5)})
    for tex in [tex for name, tex in made(masked).items() if name.endswith(".tex")]:
        assert "% left out, not sound: training ε\xa0=\xa08, seed\xa01".replace("\xa0", " ") in tex.decode()
    one = made(study(seeds=(0,), images=8))["tables/accuracy.tex"].decode()
    assert "95 % intervals over images, of these very networks: one seed" in one
    none = made(replace(inputs, gates={cell: gate(0.5) for cell in inputs.gates}))["tables/accuracy.tex"].decode()
    assert "no network passed the gate" in none


def test_names_cannot_break_a_table():
    inputs = study(images=4)
    facts = {"metrics": dict(inputs.facts["metrics"]), "attributions": dict(inputs.facts["attributions"])}
    facts["attributions"]["gradient"] = {"kind": "method", "label": f"a_b & c % \\\n{EVIL}", "source": "-"}
    tex = made(replace(inputs, facts=facts))["tables/methods-gini.tex"]
    assert len({len(line) for line in body(tex.replace(rb"\&", b"")) if isinstance(line, list)}) == 1
    assert r"a\_b \& c \% \textbackslash{} " in tex.decode()


def test_the_stage_writes_the_paper_and_nothing_else(results, capsys):  # noqa: F811 - the fixture
    stage.main()
    assert {path.parts[:2] for path in Path().rglob("*.tex")} == {("reports", "paper")}
    assert (artifacts.PAPER / "tables" / "quality.csv").read_text(encoding="utf-8").startswith("set,epsilon,")
    assert not artifacts.METRICS.exists()
    assert "paper: reports/paper" in capsys.readouterr().out
    (artifacts.PAPER / "old.tex").touch()
    stage.main()
    assert not (artifacts.PAPER / "old.tex").exists()
