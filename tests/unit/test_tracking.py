"""The mirror in MLflow and the live curves, on a small made-up state of the pipeline and a SQLite store."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
import torch
import yaml
from filelock import FileLock
from PIL import Image
from torch import nn

from epsilens import artifacts
from epsilens.errors import ConfigError, DataError
from epsilens.tracking import live, state, store
from epsilens.tracking.datasets import dataset_inputs
from epsilens.tracking.live import follow
from epsilens.tracking.mirror import Mirrored, Models, mirror
from epsilens.tracking.models import kept_networks
from epsilens.tracking.sheet import contact_sheet
from epsilens.tracking.state import Grid, PipelineState, live_entries, read_state
from epsilens.tracking.store import Store, StoreError, clean_name, open_store
from stages.track import kept_models

# MLflow 3.17 and what it imports (pydantic, alembic, SQLAlchemy) warn of their own coming changes, at import and in use.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:pydantic"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # its SQLite connections are closed by the garbage collector
]

CARD = {"architecture": "none", "channels": 1, "height": 2, "width": 3, "class_names": ["a", "b"]}
SPLIT = {"images": 4, "masks": 3, "per_class": [2, 2]}
MANIFEST = {
    **CARD,
    "name": "shapes",
    "splits": {n: SPLIT | {"sha256": n[0] * 64} for n in ("test", "validation", "train")},
}
GRID: Grid = [("8", 0), ("0.25", 1)]
PARAMS = {
    "study": {"name": "toy", "description": "does it?"},
    "threat": {"norm": "l2"},
    "attack": {"epsilon": 0.5},
    "report": {"attribution": "gradient", "metrics": ["gini"]},
    "sweep": {"epsilons": [8, 0.25], "seeds": [0, 1]},
    "attribute": {"methods": {"gradient": {}, "integrated_gradients@blur": {"steps": 50}}},
    "long": "x" * 9000,
}


def lock_entry(path: Path, md5: str) -> dict[str, Any]:
    return {"cmd": "true", "outs": [{"path": path.as_posix(), "hash": "md5", "md5": md5}]}


def write_network(folder: Path, epsilon: str, seed: int) -> None:
    models, attacks, scores = (
        folder / artifacts.cell(root, epsilon, seed) for root in (artifacts.MODELS, artifacts.ATTACKS, artifacts.SCORES)
    )
    artifacts.write_bytes(models / "model.safetensors", f"{epsilon}-{seed}".encode())
    artifacts.write_json(models / "card.json", CARD)
    epochs = [(1, 2.5, 0.5), (2, 1.25, None), (3, 0.75, 0.875)]
    history = [{"epoch": e, "loss": loss, "validation_accuracy": v, "kept": e == 3} for e, loss, v in epochs]
    artifacts.write_json(models / "history.json", history)
    artifacts.write_rows(attacks / "rows.parquet", {"correct": [True]})
    artifacts.write_json(attacks / "gate.json", {"sound": seed == 0, "flags": [], "checks": []})
    score_rows = {
        "attribution": ["gradient", "sobel", "gradient", "gradient", "random", "gradient"],
        "metric": ["gini"] * 6,
        "score": [-0.5, 0.125, float("nan"), 1.0, float("nan"), 0.625],
    }
    artifacts.write_rows(scores / "rows.parquet", score_rows)
    gallery = folder / artifacts.cell(artifacts.GALLERY, epsilon, seed)
    shown = {"row": 7, "id": 70, "label": "a <b>", "prediction": "b", "confidence": 0.75}
    artifacts.write_json(gallery / "gallery.json", {"methods": ["gradient"], "images": [shown]})
    for name, colour in (("input", "red"), ("gradient", "blue")):
        picture = io.BytesIO()
        Image.new("RGB", (3, 2), colour).save(picture, format="PNG")
        artifacts.write_bytes(gallery / f"7-{name}.png", picture.getvalue())


def write_tables(folder: Path, grid: Grid) -> None:
    """Accuracies of networks, accuracies and scores by epsilon, with rows that are no headline among them."""
    bounds = {"low": 0.25, "high": 0.75}
    clean = {"split": "test", "attack": "clean", "norm": "l2", "budget": 0.0}
    pgd = clean | {"attack": "pgd", "budget": 0.5}
    extra = clean | {"split": "official"}
    networks = [
        kind | {"epsilon": float(epsilon), "seed": seed, "accuracy": 0.5 + seed / 8, **bounds}
        for epsilon, seed in grid
        for kind in (clean, pgd, pgd | {"norm": "linf", "budget": 8.0}, extra)
    ]
    artifacts.write_json(folder / artifacts.NETWORKS, networks)
    epsilons = sorted({float(epsilon) for epsilon, _ in grid})
    kinds = (clean, pgd, pgd | {"budget": 1.0}, pgd | {"norm": "linf"}, extra)
    accuracies = [
        kind | {"epsilon": epsilon, "accuracy": (1 - epsilon / 16) / max(number, 1), **bounds}
        for number, kind in enumerate(kinds)
        for epsilon in epsilons
    ]
    artifacts.write_json(folder / artifacts.ACCURACY, accuracies)
    kinds = ({"metric": "gini"}, {"metric": "road_gap"})
    rows = [
        kind | {"epsilon": epsilon, "mean": number + epsilon / 16, "low": None, "high": 0.5}
        for number, kind in enumerate(kinds)
        for epsilon in epsilons
    ]
    artifacts.write_json(folder / artifacts.HEADLINE, rows)


def write_lock(folder: Path, entries: dict[str, Any]) -> None:
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": entries}), encoding="utf-8")


def make_state(folder: Path, grid: Grid = GRID) -> PipelineState:
    """All the files of a finished pipeline with made-up contents, as `read_state` finds them."""
    entries = {"report": lock_entry(artifacts.REPORTS / "index.html", "aa"), "track": {"cmd": "true"}}
    for epsilon, seed in grid:
        write_network(folder, epsilon, seed)
        out = artifacts.cell(artifacts.MODELS, epsilon, seed)
        entries[f"train@{epsilon}-{seed}"] = lock_entry(out, f"md5-of-{epsilon}-{seed}")
    write_lock(folder, entries)
    (folder / "dvc.yaml").write_text("stages: {train: {}, report: {}, track: {}}\n", encoding="utf-8")
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS), encoding="utf-8")
    artifacts.write_json(folder / artifacts.MANIFEST, MANIFEST)
    artifacts.write_json(folder / artifacts.SUMMARY, {"clean": {"eps=8": 0.75}, "undefined": float("nan"), "note": "n"})
    for path in artifacts.TABLES:
        artifacts.write_json(folder / path, [])
    write_tables(folder, grid)
    artifacts.write_bytes(folder / artifacts.REPORTS / "index.html", b"<html>")
    artifacts.write_bytes(folder / artifacts.REPORTS / "rows" / "scores.parquet", b"rows")
    artifacts.write_bytes(folder / artifacts.REPORTS / "figures" / "trade-off.svg", b"<svg/>")
    return read_state(folder, "toy", grid)


def tiny(epsilon: str, seed: int) -> nn.Module:
    """A convolution before pooling and logits, as real networks have; other weights for another cell."""
    with torch.random.fork_rng():
        torch.manual_seed(100 * float(epsilon) + seed)
        layers = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(4, 2)).eval().requires_grad_(False)


def mirrored(home: Path, found: PipelineState, choice: str = "none", recommended: float | None = None) -> Mirrored:
    return mirror(home, found, Models(tiny, choice, recommended))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store without runs: making one takes seconds, copying it does not."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        open_store(folder, "template")
    return folder / "mlflow.db"


@pytest.fixture
def home(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a store, in a folder whose name needs quoting."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "a repository é#1"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


def studies(home: Path) -> list[Any]:
    """The runs of the toy study that are no network's."""
    runs = open_store(home, "toy").runs("")
    return [run for run in runs if "mlflow.parentRunId" not in run.data.tags]


