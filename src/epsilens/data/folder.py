"""Image files in one folder a class, the ImageFolder layout."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from epsilens.data import boxes
from epsilens.data.annotations import Annotations, open_all
from epsilens.data.decode import BATCH, Fit, OnBad, decode_all
from epsilens.data.source import OwnTest, Source, assemble, existing_folder, read_bytes, samples
from epsilens.errors import ConfigError, DataError
from epsilens.types import Samples


def load(
    root: Path,
    *,
    path: str,
    size: Annotated[int, Field(ge=1)],
    resize: Annotated[int, Field(ge=1)] | None,
    own_test: OwnTest,
    boxes: list[str],
    on_bad: OnBad,
) -> Source:
    """Read `root`/`path`/train/<class>/*, and the source's own test/<class>/* or, without that, val/<class>/*.

    Classes are the sorted names of train's folders. Every file below a class folder counts as an image, except those
    whose name starts with a dot. Images become [3, size, size]: squashed, or with their shorter side resized to `resize`
    and the centre cut out. `boxes` names folders and .csv files below `root`, see annotations.py; [] means no masks. An id
    is the position in the order of class, then file path, those that are skipped counted in. The recorded checksum of a
    split is the SHA-256 of its list "<SHA-256>  <path>".

    Raises ConfigError if `resize` is less than `size`, DataError that names the file or folder.
    """
    if resize is not None and resize < size:
        raise ConfigError(f"params.yaml: data.options.resize: found {resize}, expected null or at least size, {size}")
    folder = existing_folder(root / path)
    class_names = _class_names(existing_folder(folder / "train"))
    given = open_all(root, boxes, class_names)
    fit = Fit(size, resize)
    train = _read(folder / "train", given, fit, on_bad)
    parts, own, files = [train], None, {"train": train.digest}
    if own_test != "ignore":
        split = _own_folder(folder, own_test)
        parts.append(_read(split, given, fit, on_bad))
        own, files[split.name] = parts[-1].samples, parts[-1].digest
    facts = _box_facts(given, parts)
    skipped = [name for part in parts for name in part.skipped]
    return assemble(train.samples, own, own_test, class_names, files | given.checksums(), facts, skipped)


@dataclass(frozen=True)
class _Part:
    samples: Samples
    digest: str
    boxed: Tensor  # bool [N]: which images have boxes
    skipped: list[str]


def _box_facts(given: Annotations, parts: Sequence[_Part]) -> dict[str, Any]:
    if not given.readers:
        return {}
    facts = boxes.facts([(part.samples, part.boxed) for part in parts]) | given.facts()
    if not facts["images_with_boxes"]:
        raise DataError(
            f"data.options.boxes: none of {sum(len(part.samples) for part in parts)} images has a box in "
            f"{', '.join(given.readers)} ({len(given.misfits)} are of another shape than their annotation says); "
            "mend the paths, or say []"
        )
    return facts


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


def _read(split: Path, given: Annotations, fit: Fit, on_bad: OnBad) -> _Part:
    files = _files(split, given.class_names)
    listing, images, masks, boxed, kept, skipped = hashlib.sha256(), [], [], [], [], []
    for first in range(0, len(files), BATCH):
        batch = files[first : first + BATCH]
        contents = [read_bytes(path) for path, _ in batch]
        for (path, _), content in zip(batch, contents, strict=True):
            line = f"{hashlib.sha256(content).hexdigest()}  {path.relative_to(split).as_posix()}\n"
            listing.update(line.encode())
        decoded = decode_all(contents, [str(path) for path, _ in batch], fit, on_bad)
        images.append(decoded.images)
        kept += [first + i for i in decoded.kept]
        skipped += [batch[i][0].relative_to(split.parent).as_posix() for i in decoded.bad]
        for i, frame in zip(decoded.kept, decoded.frames, strict=True):
            path, label = batch[i]
            found, its_frame = given.boxes(path, split.name, label, frame)
            masks.append(boxes.draw(found, its_frame, fit, str(path)))
            boxed.append(bool(found))
    if not kept:
        raise DataError(f"{split}: holds no images that can be read")
    labels = torch.tensor([files[i][1] for i in kept], dtype=torch.int64)
    found = samples(torch.cat(images), labels, torch.stack(masks), torch.tensor(kept))
    return _Part(found, listing.hexdigest(), torch.tensor(boxed), skipped)
