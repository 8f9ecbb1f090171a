"""Tables of recorded studies in a page: what stands in them, of a made-up study."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from epsilens import artifacts
from epsilens.errors import ConfigError, DataError
from epsilens.reporting.formats import short
from epsilens.reporting.results import filled

LABELS = {"gini": "Gini index", "direction_sensitivity": "Direction sensitivity"}


def csv(text: str) -> str:
    """Columns by blanks, for the reader's sake; _ is an empty field."""
    return "\n".join(
        ",".join("" if word == "_" else word for word in line.split()) for line in text.strip().splitlines()
    )


QUALITY = """
set     epsilon  attribution  metric                 mean    low     high    n
common  0.0      gradient     gini                   0.5     0.46    0.54    7
common  0.25     gradient     gini                   0.7512  _       _       7
all     0.25     gradient     gini                   0.1     0.1     0.1     9
common  0.25     gradient     direction_sensitivity  0.05    -0.004  0.104   7
common  0.25     sobel        gini                   _       _       _       7
"""
NETWORKS = """
epsilon  seed  split  attack      norm  budget  accuracy  n_images  gate
0.0      0     test   clean       l2    0.0     0.9       500       sound
0.0      1     test   clean       l2    0.0     0.9       500       gap
0.25     0     test   clean       l2    0.0     0.8       500       sound
0.0      0     own    clean       l2    0.0     0.9       900       sound
0.0      0     test   pgd         l2    0.25    0.1       40        sound
0.0      0     test   autoattack  l2    0.25    0.1       30        sound
"""
ACCURACY = """
epsilon  split     attack      norm  budget  accuracy  low   high
0.0      test      clean       l2    0.0     0.9       0.8   1.0
0.0      test      pgd         linf  0.25    0.77      0.7   0.8
0.0      test      pgd         l2    0.0     0.88      0.7   0.9
0.0      test      pgd         l2    0.25    0.2       0.1   0.3
0.0      test      autoattack  l2    0.25    0.15      0.1   0.2
0.0      own_test  clean       l2    0.0     0.85      0.8   0.9
0.25     test      clean       l2    0.0     0.8       0.7   0.9
"""
AUDIT = """
attribution  metric  kind         epsilon  reproduced  low    high
gradient     gini    scale        0.25     0.0         0.0    0.0
gradient     gini    blur         0.1      0.9         0.8    1.0
gradient     gini    blur         0.25     -0.354      -0.5   -0.144
smoothgrad   gini    blur         0.25     0.5         0.4    0.6
gradient     gini    temperature  0.25     _           _      _
"""
PLAUSIBLE = """
attribution  set      epsilon  measure     mean  low  high
gradient     all      0.0      plausible   0.2   0.1  0.3
gradient     correct  0.0      plausible   0.9   0.9  0.9
sobel        all      0.0      plausible   0.7   0.7  0.7
gradient     all      0.25     misleading  1.0   0.9  1.0
"""
MEANS = {  # of networks: two of ε = 0, one of which fails the gate, and two at other ε
    "epsilon": [0.0, 0.0, 0.25, 0.1, 0.0],
    "attribution": ["gradient"] * 4 + ["sobel"],
    "metric": ["gini"] * 5,
    "mean": [0.4, 0.5, 0.8, 0.7, 0.1],
}


def record(root: Path, claims: list[dict] | None = None, **tables: str) -> None:
    """A study `tiny` under L2, as `make record` keeps it."""
    folder = root / "metrics" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    report = {"attribution": "gradient", "metrics": ["gini", "direction_sensitivity"]}
    report["plausible"] = {"conciseness": "gini", "stability": "direction_sensitivity"}
    methods = {"gradient": {}, "sobel": {}, "grad_cam": {}}
    params = {"report": report, "threat": {"norm": "l2"}, "attack": {"epsilon": 0.25, "steps": 7}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params | {"attribute": {"methods": methods}}), encoding="utf-8")
    parts = {name: {"machine": {"instructions": name, "architecture": "x86_64"}} for name in ("NEON", "AVX2")}
    (folder / "provenance.json").write_text(json.dumps({"parts": parts}), encoding="utf-8")
    (folder / "claims.json").write_text(json.dumps(claims or []), encoding="utf-8")
    artifacts.write_rows(folder / artifacts.NETWORK_MEANS, MEANS)
    known = {"quality": QUALITY, "networks": NETWORKS, "accuracy": ACCURACY, "audit": AUDIT, "plausible": PLAUSIBLE}
    for name, text in (known | tables).items():
        (folder / f"{name}.csv").write_text(csv(text), encoding="utf-8")


def block(name: str) -> str:
    return f"Before.\n<!-- table: {name} tiny -->\n| old |\n<!-- end -->\nAfter.\n"


def rows(name: str, root: Path) -> list[str]:
    """The rows of a table, with its head, without the line below that."""
    lines = filled(block(name), LABELS, root).splitlines()
    assert (lines[0], lines[1], lines[-2], lines[-1]) == (
        "Before.",
        f"<!-- table: {name} tiny -->",
        "<!-- end -->",
        "After.",
    )
    assert set(lines[3]) <= set("|- ")
    return [lines[2], *lines[4:-2]]


