"""The stage `report` on made-up results: what it reads of the gate, and what it writes of a network that did not pass."""

import csv
import sys
from pathlib import Path

import pytest
import yaml

from epsilens import artifacts
from epsilens.errors import DataError
from stages import record, report
from tests.unit.test_reporting_report import gate, study

ROOT = Path(__file__).parents[2]
EPSILONS, SEEDS, MASKED = (0, 8), (0, 1), ("8", 1)


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A working copy in which every stage before `report` has run."""
    inputs = study(epsilons=tuple(map(float, EPSILONS)), seeds=SEEDS, images=8, pictures=0)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["sweep"] = {"epsilons": list(EPSILONS), "seeds": list(SEEDS)}
    params["report"] |= {"attribution": "gradient", "metrics": ["gini", "mass"], "bootstrap": 100}
    params["report"]["plausible"] |= {"stability": "sensitivity", "relevance": "mass"}
    params["report"]["recommend"]["metric"] = "sensitivity"
    params["attack"] |= {"epsilon": 8}
    params["study"]["name"] = "toy"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report"])
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    artifacts.write_json(artifacts.MANIFEST, inputs.manifest)
    for cell in [(str(epsilon), seed) for epsilon in EPSILONS for seed in SEEDS]:
        write_network(inputs, cell)
    return inputs


def write_network(inputs, cell):
    network = (float(cell[0]), cell[1])
    for root, rows in ((artifacts.ATTACKS, inputs.attacks), (artifacts.SCORES, inputs.scores)):
        mine = rows[(rows["epsilon"] == network[0]) & (rows["seed"] == network[1])].drop(columns="study")
        artifacts.write_rows(artifacts.cell(root, *cell) / artifacts.ROWS, mine.to_dict("list"))
    artifacts.write_json(
        artifacts.cell(artifacts.ATTACKS, *cell) / artifacts.GATE, gate(0.2 if cell == MASKED else 0.01)
    )
    artifacts.write_json(artifacts.cell(artifacts.SCORES, *cell) / artifacts.FACTS, inputs.facts)
    artifacts.write_json(artifacts.cell(artifacts.MODELS, *cell) / artifacts.HISTORY, inputs.histories[network])
    artifacts.write_json(
        artifacts.cell(artifacts.GALLERY, *cell) / artifacts.GALLERY_INDEX, {"methods": [], "images": []}
    )
    for root in (artifacts.ATTACKS, artifacts.SCORES, artifacts.MODELS, artifacts.GALLERY):
        artifacts.seal(artifacts.cell(root, *cell))


def test_a_masked_network_is_marked_and_its_rows_are_kept(results):
    report.main()
    networks, checks = artifacts.read_json(artifacts.NETWORKS), artifacts.read_json(artifacts.GATES)
    assert {(row["epsilon"], row["seed"], row["gate"]) for row in networks} == {
        (0.0, 0, "sound"), (0.0, 1, "sound"), (8.0, 0, "sound"), (8.0, 1, "gap"),
    }  # fmt: skip
    assert [row["sound"] for row in checks] == [True] * 6 + [False] * 2
    assert {row["n_seeds"] for row in artifacts.read_json(artifacts.ACCURACY) if row["epsilon"] == 8} == {1}
    for name, rows in (("attacks", results.attacks), ("scores", results.scores)):
        assert artifacts.read_rows(artifacts.REPORTS / "rows" / f"{name}.parquet").num_rows == len(rows)
    assert {"clean", "pgd", "autoattack", "gini", "mass"} == set(artifacts.read_json(artifacts.SUMMARY))
    assert "left out of all headline numbers" in Path("reports/index.html").read_text(encoding="utf-8").lower()


def remove(path):
    """A file that its stage has not written."""
    path.unlink()
    artifacts.seal(path.parent)


def test_without_gates_there_is_no_check_and_with_some_missing_an_error(results):
    paths = sorted(artifacts.ATTACKS.rglob(artifacts.GATE))
    remove(paths[0])
    with pytest.raises(DataError, match=r"gate: no verdict for epsilon 0, seed 0"):
        report.main()
    for path in paths[1:]:
        remove(path)
    report.main()
    assert artifacts.read_json(artifacts.GATES) == []
    assert {row["gate"] for row in artifacts.read_json(artifacts.NETWORKS)} == {"not run"}


def test_the_tables_of_a_study_are_recorded(results, monkeypatch):
    report.main()
    monkeypatch.setattr(record, "provenance", lambda study: {})
    record.main()
    folder = artifacts.METRICS / "toy"
    assert {path.name for path in folder.iterdir()} == {
        "accuracy.csv", "networks.csv", "gate.csv", "quality.csv", "curves.csv", "plausible.csv", "audit.csv", "figures",
        "choice.csv", "claims.json", "params.yaml", "provenance.json", "summary.json",
    }  # fmt: skip
    assert (folder / "quality.csv").read_bytes() == artifacts.QUALITY.read_bytes()
    head, first = (folder / "gate.csv").read_text(encoding="utf-8").splitlines()[:2]
    assert head == "check,epsilon,failed,label,limit,seed,sound,source,value"
    assert first == "gap,0.0,False,PGD-20 minus AutoAttack accuracy,0.08,0,True,Somebody 2020,0.01"


def test_quality_is_csv_with_empty_fields_for_what_is_undefined(results):
    report.main()
    with artifacts.QUALITY.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ["set", "epsilon", "attribution", "metric", "mean"]
    assert len(rows) == 3 * len(EPSILONS) * len(set(results.scores["attribution"])) * len(set(results.scores["metric"]))
    assert {row["set"] for row in rows} == {"common", "all", "own"}
    assert not any("nan" in (row["mean"], row["low"]) for row in rows)


def test_what_dvc_plots_is_written_small_and_has_its_columns(results):
    report.main()
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    assert {name for plot in plots for name in plot} == {"accuracy", "explanations", "training"}
    for plot in plots:
        for declared in plot.values():
            assert (ROOT / ".dvc" / "plots" / f"{declared['template']}.json").is_file()
            for path, column in declared["y"].items():
                rows = artifacts.read_json(Path(path))
                assert all({declared["x"], column} <= set(row) for row in rows)
    assert {row["attribution"] for row in artifacts.read_json(artifacts.HEADLINE)} == {"gradient"}
