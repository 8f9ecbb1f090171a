"""The prepared splits as MLflow shows the data sets of a run: name, checksum, shapes and counts; no data are copied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from epsilens.artifacts import PREPARED

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

CONTEXTS = {"train": "training", "validation": "validation"}  # of a split; all others are for evaluation
DIGEST = 36  # characters that MLflow has room for


def dataset_inputs(manifest: Mapping[str, Any]) -> list[DatasetInput]:
    """One input a split of data/prepared/manifest.json, training first. Its digest: the start of the file's SHA-256."""
    ordered = sorted(manifest["splits"], key=lambda split: (split not in CONTEXTS, split))
    return [_input(manifest, split) for split in ordered]


def _input(manifest: Mapping[str, Any], split: str) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    facts = manifest["splits"][split]
    source = {"uri": (PREPARED / f"{split}.safetensors").as_posix()}
    profile = {"num_rows": facts["images"], "classes": len(manifest["class_names"]), "masks": facts["masks"]}
    data = Dataset(
        name=f"{manifest['name']}-{split}",
        digest=facts["sha256"][:DIGEST],
        source_type="local",
        source=json.dumps(source),
        schema=json.dumps(_schema(manifest)),
        profile=json.dumps(profile),
    )
    return DatasetInput(data, [InputTag("mlflow.data.context", CONTEXTS.get(split, "evaluation"))])


def _schema(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Images uint8 [N, C, H, W] and labels int64 [N], as the files have them."""
    import numpy as np
    from mlflow.data.schema import TensorDatasetSchema
    from mlflow.types import Schema, TensorSpec

    shape = tuple(manifest[name] for name in ("channels", "height", "width"))
    images = TensorSpec(np.dtype("uint8"), (-1, *shape), "images")
    labels = TensorSpec(np.dtype("int64"), (-1,), "labels")
    return TensorDatasetSchema(Schema([images]), Schema([labels])).to_dict()
