"""Networks as MLflow models, and the registered one.

A network is exported (`torch.export`, MLflow's `pt2`): it is loaded without this project and without a pickle, takes any
number of images, and gives the same logits. The first export takes seconds, each further one of a small network 0.3 s.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epsilens.tracking.state import Grid
from epsilens.tracking.store import Store, StoreError, one_line

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from torch import nn

Loader = Callable[[str, int], "nn.Module"]  # (epsilon, seed) to the network on the CPU, in eval mode

CHOICES = ("all", "headline", "none")
ALIAS = "recommended"
DVC_HASH = "dvc.md5"  # tag: DVC's hash of the weights
GREY = 0.5  # of the example: pixels are in [0, 1]
EXAMPLES = 2  # images; torch.export takes a batch of one for a constant


def kept_networks(choice: str, grid: Grid, recommended: float | None) -> Grid:
    """Whose weights go into MLflow. headline: all seeds of the smallest, the recommended and the largest epsilon.

    The others are models without bytes, which name DVC's file.
    """
    if choice == "all":
        return grid
    values = [float(epsilon) for epsilon, _ in grid]
    chosen = {min(values), max(values), recommended} if choice == "headline" else set()
    return [(epsilon, seed) for epsilon, seed in grid if float(epsilon) in chosen]


def add_bytes(store: Store, model: str, network: nn.Module, card: Mapping[str, Any]) -> None:
    """The exported network as the files of a logged model. card: its channels, height, width and class_names."""
    with tempfile.TemporaryDirectory() as folder, one_line(store.where):
        path = Path(folder) / "model"
        _export(path, model, network, card)
        store.client.log_model_artifacts(model, str(path))


def register(store: Store, name: str, model: str, tags: Mapping[str, str]) -> None:
    """The model as a version of the registered model `name` under the alias `recommended`.

    The same weights (tag dvc.md5) are one version however often they are registered, unless its model was deleted.
    """
    with one_line(store.where):
        if not store.client.search_registered_models(f"name = '{name}'"):
            store.client.create_registered_model(name)
        known = f"tags.`{DVC_HASH}` = '{tags[DVC_HASH]}'"
        same = store.client.search_model_versions(f"name = '{name}' and {known}")
        alive = {_source(found.model_id) for found in store.client.search_logged_models([store.experiment], known)}
        for dead in [found for found in same if found.source not in alive]:
            store.client.delete_model_version(name, dead.version)
        kept = [found for found in same if found.source in alive]
        chosen = kept[0] if kept else _new_version(store, name, model, tags)
        store.client.set_registered_model_alias(name, ALIAS, chosen.version)


def _export(path: Path, model: str, network: nn.Module, card: Mapping[str, Any]) -> None:
    import numpy as np
    import torch
    from mlflow import pytorch
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    shape = tuple(card[name] for name in ("channels", "height", "width"))
    pixels = TensorSpec(np.dtype("float32"), (-1, *shape))
    logits = TensorSpec(np.dtype("float32"), (-1, len(card["class_names"])))
    plain = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # stubs lack it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torch and MLflow will change one day
            pytorch.save_model(
                plain,
                str(path),
                mlflow_model=Model(model_id=model),
                signature=ModelSignature(Schema([pixels]), Schema([logits])),
                input_example=np.full((EXAMPLES, *shape), GREY, "float32"),
                pip_requirements=[f"{package}=={version(package)}" for package in ("mlflow", "torch")],
                serialization_format="pt2",
            )
    except RuntimeError as error:  # torch.export, and torch's writer on a full disk
        raise StoreError(f"{path.name}: a network cannot be exported: {str(error).strip().splitlines()[0]}") from error


def _new_version(store: Store, name: str, model: str, tags: Mapping[str, str]) -> ModelVersion:
    with _default_store(store.where):
        return store.client.create_model_version(name, _source(model), tags=dict(tags), model_id=model)


def _source(model: str) -> str:
    return f"models:/{model}"


@contextmanager
def _default_store(uri: str) -> Iterator[None]:
    """Beside a database MLflow looks for a version's model in the default store, not in the one it was asked for."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)  # sets the variable too
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # and takes it away
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