def networks(home: Path, study: str) -> dict[str, Any]:
    runs = open_store(home, "toy").runs(f"tags.mlflow.parentRunId = '{study}'")
    return {str(run.info.run_name): run for run in runs}


def curve(home: Path, run: Any, name: str, experiment: str = "toy") -> list[tuple[int, float]]:
    history = open_store(home, experiment).client.get_metric_history(run.info.run_id, name)
    return [(point.step, point.value) for point in history]


class TestNames:
    def test_what_mlflow_refuses_is_replaced(self) -> None:
        assert clean_name("eps=1.0/a@b: ü-x_y") == "eps_1.0/a_b_ ü-x_y"
        assert clean_name("/a//../b/.") == "a/b"
        assert clean_name("") == "_"
        assert len(clean_name("a" * 300)) == 250

    def test_flat(self) -> None:
        tree = {"a": {"b": {"c": 1}, "d": {}}, "e": [1, "x"], "f": None}
        assert state.flat(tree) == {"a.b.c": 1, "a.d": "{}", "e": '[1, "x"]', "f": None}


class TestKey:
    def test_only_what_pipeline_and_grid_name(self) -> None:
        names = ["train@8-0", "train@9-0", "train", "former", "track", "prepare", "former@8-0"]
        lock = {name: {"cmd": name} for name in names}
        assert list(live_entries(lock, {"track": 0, "train": 0, "prepare": 0}, [("8", 0)])) == [
            "prepare",
            "train",
            "train@8-0",
        ]

    def test_orphans_do_not_change_it_and_results_do(self, tmp_path: Path) -> None:
        before = make_state(tmp_path)
        lock = yaml.safe_load((tmp_path / "dvc.lock").read_text(encoding="utf-8"))["stages"]
        write_lock(tmp_path, lock | {"train@4-0": lock_entry(Path("x"), "ee"), "track": {"cmd": "other"}})
        assert read_state(tmp_path, "toy", GRID).key == before.key
        write_lock(tmp_path, lock | {"report": lock_entry(artifacts.REPORTS / "index.html", "bb")})
        assert read_state(tmp_path, "toy", GRID).key != before.key

    def test_order_of_the_lock_does_not_change_it(self, tmp_path: Path) -> None:
        before = make_state(tmp_path)
        text = (tmp_path / "dvc.lock").read_text(encoding="utf-8")
        stages = yaml.safe_load(text)["stages"]
        turned = {name: dict(reversed(stages[name].items())) for name in reversed(stages)}
        (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": turned}, sort_keys=False), encoding="utf-8")
        assert read_state(tmp_path, "toy", GRID).key == before.key

    def test_hash_of_an_output_or_of_its_folder(self, tmp_path: Path) -> None:
        found = make_state(tmp_path)
        assert found.recorded(Path("models/eps-8/seed-0/model.safetensors")) == "md5-of-8-0"
        assert found.recorded(Path("models/eps-0.25/seed-1")) == "md5-of-0.25-1"
        with pytest.raises(DataError, match="no entry for models/eps-9"):
            found.recorded(Path("models/eps-9/seed-0"))

    @pytest.mark.parametrize("name", ["dvc.lock", "metrics/quality.csv", "results/scores/eps-8/seed-0/rows.parquet"])
    def test_an_unfinished_pipeline_is_named(self, tmp_path: Path, name: str) -> None:
        make_state(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(DataError, match=f"{name}.*dvc repro"):
            read_state(tmp_path, "toy", GRID)

    def test_a_grid_that_was_not_run(self, tmp_path: Path) -> None:
        make_state(tmp_path)
        with pytest.raises(DataError, match="eps-2/seed-0"):
            read_state(tmp_path, "toy", [*GRID, ("2", 0)])


class TestMirror:
    def test_a_run_for_the_study_and_one_for_each_network(self, home: Path) -> None:
        found = make_state(home)
        done = mirrored(home, found)
        assert done.written
        (study,) = studies(home)
        assert (study.info.run_id, study.info.run_name, study.info.status) == (done.run, done.name, "FINISHED")
        assert done.name == f"toy-{found.key[:8]}"
        assert {name: v for name, v in study.data.metrics.items() if "/" not in name} == {"clean.eps_8": 0.75}
        assert study.data.params["attribute.methods.integrated_gradients_blur.steps"] == "50"
        assert study.data.params["long"] == "x" * 6000
        assert study.data.tags["epsilens.key"] == found.key
        children = networks(home, done.run)
        assert set(children) == {"eps-8-seed-0", "eps-0.25-seed-1"}
        assert {run.info.status for run in children.values()} == {"FINISHED"}

    def test_a_network(self, home: Path) -> None:
        run = networks(home, mirrored(home, make_state(home)).run)["eps-0.25-seed-1"]
        assert run.data.params == {"epsilon": "0.25", "seed": "1"}
        assert run.data.tags["dvc.md5"] == "md5-of-0.25-1"
        finals = {name: v for name, v in run.data.metrics.items() if not name.startswith("training/")}
        accuracies = dict.fromkeys(("clean", "pgd.l2.0.5", "pgd.linf.8", "official.clean"), 0.625)
        assert finals == {
            **{f"accuracy/{name}": value for name, value in accuracies.items()},
            **{f"accuracy_low/{name}": 0.25 for name in accuracies},
            **{f"accuracy_high/{name}": 0.75 for name in accuracies},
            "gradient/gini": 0.375,  # the mean without the NaN
            "sobel/gini": 0.125,
            "gate/sound": 0.0,
        }
        assert curve(home, run, "training/loss") == [(1, 2.5), (2, 1.25), (3, 0.75)]
        assert curve(home, run, "training/validation_accuracy") == [(1, 0.5), (3, 0.875)]
        assert "training/kept" not in run.data.metrics

    def test_files_and_external_models(self, home: Path) -> None:
        done = mirrored(home, make_state(home))
        client = open_store(home, "toy").client
        top = {item.path for item in client.list_artifacts(done.run)}
        assert top == {"params.yaml", "dvc.yaml", "dvc.lock", "data", "metrics", "reports"}
        assert {item.path for item in client.list_artifacts(done.run, "reports")} == {
            "reports/index.html",
            "reports/figures",
            "reports/rows",
        }
        run = networks(home, done.run)["eps-8-seed-0"]
        stored = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert stored == {"gallery.png", "card.json", "history.json"}
        models = client.search_logged_models([run.info.experiment_id])
        assert {(m.name, m.tags["dvc.path"], str(m.status)) for m in models} == {
            ("eps-8-seed-0", "models/eps-8/seed-0/model.safetensors", "READY"),
            ("eps-0_25-seed-1", "models/eps-0.25/seed-1/model.safetensors", "READY"),
        }
        assert {m.tags["mlflow.model.isExternal"] for m in models} == {"true"}
        assert {metric.key for m in models for metric in m.metrics or []} >= {"accuracy/clean", "gradient/gini"}

    def test_once_only(self, home: Path) -> None:
        found = make_state(home)
        told: list[int] = []
        first = mirror(home, found, Models(tiny, "none", None), told.append)
        second = mirrored(home, found)
        assert told == [1] * len(GRID)  # a bar counts networks
        assert (second.written, second.run, second.name) == (False, first.run, first.name)
        assert len(open_store(home, "toy").runs("")) == 1 + len(GRID)

    def test_another_state_is_another_study(self, home: Path) -> None:
        mirrored(home, make_state(home))
        mirrored(home, make_state(home, GRID[:1]))
        assert sorted(len(networks(home, run.info.run_id)) for run in studies(home)) == [1, 2]

    def test_an_interrupted_mirror_is_repaired(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = make_state(home)
        with monkeypatch.context() as patch:
            patch.setattr(Store, "files", _fail_at_call(2, Store.files))
            with pytest.raises(ZeroDivisionError):
                mirrored(home, found)
        assert {run.info.status for run in studies(home)} == {"RUNNING"}
        done = mirrored(home, found)
        assert [run.info.run_id for run in studies(home)] == [done.run]
        runs = open_store(home, "toy").runs("")
        assert len(runs) == 1 + len(GRID)
        assert {run.info.status for run in runs} == {"FINISHED"}
        models = open_store(home, "toy").client.search_logged_models([runs[0].info.experiment_id])
        assert len(models) == len(GRID)

    def test_a_queued_experiment_gives_its_name(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DVC_EXP_NAME", "wary-noun")
        monkeypatch.setenv("DVC_EXP_BASELINE_REV", "c0ffee")
        working_copy = home / "temporary"
        done = mirrored(home, make_state(working_copy))
        (study,) = studies(home)
        assert done.name == study.info.run_name == study.data.tags["dvc.experiment"] == "wary-noun"
        assert study.data.tags["mlflow.source.git.commit"] == "c0ffee"
        assert not (working_copy / "mlruns").exists()

    def test_a_deleted_experiment_is_restored(self, home: Path) -> None:
        found = make_state(home)
        first = mirrored(home, found)
        opened = open_store(home, "toy")
        opened.client.delete_experiment(opened.experiment)
        assert mirrored(home, found).run == first.run

    def test_curves_over_epsilon_with_their_intervals(self, home: Path) -> None:
        mirrored(home, make_state(home))
        (study,) = studies(home)
        names = {"epsilon", "accuracy.clean", "accuracy.pgd", "accuracy.official.clean", "gini"}
        found = {name.removeprefix("by_epsilon/") for name in study.data.metrics if name.startswith("by_epsilon/")}
        assert found == names  # the headline budget and norm, the headline attribution, the common images
        assert curve(home, study, "by_epsilon/epsilon") == [(250, 0.25), (8000, 8.0)]
        assert curve(home, study, "by_epsilon/accuracy.pgd") == [(250, 1 - 1 / 64), (8000, 0.5)]
        assert curve(home, study, "by_epsilon_low/accuracy.pgd") == [(250, 0.25), (8000, 0.25)]
        assert curve(home, study, "by_epsilon/gini") == [(250, 1 / 64), (8000, 0.5)]
        assert "by_epsilon_low/gini" not in study.data.metrics
        assert curve(home, study, "by_epsilon_high/gini") == [(250, 0.5), (8000, 0.5)]

    def test_data_sets_with_shapes_and_counts(self, home: Path) -> None:
        done = mirrored(home, make_state(home))
        for run in (studies(home)[0], networks(home, done.run)["eps-8-seed-0"]):
            found = {each.dataset.name: each for each in run.inputs.dataset_inputs}
            contexts = {name: each.tags[0].value for name, each in found.items()}
            assert contexts == {
                "shapes-train": "training",
                "shapes-validation": "validation",
                "shapes-test": "evaluation",
            }
            train = found["shapes-train"].dataset
            assert train.digest == "t" * 36
            assert json.loads(train.profile or "") == {"num_rows": 4, "classes": 2, "masks": 3}
            assert '\\"shape\\": [-1, 1, 2, 3]' in (train.schema or "")
            assert json.loads(train.source) == {"uri": "data/prepared/train.safetensors"}

    def test_training_data_come_first(self) -> None:
        names = [each.dataset.name for each in dataset_inputs(MANIFEST)]
        assert names == ["shapes-train", "shapes-validation", "shapes-test"]

    def test_stage_digests_change_with_their_stage_only(self, home: Path) -> None:
        first = mirrored(home, make_state(home))
        lock = yaml.safe_load((home / "dvc.lock").read_text(encoding="utf-8"))["stages"]
        write_lock(home, lock | {"train@8-0": lock_entry(Path("models/eps-8/seed-0"), "another")})
        second = mirrored(home, read_state(home, "toy", GRID))
        before, after = ({n: r.data.tags for n, r in networks(home, done.run).items()} for done in (first, second))
        assert before["eps-8-seed-0"]["stage.train"] != after["eps-8-seed-0"]["stage.train"]
        assert before["eps-0.25-seed-1"]["stage.train"] == after["eps-0.25-seed-1"]["stage.train"]
        assert before["eps-8-seed-0"]["stage.train"] != before["eps-0.25-seed-1"]["stage.train"]
        new, old = (run.data.tags for run in studies(home))
        assert (new["stage.train"] == old["stage.train"], new["stage.report"] == old["stage.report"]) == (False, True)

    def test_descriptions_lead_to_what_is_stored(self, home: Path) -> None:
        done = mirrored(home, make_state(home))
        opened = open_store(home, "toy")
        notes = [run.data.tags[store.NOTE] for run in opened.runs("")]
        for run, note in zip(opened.runs(""), notes, strict=True):
            for link in re.findall(r"\(#/experiments/(.*?)\)", note):
                experiment, _, owner, _, path = link.split("/", 4)
                assert (experiment, owner) == (run.info.experiment_id, run.info.run_id)
                assert (home / "mlruns" / owner / "artifacts" / path).exists()
        (study,) = studies(home)
        assert "does it?" in study.data.tags[store.NOTE]
        assert "ε = 8, 0.25 (L2" in study.data.tags[store.NOTE]
        assert "2 networks" in study.data.tags[store.NOTE]
        assert opened.client.get_experiment(opened.experiment).tags[store.NOTE] == "does it?"
        assert "seed 1" in networks(home, done.run)["eps-0.25-seed-1"].data.tags[store.NOTE]

    def test_artifacts_that_cannot_be_stored_are_caught_up_with(self, home: Path) -> None:
        """The store takes runs and metrics but no files."""
        found = make_state(home)
        (home / "mlruns").write_text("in the way", encoding="utf-8")
        with pytest.raises(StoreError, match=r"^MLflow store .*: [^\n]*$"):
            mirrored(home, found)
        (home / "mlruns").unlink()
        assert mirrored(home, found).written
        assert len(open_store(home, "toy").runs("")) == 1 + len(GRID)


class TestModels:
    def test_whose_weights_are_kept(self) -> None:
        grid: Grid = [("4", 1), ("0", 0), ("8", 0), ("8", 1), ("2", 0)]
        assert kept_networks("all", grid, None) == grid
        assert kept_networks("headline", grid, None) == [("0", 0), ("8", 0), ("8", 1)]
        assert kept_networks("headline", grid, 2.0) == [("0", 0), ("8", 0), ("8", 1), ("2", 0)]
        assert kept_networks("none", grid, 2.0) == []

    def test_they_load_and_predict_without_this_project(self, home: Path) -> None:
        done = mirrored(home, make_state(home), "all")
        client = open_store(home, "toy").client
        run = networks(home, done.run)["eps-0.25-seed-1"]
        (made,) = run.outputs.model_outputs
        model = client.get_logged_model(made.model_id)
        assert (model.status.value, "mlflow.model.isExternal" in model.tags) == ("READY", False)
        pytorch = pytest.importorskip("mlflow.pytorch")
        loaded = pytorch.load_model(model.artifact_location)
        for n in (1, 5):
            images = torch.rand(n, 1, 2, 3, generator=torch.Generator().manual_seed(n))
            torch.testing.assert_close(loaded(images), tiny("0.25", 1)(images), rtol=0, atol=1e-5)
        described = yaml.safe_load((Path(unquote(model.artifact_location[7:])) / "MLmodel").read_text(encoding="utf-8"))
        assert '"float32", "shape": [-1, 1, 2, 3]' in described["signature"]["inputs"]
        assert '"float32", "shape": [-1, 2]' in described["signature"]["outputs"]
        assert described["saved_input_example_info"]["type"] == "ndarray"

    def test_the_recommended_network_is_one_version(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = make_state(home)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
        mirrored(home, found, "headline", 8.0)
        mirrored(home, found, "headline", 8.0)
        client = open_store(home, "toy").client
        (version,) = client.search_model_versions("name = 'toy'")
        assert {name: version.tags[name] for name in ("epsilon", "seed", "dvc.md5")} == {
            "epsilon": "8",
            "seed": "0",
            "dvc.md5": "md5-of-8-0",
        }
        assert client.get_model_version_by_alias("toy", "recommended").version == version.version
        assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{home}/mlflow.db"

    def test_other_weights_are_another_version_and_the_same_are_not(self, home: Path) -> None:
        mirrored(home, make_state(home), "all", 8.0)
        other = make_state(home, GRID[1:])  # another state, that recommends the other network
        mirrored(home, other, "all", 0.25)
        client = open_store(home, "toy").client
        assert client.get_model_version_by_alias("toy", "recommended").tags["epsilon"] == "0.25"
        mirrored(home, make_state(home, GRID[:1]), "all", 8.0)
        assert client.get_model_version_by_alias("toy", "recommended").tags["epsilon"] == "8"
        assert len(client.search_model_versions("name = 'toy'")) == 2

    def test_a_version_whose_model_is_deleted_is_replaced(self, home: Path) -> None:
        mirrored(home, make_state(home), "all", 8.0)
        opened = open_store(home, "toy")
        opened.remove(studies(home)[0].info.run_id)
        mirrored(home, make_state(home), "all", 8.0)
        (version,) = opened.client.search_model_versions("name = 'toy'")
        assert opened.client.get_logged_model(version.source.removeprefix("models:/"))
        assert opened.client.get_model_version_by_alias("toy", "recommended").version == version.version

    @pytest.mark.parametrize(("choice", "recommended"), [("none", 8.0), ("all", None), ("all", 4.0)])
    def test_without_weights_or_recommendation_none_is_registered(
        self, home: Path, choice: str, recommended: float | None
    ) -> None:
        mirrored(home, make_state(home), choice, recommended)
        assert open_store(home, "toy").client.search_registered_models() == []

    def test_the_choice_is_checked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("EPSILENS_MLFLOW_MODELS", raising=False)
        assert kept_models() == "all"
        monkeypatch.setenv("EPSILENS_MLFLOW_MODELS", "none")
        assert kept_models() == "none"
        monkeypatch.setenv("EPSILENS_MLFLOW_MODELS", "some")
        with pytest.raises(ConfigError, match="EPSILENS_MLFLOW_MODELS: found 'some', allowed are all, headline, none"):
            kept_models()

    def test_a_network_that_cannot_be_exported_is_one_line(self, home: Path) -> None:
        class Stubborn(nn.Module):
            def forward(self, images: torch.Tensor) -> torch.Tensor:
                return images if float(images.sum()) > 0 else -images

        with pytest.raises(StoreError, match="cannot be exported"):
            mirror(home, make_state(home), Models(lambda *_: Stubborn(), "all", None))


class TestSheet:
    def test_a_column_for_the_input_and_each_method(self, tmp_path: Path) -> None:
        write_network(tmp_path, "8", 0)
        folder = tmp_path / artifacts.cell(artifacts.GALLERY, "8", 0)
        picture = Image.open(io.BytesIO(contact_sheet(folder)))
        middle = [picture.getpixel((x, 80)) for x in (62, 180)]
        assert middle == [(255, 0, 0), (0, 0, 255)]
        assert contact_sheet(folder) == contact_sheet(folder)

    def test_a_missing_picture_is_named(self, tmp_path: Path) -> None:
        write_network(tmp_path, "8", 0)
        folder = tmp_path / artifacts.cell(artifacts.GALLERY, "8", 0)
        (folder / "7-gradient.png").unlink()
        with pytest.raises(DataError, match=r"7-gradient\.png"):
            contact_sheet(folder)


class TestStore:
    def test_one_line_for_a_store_that_cannot_be_opened(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (home / "file").write_text("", encoding="utf-8")
        (home / "text.db").write_text("no database, only a text of some length " * 100, encoding="utf-8")
        for uri in (f"sqlite:///{home}/file/mlflow.db", f"sqlite:///{home}/text.db", f"sqlite:///{home}"):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            with pytest.raises(StoreError) as caught:
                open_store(home, "toy")
            assert uri in str(caught.value)
            assert "\n" not in str(caught.value)

    def test_one_line_for_a_server_that_is_down(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(StoreError, match=r"MLflow store http://127\.0\.0\.1:9: .*refused"):
            mirrored(home, make_state(home))
        assert "Traceback" not in capfd.readouterr().err

    def test_one_line_for_a_store_that_cannot_be_written(self, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
        found = make_state(home)
        with store.closing(store.sqlite3.connect(home / "mlflow.db")) as database:
            database.execute("CREATE TRIGGER full BEFORE INSERT ON metrics BEGIN SELECT RAISE(ABORT, 'disk full'); END")
            with pytest.raises(StoreError, match=r"mlflow\.db: disk full$"):
                mirrored(home, found)
            database.execute("DROP TRIGGER full")
        assert "Traceback" not in capfd.readouterr().err
        assert mirrored(home, found).written
        assert len(studies(home)) == 1

    def test_a_store_that_is_read_only(self, home: Path) -> None:
        """Byte 18 of a SQLite file is the version that writing needs; above 2, SQLite only reads it, whoever asks."""
        found = make_state(home)
        path = home / "mlflow.db"
        content = bytearray(path.read_bytes())
        content[18], version = 3, content[18]
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"^MLflow store [^\n]*: attempt to write a readonly database$"):
            mirrored(home, found)
        content[18] = version
        path.write_bytes(content)
        assert mirrored(home, found).written

    def test_a_locked_database(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store, "SQLITE_PATIENCE", 0.1)
        with store.closing(store.sqlite3.connect(home / "mlflow.db")) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StoreError, match="database is locked"):
                open_store(home, "toy")

    def test_more_than_a_request_takes(self, home: Path) -> None:
        opened = open_store(home, "toy")
        run = opened.start("long", {})
        opened.log(run, [("loss", 1 / (step + 1), step) for step in range(1001)], {f"p{i}": i for i in range(101)})
        (found,) = opened.runs("")
        assert len(found.data.params) == 101
        assert opened.steps(found) == set(range(1001))

    def test_errors_of_our_own_keep_their_type(self) -> None:
        with pytest.raises(ZeroDivisionError), store.one_line("here"):
            raise ZeroDivisionError
        with pytest.raises(StoreError, match="here: No space left"), store.one_line("here"):
            raise OSError("No space left\nsecond line")

    def test_nothing_heavy_before_it_is_opened(self, root: Path) -> None:
        """Importing the room must not import MLflow: a superfluous follower would take seconds."""
        code = "import sys, epsilens.tracking.live; sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
        assert (
            subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(root / "src")}, check=False).returncode
            == 0
        )


def _fail_at_call(number: int, function: Callable[..., None]) -> Callable[..., None]:
    calls = []

    def failing(*args: Any, **kwargs: Any) -> None:
        calls.append(args)
        if len(calls) == number:
            raise ZeroDivisionError
        function(*args, **kwargs)

    return failing


def append(home: Path, key: str, *epochs: int, text: str = "") -> Path:
    """Lines as training writes them."""
    path = home / ".checkpoints" / key / live.HISTORY
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"study": "toy", "epsilon": "8", "seed": 1, "epoch": e, "loss": 1 / e, "learning_rate": None} for e in epochs
    ]
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows) + text)
    return path


