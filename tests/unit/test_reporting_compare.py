"""Revisions side by side: the arithmetic of differences, and the stage on a toy repository."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from epsilens import artifacts
from epsilens.errors import ConfigError, DataError
from epsilens.reporting.compare import (
    Snapshot,
    cautions,
    check,
    difference,
    parameters,
    quantities,
    render,
    table,
    verdict,
)
from stages import compare

PARAMS = {
    "study": {"name": "toy"},
    "threat": {"norm": "linf"},
    "attack": {"epsilon": 8, "images": 100},
    "data": {"name": "shapes"},
    "report": {"metrics": ["gini"], "confidence": 0.95},
}


def accuracy(epsilon, attack, budget, value, norm="linf", split="test"):
    return {"epsilon": epsilon, "split": split, "attack": attack, "norm": norm, "budget": budget, "accuracy": value,
            "low": value - 0.1, "high": value + 0.05, "n_images": 100}  # fmt: skip


def headline(epsilon, mean, metric="gini", better="higher"):
    known = {"low": None, "high": None} if mean is None else {"low": mean - 0.02, "high": mean + 0.04}
    return {"epsilon": epsilon, "attribution": "gradient", "metric": metric, "mean": mean, "n": 17, "n_seeds": 2,
            "better": better} | known  # fmt: skip


def snapshot(name, shift=0.0, **changes):
    return replace(
        Snapshot(
            name,
            "abc1234",
            PARAMS,
            [
                accuracy(e, *kind, 0.5 + shift)
                for kind in (("clean", 0.0), ("pgd", 4.0), ("pgd", 8.0))
                for e in (0.0, 8.0)
            ],
            [{"epsilon": e, "seed": s, "gate": "sound"} for e in (0.0, 8.0) for s in (0, 1)],
            [headline(0.0, 0.5 - shift), headline(8.0, None), headline(0.0, 0.9, "other")],
        ),
        **changes,
    )


def pages():
    """A page of three revisions, one of which has another budget and a network that did not pass."""
    params = PARAMS | {"attack": {"epsilon": 4, "images": 100}}
    masked = [{"epsilon": 8.0, "seed": 0, "gate": "gap"}]
    return render([snapshot("main"), snapshot("<b>exp</b>", 0.2), snapshot("odd", params=params, networks=masked)])


def test_a_difference_combines_the_nearer_sides_of_two_intervals():
    first = {"value": 1.0, "low": 0.7, "high": 1.4}
    second = {"value": 2.0, "low": 1.7, "high": 2.8}
    assert difference(first, second) == pytest.approx((1.0, 1.0 - math.hypot(0.3, 0.4), 1.0 + math.hypot(0.8, 0.3)))
    value, low, high = difference(second, first)
    assert (value, low, high) == pytest.approx((-1.0, -1.0 - math.hypot(0.8, 0.3), -1.0 + math.hypot(0.3, 0.4)))


def test_for_symmetric_intervals_it_is_the_usual_one_and_covers():
    rng = np.random.default_rng(0)
    means = rng.normal(0.0, 1.0, size=(4000, 2))
    inside = 0
    for a, b in means:
        first, second = ({"value": x, "low": x - 1.96, "high": x + 1.96} for x in (a, b))
        _, low, high = difference(first, second)
        inside += low <= 0.0 <= high
    assert inside / len(means) == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize(
    ("change", "better", "words"),
    [
        ((1.0, 0.5, 1.5), "higher", "better"),
        ((1.0, 0.5, 1.5), "lower", "worse"),
        ((1.0, 0.5, 1.5), None, "higher"),
        ((-1.0, -1.5, -0.5), "higher", "worse"),
        ((-1.0, -1.5, -0.5), None, "lower"),
        ((1.0, -0.1, 2.0), "higher", "not told apart"),
        ((1.0, 0.0, 2.0), "higher", "not told apart"),
        ((0.0, -1.0, 1.0), "higher", "the same"),
        ((math.nan, math.nan, math.nan), "higher", "undefined"),
    ],
)
def test_verdicts(change, better, words):
    assert verdict(change, better) == words


def test_the_table_has_headlines_only_and_differences_from_the_first():
    rows = table([snapshot("main"), snapshot("exp", 0.2)])
    assert [(row["what"], row["epsilon"]) for row in rows] == [
        ("Clean accuracy", 0.0), ("Clean accuracy", 8.0),
        ("Accuracy under PGD, ε = 8 (linf)", 0.0), ("Accuracy under PGD, ε = 8 (linf)", 8.0),
        ("gini, gradient", 0.0), ("gini, gradient", 8.0),
    ]  # fmt: skip
    assert rows[0]["cells"] == ["50.0 % (40.0 to 55.0)", "70.0 % (60.0 to 75.0)"]
    assert rows[0]["against"] == [{"difference": "20.0 (8.8 to 31.2)", "verdict": "better"}]
    assert rows[4]["against"] == [{"difference": "−0.200 (−0.245 to −0.155)", "verdict": "worse"}]
    assert rows[5]["cells"] == ["–", "–"]
    assert rows[5]["against"] == [{"difference": "–", "verdict": "undefined"}]


def test_what_only_one_has_is_a_dash_in_the_other():
    odd = snapshot("odd", params=PARAMS | {"attack": {"epsilon": 4, "images": 100}})
    rows = [row for row in table([snapshot("main"), odd]) if "PGD" in row["what"]]
    assert [(row["what"], row["cells"][0] == "–", row["cells"][1] == "–") for row in rows[::2]] == [
        ("Accuracy under PGD, ε = 8 (linf)", False, True), ("Accuracy under PGD, ε = 4 (linf)", True, False),
    ]  # fmt: skip
    assert rows[0]["against"] == [{"difference": "–", "verdict": ""}]


def test_parameters_that_differ_are_listed_by_their_dotted_names():
    other = PARAMS | {"attack": {"epsilon": 4, "images": 100, "steps": [1]}}
    found = parameters([snapshot("a"), snapshot("b", params=other)])
    assert found == [
        {"name": "attack.epsilon", "values": ["8", "4"]}, {"name": "attack.steps", "values": [None, "[1]"]},
    ]  # fmt: skip
    assert parameters([snapshot("a"), snapshot("b")]) == []


def test_cautions_name_other_data_and_networks_that_did_not_pass():
    other = PARAMS | {"data": {"name": "cifar10"}}
    masked = [{"epsilon": 8.0, "seed": 1, "gate": "gap"}, {"epsilon": 8.0, "seed": 0, "gate": "not run"}]
    text = "\n".join(cautions([snapshot("a"), snapshot("b", params=other, networks=masked)]))
    assert "differ in their data" in text
    assert "images under attack" not in text
    assert "b: did not pass the gate against masked gradients: training ε = 8, seed 1." in text
    alike = "\n".join(cautions([snapshot("a"), snapshot("b")]))
    assert "differ in their" not in alike
    assert "different confidence" not in alike
    sure = PARAMS | {"report": {"metrics": ["gini"], "confidence": 0.9}}
    assert "different confidence" in "\n".join(cautions([snapshot("a"), snapshot("b", params=sure)]))


def test_a_comparison_needs_two_and_their_headline_parameters():
    with pytest.raises(DataError, match="found 1 revision"):
        check([snapshot("a")])
    with pytest.raises(DataError) as caught:
        check([snapshot("a"), snapshot("b", params={"threat": None, "study": {"name": "s"}})])
    for key in ("threat.norm", "attack.epsilon", "report.metrics", "report.confidence"):
        assert f"b: params.yaml has no {key}" in str(caught.value)


def test_names_of_revisions_are_escaped_and_the_page_is_the_same_each_time():
    page = pages()
    assert b"<b>exp</b>" not in page
    assert b"&lt;b&gt;exp&lt;/b&gt;" in page
    assert page == pages()
    assert len(quantities([snapshot("a"), snapshot("b")])) == 3


# The stage


def run(*command):
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *command], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(shift):
    """Write the tables of a snapshot and commit them; returns the commit."""
    made = snapshot("x", shift)
    artifacts.write_json(artifacts.ACCURACY, made.accuracy)
    artifacts.write_json(artifacts.NETWORKS, made.networks)
    artifacts.write_json(artifacts.HEADLINE, made.headline)
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS), encoding="utf-8")
    run("add", "--all")
    run("commit", "--quiet", "--allow-empty", "-m", f"shift {shift}")
    return run("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Two branches, and an experiment as DVC keeps it."""
    monkeypatch.chdir(tmp_path)
    run("init", "--quiet", "--initial-branch=main")
    Path("README").write_text("nothing yet", encoding="utf-8")
    run("add", "README")
    run("commit", "--quiet", "-m", "first")
    run("tag", "empty")
    base = commit(0.0)
    run("checkout", "--quiet", "-b", "work")
    run("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/exp-abc", commit(0.2))
    run("update-ref", "refs/exps/exec/EXEC_HEAD", base)
    run("update-ref", "refs/exps/celery/failed/exp-abd", base)  # DVC's own notes are no experiments
    run("checkout", "--quiet", "main")
    return base


