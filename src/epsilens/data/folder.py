"""Image files in one folder a class, the ImageFolder layout."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from epsilens.data.decode import BATCH, decode_all
from epsilens.data.source import OwnTest, Source, assemble, existing_folder, read_bytes, samples
from epsilens.errors import DataError
from epsilens.types import Samples


def load(root: Path, *, path: str, size: Annotated[int, Field(ge=1)], own_test: OwnTest) -> Source:
    """Read `root`/`path`/train/<class>/*, and the source's own test/<class>/* or, without that, val/<class>/*.

    Classes are the sorted names of train's folders. Every file below a class folder counts as an image, except those
    whose name starts with a dot. Images become [3, size, size] and have no masks. An id is the position in the order of
    class, then file path. The recorded checksum of a split is the SHA-256 of its list "<SHA-256>  <path>".

    Raises DataError that names the file or folder.
    """
    folder = existing_folder(root / path)
    class_names = _class_names(existing_folder(folder / "train"))
    train, digest = _read(folder / "train", class_names, size)
    own, files = None, {"train": digest}
    if own_test != "ignore":
        split = _own_folder(folder, own_test)
        own, files[split.name] = _read(split, class_names, size)
    return assemble(train, own, own_test, class_names, files)


def _own_folder(folder: Path, own_test: OwnTest) -> Path:
    found = [folder / name for name in ("test", "val") if (folder / name).is_dir()]
    if not found:
        raise DataError(
            f"{folder}: holds neither test/ nor val/, but params.yaml says data.options.own_test: {own_test}; "
            "say ignore, and set data.holdout"
        )
    return found[0]


def _class_names(split: Path) -> list[str]:
    names = sorted(entry.name for entry in split.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(f"{split}: holds no class folders")
    return names


def _files(split: Path, class_names: Sequence[str]) -> list[tuple[Path, int]]:
    """Every image file with its label, in the order of the ids."""
    unknown = sorted(set(_class_names(split)) - set(class_names))
    if unknown:
        raise DataError(f"{split / unknown[0]}: no class of that name in train/")
    found = []
    for label, name in enumerate(class_names):
        paths = [p for p in existing_folder(split / name).rglob("*") if p.is_file() and not p.name.startswith(".")]
        if not paths:
            raise DataError(f"{split / name}: the class folder holds no images; add some or remove the class")
        found += [(path, label) for path in sorted(paths, key=lambda p: p.relative_to(split).as_posix())]
    return found


def _read(split: Path, class_names: Sequence[str], size: int) -> tuple[Samples, str]:
    files = _files(split, class_names)
    listing, parts = hashlib.sha256(), []
    for first in range(0, len(files), BATCH):
        paths = [path for path, _ in files[first : first + BATCH]]
        contents = [read_bytes(path) for path in paths]
        parts.append(decode_all(contents, [str(path) for path in paths], size)[0])
        for path, content in zip(paths, contents, strict=True):
            line = f"{hashlib.sha256(content).hexdigest()}  {path.relative_to(split).as_posix()}\n"
            listing.update(line.encode())
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    return samples(torch.cat(parts), labels), listing.hexdigest()
