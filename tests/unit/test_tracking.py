"""The mirror in MLflow and the live curves, on a small made-up state of the pipeline and a SQLite store."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from filelock import FileLock

from epsilens import artifacts
from epsilens.errors import DataError
from epsilens.tracking import live, state, store
from epsilens.tracking.live import follow
from epsilens.tracking.mirror import mirror
from epsilens.tracking.state import Grid, PipelineState, live_entries, read_state
from epsilens.tracking.store import Store, StoreError, clean_name, open_store

# MLflow 3.17 and what it imports (pydantic, alembic, SQLAlchemy) warn of their own coming changes, at import and in use.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:pydantic"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # its SQLite connections are closed by the garbage collector
]

GRID: Grid = [("8", 0), ("0.25", 1)]
PARAMS = {
    "study": {"name": "toy"},
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
    artifacts.write_json(models / "card.json", {"architecture": "none"})
    epochs = [(1, 2.5, 0.5), (2, 1.25, None), (3, 0.75, 0.875)]
    history = [{"epoch": e, "loss": loss, "validation_accuracy": v, "kept": e == 3} for e, loss, v in epochs]
    artifacts.write_json(models / "history.json", history)
    attack_rows = {
        "split": ["test", "test", "test", "test", "official_test", "test"],
        "attack": ["pgd", "clean", "clean", "pgd", "clean", "pgd"],
        "norm": ["linf", "linf", "linf", "linf", "linf", "l2"],
        "budget": [8.0, 0.0, 0.0, 8.0, 0.0, 8.0],
        "correct": [False, True, False, True, True, False],
    }
    artifacts.write_rows(attacks / "rows.parquet", attack_rows)
    artifacts.write_json(attacks / "gate.json", {"sound": seed == 0, "flags": [], "checks": []})
    score_rows = {
        "attribution": ["gradient", "sobel", "gradient", "gradient", "random", "gradient"],
        "metric": ["gini"] * 6,
        "score": [-0.5, 0.125, float("nan"), 1.0, float("nan"), 0.625],
    }
    artifacts.write_rows(scores / "rows.parquet", score_rows)


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
    artifacts.write_json(folder / artifacts.MANIFEST, {"name": "shapes"})
    artifacts.write_json(folder / artifacts.SUMMARY, {"clean": {"eps=8": 0.75}, "undefined": float("nan"), "note": "n"})
    for path in artifacts.TABLES:
        artifacts.write_json(folder / path, [])
    artifacts.write_bytes(folder / artifacts.REPORTS / "index.html", b"<html>")
    artifacts.write_bytes(folder / artifacts.REPORTS / "figures" / "trade-off.svg", b"<svg/>")
    return read_state(folder, "toy", grid)


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
        done = mirror(home, found)
        assert done.written
        (study,) = studies(home)
        assert (study.info.run_id, study.info.run_name, study.info.status) == (done.run, done.name, "FINISHED")
        assert done.name == f"toy-{found.key[:8]}"
        assert study.data.metrics == {"clean.eps_8": 0.75}
        assert study.data.params["attribute.methods.integrated_gradients_blur.steps"] == "50"
        assert study.data.params["long"] == "x" * 6000
        assert study.data.tags["epsilens.key"] == found.key
        assert study.inputs.dataset_inputs[0].dataset.name == "shapes"
        children = networks(home, done.run)
        assert set(children) == {"eps-8-seed-0", "eps-0.25-seed-1"}
        assert {run.info.status for run in children.values()} == {"FINISHED"}

    def test_a_network(self, home: Path) -> None:
        run = networks(home, mirror(home, make_state(home)).run)["eps-0.25-seed-1"]
        assert run.data.params == {"epsilon": "0.25", "seed": "1"}
        assert run.data.tags["dvc.md5"] == "md5-of-0.25-1"
        finals = {name: v for name, v in run.data.metrics.items() if "." in name}
        assert finals == {
            "accuracy.test.clean": 0.5,
            "accuracy.test.pgd.linf.8": 0.5,
            "accuracy.test.pgd.l2.8": 0.0,
            "accuracy.official_test.clean": 1.0,
            "score.gradient.gini": 0.375,  # the mean without the NaN
            "score.sobel.gini": 0.125,
            "gate.sound": 0.0,
        }
        assert curve(home, run, "loss") == [(1, 2.5), (2, 1.25), (3, 0.75)]
        assert curve(home, run, "validation_accuracy") == [(1, 0.5), (3, 0.875)]
        assert "kept" not in run.data.metrics

    def test_files_and_external_models(self, home: Path) -> None:
        done = mirror(home, make_state(home))
        client = open_store(home, "toy").client
        top = {item.path for item in client.list_artifacts(done.run)}
        assert top == {"params.yaml", "dvc.yaml", "dvc.lock", "data", "metrics", "reports"}
        assert {item.path for item in client.list_artifacts(done.run, "reports")} == {
            "reports/index.html",
            "reports/figures",
        }
        run = networks(home, done.run)["eps-8-seed-0"]
        stored = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert stored == {"model.safetensors", "card.json", "history.json"}
        assert (home / "mlruns" / run.info.run_id / "artifacts" / "model.safetensors").read_bytes() == b"8-0"
        models = client.search_logged_models([run.info.experiment_id])
        assert {(m.name, m.tags["dvc.path"], str(m.status)) for m in models} == {
            ("eps-8-seed-0", "models/eps-8/seed-0/model.safetensors", "READY"),
            ("eps-0_25-seed-1", "models/eps-0.25/seed-1/model.safetensors", "READY"),
        }
        assert {metric.key for m in models for metric in m.metrics or []} >= {"accuracy.test.clean"}

    def test_once_only(self, home: Path) -> None:
        found = make_state(home)
        first, second = mirror(home, found), mirror(home, found)
        assert (second.written, second.run, second.name) == (False, first.run, first.name)
        assert len(open_store(home, "toy").runs("")) == 1 + len(GRID)

    def test_another_state_is_another_study(self, home: Path) -> None:
        mirror(home, make_state(home))
        mirror(home, make_state(home, GRID[:1]))
        assert sorted(len(networks(home, run.info.run_id)) for run in studies(home)) == [1, 2]

    def test_an_interrupted_mirror_is_repaired(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = make_state(home)
        with monkeypatch.context() as patch:
            patch.setattr(Store, "files", _fail_at_call(2, Store.files))
            with pytest.raises(ZeroDivisionError):
                mirror(home, found)
        assert {run.info.status for run in studies(home)} == {"RUNNING"}
        done = mirror(home, found)
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
        done = mirror(home, make_state(working_copy))
        (study,) = studies(home)
        assert done.name == study.info.run_name == study.data.tags["dvc.experiment"] == "wary-noun"
        assert study.data.tags["mlflow.source.git.commit"] == "c0ffee"
        assert not (working_copy / "mlruns").exists()

    def test_a_deleted_experiment_is_restored(self, home: Path) -> None:
        found = make_state(home)
        first = mirror(home, found)
        opened = open_store(home, "toy")
        opened.client.delete_experiment(opened.experiment)
        assert mirror(home, found).run == first.run


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
            mirror(home, make_state(home))
        assert "Traceback" not in capfd.readouterr().err

    def test_one_line_for_a_store_that_cannot_be_written(self, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
        found = make_state(home)
        with store.closing(store.sqlite3.connect(home / "mlflow.db")) as database:
            database.execute("CREATE TRIGGER full BEFORE INSERT ON metrics BEGIN SELECT RAISE(ABORT, 'disk full'); END")
            with pytest.raises(StoreError, match=r"mlflow\.db: disk full$"):
                mirror(home, found)
            database.execute("DROP TRIGGER full")
        assert "Traceback" not in capfd.readouterr().err
        assert mirror(home, found).written
        assert len(studies(home)) == 1

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
        assert curve(home, run, "loss", "toy-live") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
        assert set(run.data.metrics) == {"loss"}
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
        assert [step for step, _ in curve(home, run, "loss", "toy-live")] == [1, 2, 3]

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
        assert [step for step, _ in curve(home, run, "loss", "toy-live")] == [1, 2, 3, 4, 5]

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
