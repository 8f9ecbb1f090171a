"""The stage `report` on made-up results: what it reads of the gate, and what it writes of a network that did not pass."""

import csv
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from epsilens import artifacts
from epsilens.errors import ConfigError, DataError
from stages import merge, record, report
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
    monkeypatch.setattr(sys, "argv", ["record"])
    record.main()
    folder = artifacts.METRICS / "toy"
    assert {path.name for path in folder.iterdir()} == {
        "accuracy.csv", "networks.csv", "gate.csv", "quality.csv", "curves.csv", "plausible.csv", "audit.csv", "figures",
        "choice.csv", "claims.json", "params.yaml", "provenance.json", "summary.json", "scores.parquet",
    }  # fmt: skip
    means = artifacts.read_rows(folder / "scores.parquet").to_pandas()
    mine = results.scores.query("epsilon == 8 and seed == 1 and attribution == 'gradient' and metric == 'gini'")[
        "score"
    ]
    kept = means.query("epsilon == 8 and seed == 1 and attribution == 'gradient' and metric == 'gini'")
    assert (kept["mean"].item(), kept["n"].item()) == (pytest.approx(mine.mean()), len(mine))
    assert (folder / "quality.csv").read_bytes() == artifacts.QUALITY.read_bytes()
    head, first = (folder / "gate.csv").read_text(encoding="utf-8").splitlines()[:2]
    assert head == "check,epsilon,failed,label,limit,seed,sound,source,value"
    assert first == "gap,0.0,False,PGD-20 minus AutoAttack accuracy,0.08,0,True,Somebody 2020,0.01"


def run_with(monkeypatch, seeds, module, *arguments):
    """A stage with some of the seeds only."""
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["sweep"]["seeds"] = seeds
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    module.main()


@pytest.fixture
def recorded(results, monkeypatch):
    """The study as a whole, as it was recorded, and its folder with a part for each seed."""
    about = {"seconds": {}, "machine": {}, "versions": {}, "data": {}, "command": "c"}
    monkeypatch.setattr(record, "provenance", lambda study: about)
    monkeypatch.setattr(artifacts, "remove_orphans", lambda *_: [])  # the other seed's results are needed again
    folder = artifacts.METRICS / "toy"
    run_with(monkeypatch, [0, 1], report)
    run_with(monkeypatch, [0, 1], record)
    whole = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for seed in SEEDS:
        run_with(monkeypatch, [seed], report)
        run_with(monkeypatch, [seed], record, "--part", f"seed-{seed}")
    return folder, whole


def test_parts_of_a_study_become_what_it_would_have_been_in_one_run(recorded, monkeypatch):
    folder, whole = recorded
    monkeypatch.setattr(sys, "argv", ["merge", "toy"])
    merge.main()
    found = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {path for path in found if path.parts[0] != "parts"} == set(whole)
    for path in sorted(whole):
        if path.suffix in (".csv", ".json", ".yaml") and path.name != "provenance.json":
            same_numbers(path.name, found[path].decode(), whole[path].decode())


def same_numbers(name, one, other):
    """Texts that are equal but for rounding: parts keep scores in float32."""
    split = re.compile(r"(-?\d+\.\d+(?:e-?\d+)?)")
    words = [split.split(text) for text in (one, other)]
    assert words[0][::2] == words[1][::2], name
    assert [float(x) for x in words[0][1::2]] == pytest.approx([float(x) for x in words[1][1::2]], abs=2e-6), name


def test_parts_that_do_not_belong_together_are_refused(recorded, monkeypatch):
    folder, _ = recorded
    monkeypatch.setattr(sys, "argv", ["merge", "toy"])
    shutil.copytree(folder / "parts/seed-1", folder / "parts/twice")
    with pytest.raises(ConfigError, match="epsilon 0, seed 1 is in two of the parts seed-0, seed-1, twice"):
        merge.main()
    path = folder / "parts/twice/params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("epochs: 6", "epochs: 7"), encoding="utf-8")
    with pytest.raises(ConfigError, match="merge: twice: train differ from those of seed-0"):
        merge.main()
    monkeypatch.setattr(sys, "argv", ["merge", "nobody"])
    with pytest.raises(DataError, match="metrics/nobody/parts: holds no part"):
        merge.main()
    with pytest.raises(ConfigError, match=r"--part: found '\.\./x', allowed are letters"):
        run_with(monkeypatch, [0], record, "--part", "../x")


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
