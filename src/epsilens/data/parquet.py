"""Images in parquet files, in the Hugging Face layout."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import Field
from torch import Tensor

from epsilens.data import boxes
from epsilens.data.decode import BATCH, Fit, OnBad, decode_all
from epsilens.data.source import OwnTest, Source, assemble, checksums, existing_folder, samples
from epsilens.errors import DataError
from epsilens.types import Samples

IMAGE_COLUMNS = ("img", "image")
BOXES = "bbox"


def load(root: Path, *, path: str, size: Annotated[int, Field(ge=1)], own_test: OwnTest, on_bad: OnBad) -> Source:
    """Read `root`/`path`/train-*.parquet, and the source's own test-*.parquet or, without those, validation-*.parquet.

    Columns: `img` or `image` {bytes, path}, `label`, and optionally `bbox`, a list of [x1, y1, x2, y2] or one such box, in
    pixels of the stored image, empty or null where there is none; see boxes.py for what they become. Class names are in the
    schema's metadata. Images become [3, size, size]. An id is the position in the order of file name, then row, those
    that are skipped counted in.

    Raises DataError that names file and row.
    """
    folder = existing_folder(root / path)
    files = _shards(folder, "train")
    own_files = [] if own_test == "ignore" else _own_shards(folder, own_test)
    class_names = _common_class_names(files + own_files)
    reader = _Reader(len(class_names), Fit(size), on_bad)
    train, boxed = reader.read(files)
    own, own_boxed = reader.read(own_files) if own_files else (None, None)
    facts = boxes.facts([(train, boxed), (own, own_boxed)])
    return assemble(train, own, own_test, class_names, checksums(files + own_files), facts, reader.skipped)


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
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # the last: of names that are not UTF-8
        raise DataError(f"{file}: cannot be read as parquet: {error}") from None


Part = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # images, labels, masks, ids, and which images have boxes


@dataclass
class _Reader:
    """Reads shards; `skipped` grows by the names of the pictures that are left out."""

    classes: int
    fit: Fit
    on_bad: OnBad
    skipped: list[str] = field(default_factory=list)

    def read(self, files: Sequence[Path]) -> tuple[Samples, Tensor | None]:
        """The images, and bool [N] which of them have boxes; None if no file has a column of boxes."""
        rows, parts = 0, []
        for file in files:
            for batch, first in self._batches(file):
                parts.append(self._part(file, first, batch, id=rows))
                rows += len(batch)
        if not any(len(part[0]) for part in parts):
            raise DataError(f"{files[0]}: holds no images" + (" that can be read" if rows else ""))
        *found, boxed = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        given = any(BOXES in pq.read_schema(file).names for file in files)
        return samples(*found), boxed if given else None

    def _batches(self, file: Path) -> Iterator[tuple[pa.RecordBatch, int]]:
        """The rows of a file, some at a time, and the number of the first."""
        with _reading(file), pq.ParquetFile(file) as opened:
            first = 0
            for batch in opened.iter_batches(batch_size=BATCH, columns=_columns(file, opened.schema_arrow)):
                yield batch, first
                first += len(batch)

    def _part(self, file: Path, first: int, batch: pa.RecordBatch, *, id: int) -> Part:
        contents = [
            (image or {}).get("bytes") or b"" for image in batch.column(0).to_pylist()
        ]  # columns come as asked for
        rows = [f"row {first + i}" for i in range(len(batch))]
        decoded = decode_all(contents, [f"{file}: {row}" for row in rows], self.fit, self.on_bad)
        self.skipped += [f"{file.name}: {rows[i]}" for i in decoded.bad]
        labels, found = batch.column("label").to_pylist(), _boxes(file, batch)
        masks = torch.zeros(len(decoded.kept), self.fit.size, self.fit.size, dtype=torch.bool)
        for mask, frame, i in zip(masks, decoded.frames, decoded.kept, strict=True):
            _check_label(labels[i], self.classes, f"{file}: {rows[i]}")
            mask[:] = boxes.draw(found[i], frame, self.fit, f"{file}: {rows[i]}")
        kept = torch.tensor(decoded.kept, dtype=torch.int64)
        labelled = torch.tensor([labels[i] for i in decoded.kept], dtype=torch.int64)
        return (
            decoded.images,
            labelled,
            masks,
            id + kept,
            torch.tensor([bool(found[i]) for i in decoded.kept], dtype=torch.bool),
        )


def _columns(file: Path, schema: pa.Schema) -> list[str]:
    image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    if image is None or "label" not in schema.names:
        raise DataError(f"{file}: found columns {', '.join(schema.names)}, expected img or image, and label")
    kind = schema.field(image).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise DataError(f"{file}: column {image}: found {kind}, expected a struct with bytes")
    if not pa.types.is_integer(schema.field("label").type):
        raise DataError(f"{file}: column label: found {schema.field('label').type}, expected integers")
    if BOXES not in schema.names:
        return [image, "label"]
    _depth(file, schema.field(BOXES).type)
    return [image, "label", BOXES]


def _depth(file: Path, kind: pa.DataType) -> int:
    """1 for a column of [x1, y1, x2, y2], 2 for a column of lists of them. Raises DataError for anything else."""
    depth, inner = 0, kind
    while pa.types.is_list(inner) or pa.types.is_large_list(inner) or pa.types.is_fixed_size_list(inner):
        depth, inner = depth + 1, inner.value_type
    numeric = pa.types.is_integer(inner) or pa.types.is_floating(inner)
    if pa.types.is_null(inner) and depth <= 2:
        return 2  # a list that is empty in every row, or nothing but nulls
    if not numeric or depth not in (1, 2):
        raise DataError(f"{file}: column {BOXES}: found {kind}, expected lists of [x1, y1, x2, y2], or one such box")
    return depth


def _boxes(file: Path, batch: pa.RecordBatch) -> list[list[Any]]:
    """The boxes of each row, as they stand there."""
    if BOXES not in batch.schema.names:
        return [[] for _ in range(len(batch))]
    flat = _depth(file, batch.schema.field(BOXES).type) == 1
    rows = [row or [] for row in batch.column(BOXES).to_pylist()]
    return [[row] if flat and row else row for row in rows]


def _check_label(label: int | None, classes: int, name: str) -> None:
    if label is None or not 0 <= label < classes:
        raise DataError(f"{name}: found label {label}, expected 0 to {classes - 1}")
