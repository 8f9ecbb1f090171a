"""What every data set is read into, and the few steps that the readers share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from epsilens import artifacts
from epsilens.errors import DataError
from epsilens.types import Samples

OwnTest = Literal["test", "official_test", "ignore"]
"""What becomes of the test files that a source brings along: the test split, an extra split beside a held-out test
split, or nothing (they are not read)."""


@dataclass(frozen=True)
class Known:
    """What the options of a data set tell without its files; None where only the files do.

    side: pixels, of the square images. train, test: images that the source brings; test 0: the test split is `data.holdout`.
    """

    side: int | None = None
    classes: int | None = None
    train: int | None = None
    test: int | None = None


@dataclass(frozen=True)
class Source:
    """A data set before it is split. Ids are unique within `train`, within `test` and within each extra."""

    train: Samples
    test: Samples | None
    extras: dict[str, Samples]  # further test splits by name; they are measured, never trained or selected on
    class_names: tuple[str, ...]  # a label is an index into it
    files: dict[str, str] = field(default_factory=dict)  # file name -> SHA-256; empty where nothing was read
    boxes: dict[str, Any] = field(
        default_factory=dict
    )  # by what rule boxes became masks, and counts; empty without boxes
    skipped: tuple[str, ...] = ()  # names of the pictures that could not be read and were left out


def samples(images: Tensor, labels: Tensor, masks: Tensor | None = None, ids: Tensor | None = None) -> Samples:
    """Samples with their position as id, and no masks, unless these are given."""
    count, _, height, width = images.shape
    if masks is None:
        masks = torch.zeros(count, height, width, dtype=torch.bool)
    return Samples(images, labels, masks, torch.arange(count) if ids is None else ids)


def assemble(
    train: Samples,
    own: Samples | None,
    own_test: OwnTest,
    class_names: Sequence[str],
    files: dict[str, str],
    boxes: dict[str, Any] | None = None,
    skipped: Sequence[str] = (),
) -> Source:
    """A Source whose own test images stand where `own_test` says."""
    test = own if own_test == "test" else None
    extras = {"official_test": own} if own is not None and own_test == "official_test" else {}
    return Source(train, test, extras, tuple(class_names), files, boxes or {}, tuple(skipped))


def existing_folder(path: Path) -> Path:
    """The path itself. Raises DataError if there is no such folder."""
    if not path.is_dir():
        raise DataError(
            f"{path}: no such folder; put the data there or change data.options.path in params.yaml "
            "(relative paths start at the raw data folder, the environment variable EPSILENS_DATA)"
        )
    return path


def read_bytes(path: Path) -> bytes:
    """Raises DataError if the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def checksums(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file under its bare name. Raises DataError if one cannot be read."""
    try:
        return {path.name: artifacts.sha256(path) for path in paths}
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None