TABLES = {
    "studies": [
        "| study | training ε | seeds | left out by the gate | PGD | AutoAttack | explained | right for all | processor |",
        "| [tiny](../metrics/tiny) | 0, 0.25 (L2) | 2, 1 | 1 of 3 | 40 | 30 | 9 | 7 | AVX2, NEON |",
    ],
    "accuracy": [
        "| training ε | clean | PGD-7 | AutoAttack | clean, own test |",
        "| 0 | .90 (.80 to 1.00) | .20 (.10 to .30) | .15 (.10 to .20) | .85 (.80 to .90) |",
        "| 0.25 | .80 (.70 to .90) | – | – | – |",
    ],
    "quality": [
        "| training ε | Gini index | Direction sensitivity |",
        "| 0 | .50 (.46 to .54) | – |",
        "| 0.25 | .75 | .050 (−.004 to .10) |",
    ],
    "ends": [
        "| method or control | Gini index | Direction sensitivity |",
        "| grad_cam | – | – |",
        "| gradient | .50 → .75 | .050 |",
        "| sobel | – | – |",
    ],
    "changes": [
        "| study | Gini index | Direction sensitivity |",
        "| tiny | .45 → .80 | – |",
    ],
    "gini-by-method": [
        "| method or control | ε = 0 | ε = 0.25 |",
        "| gradient | .50 (.46 to .54) | .75 |",
        "| sobel | – | – |",
    ],
    "audit": [
        "| study | metric | scale | blur | temperature |",
        "| tiny | Gini index | 0 (0 to 0) | −35 (−50 to −14) | – |",
        "| tiny | Direction sensitivity | – | – | – |",
    ],
    "plausible": [
        "| training ε | plausible | misleading |",
        "| 0 | .20 (.10 to .30) | – |",
        "| 0.25 | – | 1.00 (.90 to 1.00) |",
    ],
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_what_was_recorded(name: str, tmp_path: Path) -> None:
    record(tmp_path)
    assert rows(name, tmp_path) == TABLES[name]
    written = filled(block(name), LABELS, tmp_path)
    assert filled(written, LABELS, tmp_path) == written


def claim(scope: str, verdict: str, interval: list, **more: Any) -> dict:
    named = {"claim": "more concise", "metric": "gini", "attribution": "gradient", "headline": True, "estimate": -0.3}
    return named | {"scope": scope, "verdict": verdict, "interval": interval} | more


BOTH = [claim("training", "undecided", [-0.75, 0.05]), claim("these networks", "contradicted", [-0.4, -0.2])]


def test_a_verdict_is_told_of_training_and_of_these_networks(tmp_path: Path) -> None:
    other = {"attribution": "smoothgrad", "headline": False, "estimate": 0.9}
    record(tmp_path, [*BOTH, claim("these networks", "supported", [0.8, 1.0], **other)])
    assert rows("claims", tmp_path) == [
        "| claim | tiny |",
        "| more concise | −.30 (−.75 to .050): undecided / contradicted |",
    ]
    assert rows("methods", tmp_path) == ["| claim | tiny |", "| more concise | 1 / 1 / 0 |"]


def test_shares_of_two_gains_are_told_apart(tmp_path: Path) -> None:
    share = {"claim": "modest training helps", "estimate": 0.5}
    gains = [claim("training", "supported", [0.4, 0.6], **share, metric=m) for m in ("gini", "direction_sensitivity")]
    record(tmp_path, gains)
    found = rows("claims", tmp_path)[1:]
    assert [row.split("|")[1].strip() for row in found] == [
        f"modest training helps: {name}" for name in ("conciseness", "stability")
    ]


def test_a_claim_that_is_judged_once_has_one_verdict_and_one_without_a_value_a_dash(tmp_path: Path) -> None:
    record(tmp_path, [claim("training", "undecided", [None, None], estimate=None)])
    assert rows("claims", tmp_path)[1] == "| more concise | –: undecided |"
    assert rows("methods", tmp_path)[1] == "| more concise | 0 / 0 / 1 |"
    other = {"attribution": "smoothgrad", "headline": False}
    record(tmp_path, [claim("training", "supported", [0.1, 0.2], **other), *BOTH])
    assert rows("methods", tmp_path)[1] == "| more concise | 1 / 1 / 0 |"


def test_what_is_missing_or_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tiny: holds no recorded study"):
        filled(block("quality"), LABELS, tmp_path)
    record(tmp_path)
    with pytest.raises(ConfigError, match="found 'numbers', known are studies, accuracy"):
        filled(block("numbers"), LABELS, tmp_path)
    (tmp_path / "metrics" / "tiny" / "audit.csv").unlink()
    with pytest.raises(DataError, match=r"audit\.csv: is missing"):
        filled(block("audit"), LABELS, tmp_path)
    with pytest.raises(ConfigError, match="not whole"):
        filled(block("quality").replace("<!-- end -->", "") + block("quality"), LABELS, tmp_path)


def test_a_table_of_no_rows_and_networks_without_a_gate(tmp_path: Path) -> None:
    record(tmp_path, audit="", networks=NETWORKS.replace("gap", "sound").replace("sound", "gap"))
    assert rows("audit", tmp_path)[1] == "| tiny | Gini index | – | – | – |"
    assert "| 0 of 3 |" in rows("studies", tmp_path)[1]  # where none passed, all are shown


def test_networks_that_were_not_judged_are_not_left_out(tmp_path: Path) -> None:
    record(tmp_path, networks=NETWORKS.replace("gap", "not-run").replace("autoattack", "ensemble"))
    path = tmp_path / "metrics" / "tiny" / "networks.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("not-run", "not run"), encoding="utf-8")
    assert "| 0 of 3 | 40 | 30 |" in rows("studies", tmp_path)[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(math.nan, "–"), (-0.0, ".00"), (0.1, ".10"), (-0.05, "−.050"), (1.0, "1.00"), (-0.00004, ".000")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text
