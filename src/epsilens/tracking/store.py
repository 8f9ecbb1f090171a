"""A thin rim around MLflow: where the store is, its first use, its limits, and one clear line when it fails.

MLflow is imported when a store is opened, not before: it takes seconds, and its telemetry has to be off by then.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from epsilens.errors import EpsilensError

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run
    from mlflow.tracking import MlflowClient

CHECKPOINTS = Path(".checkpoints")  # git-ignored and outside of all DVC outputs: locks live here
PARAM_LENGTH, TAG_LENGTH = 6000, 8000  # characters; MLflow refuses or cuts what is longer
PARAMS_PER_BATCH, METRICS_PER_BATCH = 100, 1000
EVERY_RUN = 10_000
SQLITE_PATIENCE = 10.0  # seconds; MLflow itself would try a locked or damaged file for two minutes
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # it logs a traceback for each database error before it raises it
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its own 7 with their pauses are four minutes for a server that is down
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds
}
FOREIGN = {"mlflow", "sqlalchemy", "alembic", "sqlite3", "requests", "urllib3"}

NOTE = "mlflow.note.content"  # tag: what the UI shows as description
KIND = {"mlflow.experimentKind": "custom_model_development"}  # else the UI opens with its pages for language models
EXTERNAL = {"mlflow.model.isExternal": "true"}  # tag of a model whose bytes are elsewhere

LABELS = {"study", "epsilon", "seed", "epoch"}  # of a line of a training's history; the rest are its numbers

Point = tuple[str, float, int]  # a metric's name, its value, its step


class StoreError(EpsilensError):
    """MLflow's store cannot be reached, read or written."""

    status = 3


def home() -> Path:
    """The repository that owns the store, also for a queued or temporary experiment, which runs in another folder."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or else a SQLite file in the repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root / 'mlflow.db').as_posix()}"


def clean_name(text: str) -> str:
    """A name that MLflow takes: letters, digits, `_-./` and spaces, and a normal path; whatever else becomes `_`.

    At most 250 characters, MLflow's limit.
    """
    parts = [part for part in re.sub(r"[^\w\-. /]", "_", text).split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:250] or "_"


def epoch_points(line: Mapping[str, Any]) -> list[Point]:
    """The numbers of one epoch of a training, `training/<name>`; its epoch is their step."""
    numbers = {name: v for name, v in line.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return [(f"training/{name}", float(v), int(line["epoch"])) for name, v in numbers.items() if name not in LABELS]


@contextmanager
def one_line(where: str) -> Iterator[None]:
    """Whatever MLflow, its database, the network or the disk raises becomes a StoreError of one line."""
    try:
        yield
    except Exception as error:
        if not _is_foreign(error):  # an error of our own keeps its traceback
            raise
        raise StoreError(f"MLflow store {where}: {_reason(error)}") from error


def _is_foreign(error: BaseException) -> bool:
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in FOREIGN


def _reason(error: BaseException) -> str:
    """The first line of the innermost error: "Connection refused" instead of what five layers make of it."""
    inner = error.__cause__ or error.__context__
    if inner is not None and _is_foreign(inner):
        return _reason(inner)
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


@contextmanager
def alone(root: Path, name: str, patience: float) -> Iterator[None]:
    """Hold the lock `.checkpoints/<name>.lock`; the system releases it when its holder dies.

    Raises StoreError if another process holds it for more than `patience` seconds.
    """
    path = root / CHECKPOINTS / f"{name}.lock"
    with one_line(str(root)):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            raise StoreError(f"MLflow store {root}: another process has held {path} for {patience:g} s") from None
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Store:
    """One experiment of a store. Every failure of MLflow in here is a StoreError of one line."""

    client: MlflowClient
    experiment: str  # its id
    where: str  # its URI

    def start(self, name: str, tags: Mapping[str, Any]) -> str:
        """A new run in state RUNNING; returns its id."""
        cut = {key: str(value)[:TAG_LENGTH] for key, value in tags.items()}
        with one_line(self.where):
            return self.client.create_run(self.experiment, run_name=name, tags=cut).info.run_id

    def log(
        self,
        run: str,
        points: Iterable[Point] = (),
        params: Mapping[str, Any] | None = None,
        *,
        model: str | None = None,
    ) -> None:
        """Metrics (of a model too, where one is named) and parameters, in as few requests as MLflow's limits allow.

        NaN and infinity are left out.
        """
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        finite = [point for point in points if math.isfinite(point[1])]
        metrics = [Metric(clean_name(name), value, now, step, model) for name, value, step in finite]
        texts = [Param(clean_name(name), str(value)[:PARAM_LENGTH]) for name, value in (params or {}).items()]
        with one_line(self.where):
            for batch in _batches(texts, PARAMS_PER_BATCH):
                self.client.log_batch(run, params=batch)
            for batch in _batches(metrics, METRICS_PER_BATCH):
                self.client.log_batch(run, metrics=batch)

    def inputs(self, run: str, datasets: Sequence[DatasetInput]) -> None:
        """Say what a run was computed from; no data are copied."""
        with one_line(self.where):
            self.client.log_inputs(run, datasets)

    def model(self, run: str, name: str, tags: Mapping[str, str], params: Mapping[str, str]) -> str:
        """A model of the Models tab and of this run; returns its id. Its files are added until `ready`."""
        from mlflow.entities import LoggedModelOutput

        with one_line(self.where):
            model = self.client.create_logged_model(self.experiment, name, run, dict(tags), dict(params)).model_id
            self.client.log_outputs(run, [LoggedModelOutput(model, 0)])
            return model

    def ready(self, model: str) -> None:
        """The model is whole."""
        from mlflow.entities import LoggedModelStatus

        with one_line(self.where):
            self.client.finalize_logged_model(model, LoggedModelStatus.READY)

    def describe(self, text: str, run: str | None = None) -> None:
        """The description (Markdown) of a run, or of the experiment."""
        with one_line(self.where):
            if run is None:
                self.client.set_experiment_tag(self.experiment, NOTE, text[:TAG_LENGTH])
            else:
                self.client.set_tag(run, NOTE, text[:TAG_LENGTH])

    def picture(self, run: str, name: str, png: bytes) -> None:
        """One PNG among the artifacts of a run."""
        with tempfile.TemporaryDirectory() as folder, one_line(self.where):
            path = Path(folder) / name
            path.write_bytes(png)
            self.client.log_artifact(run, str(path))

    def files(self, run: str, folder: Path, paths: Iterable[Path], below: int = 0) -> None:
        """Copy files and folders under their paths relative to `folder`, less `below` leading parts."""
        with one_line(self.where):
            for path in paths:
                target = Path(*path.parts[below:])
                if (folder / path).is_dir():
                    self.client.log_artifacts(run, str(folder / path), target.as_posix())
                else:
                    parent = target.parent.as_posix()
                    self.client.log_artifact(run, str(folder / path), None if parent == "." else parent)

    def runs(self, condition: str) -> list[Run]:
        """The runs of this experiment that fulfil a condition in MLflow's search syntax; deleted ones are left out."""
        with one_line(self.where):
            return list(self.client.search_runs([self.experiment], condition, max_results=EVERY_RUN))

    def steps(self, run: Run) -> set[int]:
        """The steps at which a run has metrics."""
        with one_line(self.where):
            points = [self.client.get_metric_history(run.info.run_id, name) for name in run.data.metrics]
        return {point.step for history in points for point in history}

    def resume(self, run: str) -> None:
        """Put a run that had ended back into state RUNNING."""
        with one_line(self.where):
            self.client.update_run(run, status="RUNNING")

    def finish(self, run: str, status: str = "FINISHED") -> None:
        """End a run."""
        with one_line(self.where):
            self.client.set_terminated(run, status)

    def remove(self, run: str) -> None:
        """Delete a run, its models and its children."""
        for child in self.runs(f"tags.mlflow.parentRunId = '{run}'"):
            self.remove(child.info.run_id)
        with one_line(self.where):
            for model in self.client.search_logged_models([self.experiment], f"source_run_id = '{run}'"):
                self.client.delete_logged_model(model.model_id)
            self.client.delete_run(run)