def live_runs(home: Path) -> list[Any]:
    return open_store(home, "toy-live").runs("")


class TestLive:
    def test_epochs_are_carried_over_once(self, home: Path) -> None:
        append(home, "k", 1, 2, text='no JSON\n{"epoch": 9, "loss": 5}\n[1]\n{"study": "toy", "epo')
        follower = live.Follower(home)
        assert follower.poll()
        assert not follower.poll()
        append(home, "k", text="\n")
        append(home, "k", 2, 3)  # resumed from the checkpoint after epoch 1
        assert follower.poll()
        (run,) = live_runs(home)
        assert curve(home, run, "training/loss", "toy-live") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
        assert set(run.data.metrics) == {"training/loss"}
        assert (run.info.run_name, run.info.status) == ("eps-8-seed-1", "RUNNING")

    def test_a_training_that_ends_ends_its_run(self, home: Path) -> None:
        path = append(home, "k", 1)
        append(home, "other", 1)
        follower = live.Follower(home)
        follower.poll()
        shutil.rmtree(path.parent)
        follower.poll()
        status = {run.data.tags[live.LIVE_KEY]: run.info.status for run in live_runs(home)}
        assert status == {"k": "FINISHED", "other": "RUNNING"}

    def test_another_follower_continues_the_run(self, home: Path) -> None:
        append(home, "k", 1, 2)
        follow(home, idle_s=0.3, poll_s=0.05)
        assert [run.info.status for run in live_runs(home)] == ["KILLED"]
        append(home, "k", 3)
        live.Follower(home).poll()
        (run,) = live_runs(home)
        assert run.info.status == "RUNNING"
        assert [step for step, _ in curve(home, run, "training/loss", "toy-live")] == [1, 2, 3]

    def test_runs_of_a_killed_follower_are_ended(self, home: Path) -> None:
        path = append(home, "k", 1)
        live.Follower(home).poll()
        shutil.rmtree(path.parent)
        append(home, "new", 1)
        live.Follower(home).poll()
        status = {run.data.tags[live.LIVE_KEY]: run.info.status for run in live_runs(home)}
        assert status == {"k": "KILLED", "new": "RUNNING"}

    def test_it_follows_while_training_goes_on(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every new epoch starts the wait anew: a clock that stands still but for the follower's own sleep."""
        now, epochs = [0.0], iter((2, 3, 4, 5))

        def sleep(seconds: float) -> None:
            now[0] += seconds
            epoch = next(epochs, None)
            if epoch is not None:
                append(home, "k", epoch)
            else:
                shutil.rmtree(home / ".checkpoints" / "k", ignore_errors=True)

        monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
        append(home, "k", 1)
        follow(home, idle_s=3, poll_s=2)
        (run,) = live_runs(home)
        assert run.info.status == "FINISHED"
        assert [step for step, _ in curve(home, run, "training/loss", "toy-live")] == [1, 2, 3, 4, 5]

    def test_a_second_follower_returns_at_once(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        append(home, "k", 1)
        monkeypatch.setattr(live, "open_store", lambda *_: pytest.fail("it must not reach for the store"))
        with FileLock(home / live.LOCK):
            follow(home, idle_s=60, poll_s=60)
        assert capsys.readouterr().err == ""

    def test_a_failing_store_is_one_line(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        append(home, "k", 1)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}")
        follow(home, idle_s=60, poll_s=60)
        error = capsys.readouterr().err
        assert error.startswith("live curves end here: MLflow store")
        assert error.count("\n") == 1

    def test_it_ends_when_nothing_is_trained(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(live, "LINGER", 0.1)
        started = time.monotonic()
        follow(home, idle_s=60, poll_s=0.02)
        assert time.monotonic() - started < 10