def compared(monkeypatch, *revisions):
    monkeypatch.setattr(sys, "argv", ["compare", *revisions])
    compare.main()


def test_the_stage_reads_branches_experiments_and_the_workspace(repository, monkeypatch, capsys):
    compared(monkeypatch, "main", "exp-abc", "workspace")
    printed = capsys.readouterr().out
    assert "Clean accuracy, training ε = 0: 50.0 % (40.0 to 55.0) | 70.0 % (60.0 to 75.0) | 50.0 %" in printed
    assert "20.0 (8.8 to 31.2) better; 0.0 (−11.2 to 11.2) the same" in printed
    page = artifacts.COMPARISON.read_text(encoding="utf-8")
    assert f"main: {repository[:7]}, study toy" in page
    assert "workspace: as it stands" in page
    assert run("status", "--short", "--untracked-files=no") == ""  # nothing was checked out


def test_from_a_subfolder_of_the_repository(repository, tmp_path, monkeypatch):
    sub = tmp_path / "sub"
    for path in (artifacts.ACCURACY, artifacts.NETWORKS, artifacts.HEADLINE, Path("params.yaml")):
        (sub / path).parent.mkdir(parents=True, exist_ok=True)
        (sub / path).write_bytes(path.read_bytes())
        path.unlink()
    run("add", "--all")
    run("commit", "--quiet", "-m", "sub")
    monkeypatch.chdir(sub)
    compared(monkeypatch, "main", "workspace")
    assert (sub / artifacts.COMPARISON).exists()