def open_store(root: Path, experiment: str) -> Store:
    """The store of a repository and one experiment in it, both made at first use, by one process at a time.

    Raises StoreError if the store cannot be reached or written.
    """
    uri = tracking_uri(root)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with alone(root, "mlflow", 120), one_line(uri):
        from mlflow.tracking import MlflowClient

        logging.getLogger("alembic").setLevel(logging.ERROR)
        path = uri.removeprefix("sqlite:///")
        if path != uri and "?" not in path:
            _make(Path(path), MlflowClient)
            _check_writable(path)
        client = MlflowClient(uri)
        return Store(client, _experiment(client, uri, root, experiment), uri)


def _experiment(client: MlflowClient, uri: str, root: Path, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        # A server knows where its artifacts go; beside a database the default would depend on the current folder.
        location = None if uri.startswith("http") else (root / "mlruns").as_uri()
        return client.create_experiment(name, artifact_location=location, tags=KIND)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    for tag, value in KIND.items():
        if tag not in found.tags:
            client.set_experiment_tag(found.experiment_id, tag, value)
    return found.experiment_id


def _make(path: Path, client: type[MlflowClient]) -> None:
    """Make a database whole or not at all: one whose tables are made in part can never be opened again."""
    if not path.exists():
        partial = path.with_name(f"{path.name}.partial")
        for left in (partial, partial.with_name(f"{partial.name}-journal")):  # behind by a kill or a full disk
            left.unlink(missing_ok=True)
        client(f"sqlite:///{partial.as_posix()}").search_experiments()
        partial.replace(path)


def _check_writable(path: str) -> None:
    """Fail at once, and with SQLite's own words, where MLflow would retry for minutes."""
    with closing(sqlite3.connect(path, timeout=SQLITE_PATIENCE)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
