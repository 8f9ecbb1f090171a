"""Images in parquet files, in the Hugging Face layout."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import Field
from torch import Tensor

from epsilens.data.decode import BATCH, decode_all
from epsilens.data.source import OwnTest, Source, assemble, checksums, existing_folder, samples
from epsilens.errors import DataError
from epsilens.types import Samples

IMAGE_COLUMNS = ("img", "image")


def load(root: Path, *, path: str, size: Annotated[int, Field(ge=1)], own_test: OwnTest) -> Source:
    """Read `root`/`path`/train-*.parquet, and the source's own test-*.parquet or, without those, validation-*.parquet.

    Columns: `img` or `image` {bytes, path}, `label`, and optionally `bbox`, a list of [x1, y1, x2, y2] in pixels of the
    stored (upright) image, which becomes the mask. Class names are in the schema's metadata. Images become
    [3, size, size]. An id is the position in the order of file name, then row.

    Raises DataError that names file and row.
    """
    folder = existing_folder(root / path)
    files = _shards(folder, "train")
    own_files = [] if own_test == "ignore" else _own_shards(folder, own_test)
    class_names = _common_class_names(files + own_files)
    train = _read(files, class_names, size)
    own = _read(own_files, class_names, size) if own_files else None
    return assemble(train, own, own_test, class_names, checksums(files + own_files))


def _shards(folder: Path, split: str) -> list[Path]:
    found = sorted(folder.glob(f"{split}-*.parquet"))
    if not found and split == "train":
        raise DataError(f"{folder}: holds no train-*.parquet")
    return found


def _own_shards(folder: Path, own_test: OwnTest) -> list[Path]:
    found = _shards(folder, "test") or _shards(folder, "validation")
    if not found:
        raise DataError(
            f"{folder}: holds neither test-*.parquet nor validation-*.parquet, but params.yaml says "
            f"data.options.own_test: {own_test}; say ignore, and set data.holdout"
        )
    return found


def _common_class_names(files: Sequence[Path]) -> list[str]:
    first, names = files[0], _class_names(files[0])
    for file in files[1:]:
        if _class_names(file) != names:
            raise DataError(f"{file}: its class names differ from those of {first.name}")
    return names


def _class_names(file: Path) -> list[str]:
    """From the metadata key `class_names` (separated by commas) or from Hugging Face's own ClassLabel feature."""
    with _reading(file):
        metadata = pq.read_schema(file).metadata or {}
    names: Any = metadata[b"class_names"].decode().split(",") if b"class_names" in metadata else None
    if names is None and b"huggingface" in metadata:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    if not names or len(set(names)) < len(names) or not all(names):
        raise DataError(
            f"{file}: found class names {names!r} in its metadata, expected distinct ones under class_names"
        )
    return names


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read as parquet: {error}") from None


def _read(files: Sequence[Path], class_names: Sequence[str], size: int) -> Samples:
    parts = [part for file in files for part in _read_file(file, len(class_names), size)]
    if not parts:
        raise DataError(f"{files[0]}: holds no images")
    images, labels, masks = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return samples(images, labels, masks)


def _read_file(file: Path, classes: int, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    with _reading(file), pq.ParquetFile(file) as opened:
        columns = _columns(file, opened.schema_arrow)
        row = 0
        for batch in opened.iter_batches(batch_size=BATCH, columns=columns):
            yield _read_batch(file, row, batch, classes, size)
            row += len(batch)


def _columns(file: Path, schema: pa.Schema) -> list[str]:
    image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    if image is None or "label" not in schema.names:
        raise DataError(f"{file}: found columns {', '.join(schema.names)}, expected img or image, and label")
    kind = schema.field(image).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise DataError(f"{file}: column {image}: found {kind}, expected a struct with bytes")
    if not pa.types.is_integer(schema.field("label").type):
        raise DataError(f"{file}: column label: found {schema.field('label').type}, expected integers")
    return [image, "label", *(["bbox"] if "bbox" in schema.names else [])]


def _read_batch(
    file: Path, first: int, batch: pa.RecordBatch, classes: int, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    names = [f"{file}: row {first + i}" for i in range(len(batch))]
    contents = [(image or {}).get("bytes") or b"" for image in batch.column(0).to_pylist()]  # columns come as asked for
    images, shapes = decode_all(contents, names, size)
    labels = _labels(batch.column("label").to_pylist(), names, classes)
    boxes = batch.column("bbox").to_pylist() if "bbox" in batch.schema.names else [None] * len(names)
    masks = [rasterise(b or [], shape, size, name) for b, shape, name in zip(boxes, shapes, names, strict=True)]
    return images, labels, torch.stack(masks)


def _labels(labels: Sequence[int | None], names: Sequence[str], classes: int) -> Tensor:
    for label, name in zip(labels, names, strict=True):
        if label is None or not 0 <= label < classes:
            raise DataError(f"{name}: found label {label}, expected 0 to {classes - 1}")
    return torch.tensor(labels, dtype=torch.int64)


def rasterise(boxes: Sequence[Sequence[float]], shape: tuple[int, int], size: int, name: str) -> Tensor:
    """bool [size, size]: every pixel that a box touches, after (width, height) `shape` was squashed to `size`.

    What of a box lies outside its image is cut off. Raises DataError with `name` for a box that is no rectangle, has no
    area, or lies outside altogether.
    """
    mask = torch.zeros(size, size, dtype=torch.bool)
    width, height = shape
    for box in boxes:
        if box is None or len(box) != 4 or not all(v is not None and math.isfinite(v) for v in box):
            raise DataError(f"{name}: found box {box}, expected [x1, y1, x2, y2]")
        left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
        if not (left < right and top < bottom):
            raise DataError(f"{name}: found box {box}, expected x1 < x2 and y1 < y2 within {width} x {height} pixels")
        rows = slice(math.floor(top * size / height), math.ceil(bottom * size / height))
        columns = slice(math.floor(left * size / width), math.ceil(right * size / width))
        mask[rows, columns] = True
    return mask