@pytest.mark.parametrize(
    ("revisions", "error", "message"),
    [
        (("main",), ConfigError, "found 1 revision, expected at least two"),
        (("main", "main"), ConfigError, "found 1 revision"),
        (("main", "exp-abd"), ConfigError, "exp-abd: is no branch, tag, commit or experiment; known experiments: exp-abc"),
        (("main", "EXEC_HEAD"), ConfigError, "EXEC_HEAD: is no branch"),
        (("main", "empty"), DataError, r"empty \([0-9a-f]{7}\): has no metrics/accuracy.json.*dvc repro"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_named(repository, monkeypatch, revisions, error, message):
    with pytest.raises(error, match=message):
        compared(monkeypatch, *revisions)
    assert not artifacts.COMPARISON.exists()


def test_a_name_of_two_experiments_is_refused(repository, monkeypatch):
    run("update-ref", f"refs/exps/00/{'0' * 38}/exp-abc", repository)
    with pytest.raises(ConfigError, match=rf"several experiments; give one of the commits .*{repository[:7]}"):
        compared(monkeypatch, "main", "exp-abc")


def test_damaged_tables_are_named(repository, monkeypatch):
    artifacts.HEADLINE.write_text("[", encoding="utf-8")
    with pytest.raises(DataError, match=r"workspace: metrics/headline.json: cannot be read"):
        compared(monkeypatch, "main", "workspace")
    artifacts.HEADLINE.write_text(json.dumps({}), encoding="utf-8")
    with pytest.raises(DataError, match="found dict, expected list"):
        compared(monkeypatch, "main", "workspace")


def test_no_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ConfigError, match="no git repository"):
        compared(monkeypatch, "main", "other")
