"""The prepared data on disk: one safetensors file a split, and a manifest that says what is in them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from epsilens import artifacts
from epsilens.data.config import DataConfig
from epsilens.data.source import Source
from epsilens.errors import DataError
from epsilens.types import Samples

DISJOINT = ("train", "validation", "test")  # no image should be in two of them (evaluation is a part of test)
EXAMPLES = 10  # pairs of duplicates that are written down


def manifest(config: DataConfig, source: Source, splits: Mapping[str, Samples]) -> dict[str, Any]:
    """Names, sizes, class counts, normalisation, duplicates, the checksums of what was read; the rule of boxes and the
    pictures that were skipped, if any.

    `mean` and `std` are those of the training split in [0, 1]. Raises DataError if a channel is constant there, or for
    duplicates where these are refused.
    """
    train = splits["train"]
    shared = duplicates({name: splits[name] for name in DISJOINT})
    if config.duplicates == "refuse":
        _refuse(shared)
    mean, std = channel_statistics(train.images)
    channels, height, width = train.images.shape[1:]
    return {
        "name": config.name,
        "class_names": list(source.class_names),
        "channels": channels,
        "height": height,
        "width": width,
        "mean": mean,
        "std": std,
        "splits": {name: _facts(part, len(source.class_names)) for name, part in splits.items()},
        "sources": dict(source.files),
        "duplicates": shared,
        **({"boxes": dict(source.boxes)} if source.boxes else {}),
        **({"skipped": list(source.skipped)} if source.skipped else {}),
    }


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation (population) of each channel over all pixels of all images, in [0, 1].

    From histograms in exact integers: n²·var = n·Σx² - (Σx)². For CIFAR-10 it is the published triple 0.2470, 0.2435,
    0.2616; the other one, 0.2023, 0.1994, 0.2010, is the mean over images of each image's own deviation, and smaller.
    Raises DataError if a channel is constant, because nothing can be divided by its deviation.
    """
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = torch.bincount(images[:, channel].flatten(), minlength=256).tolist()
        n = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        variance = n * sum(value * value * count for value, count in enumerate(counts)) - total * total
        if variance == 0:
            raise DataError(f"training images: channel {channel} has one and the same value everywhere")
        means.append(total / (255 * n))
        stds.append(math.sqrt(variance) / (255 * n))
    return means, stds


def duplicates(splits: Mapping[str, Samples]) -> dict[str, Any]:
    """For each two splits "a/b": how many images of b are byte for byte in a, and the first id pairs [in a, in b]."""
    prints = {name: [_print(image) for image in part.images] for name, part in splits.items()}
    found = {}
    for a, b in combinations(splits, 2):
        known: dict[bytes, int] = {}
        for key, index in zip(prints[a], splits[a].ids.tolist(), strict=True):
            known.setdefault(key, index)
        both = zip(prints[b], splits[b].ids.tolist(), strict=True)
        pairs = [[known[key], index] for key, index in both if key in known]
        found[f"{a}/{b}"] = {"images": len(pairs), "examples": pairs[:EXAMPLES]}
    return found


def _refuse(shared: Mapping[str, Any]) -> None:
    found = [f"{both} {of['images']}, e.g. {of['examples'][:3]}" for both, of in shared.items() if of["images"]]
    if found:
        raise DataError(
            f"the same images are in two splits: {'; '.join(found)} (their ids); remove them from one, or say "
            "data.duplicates: report in params.yaml"
        )


def _print(image: Tensor) -> bytes:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).digest()


def _facts(part: Samples, classes: int) -> dict[str, Any]:
    return {
        "images": len(part),
        "per_class": torch.bincount(part.labels, minlength=classes).tolist(),
        "masks": int(part.masks.flatten(1).any(dim=1).sum()),
    }


def write(folder: Path, manifest: Mapping[str, Any], splits: Mapping[str, Samples]) -> None:
    """Write <split>.safetensors for each split, then manifest.json with their SHA-256; other splits are deleted."""
    facts = {}
    for name, part in splits.items():
        path = folder / f"{name}.safetensors"
        tensors = {"images": part.images, "labels": part.labels, "masks": part.masks, "ids": part.ids}
        artifacts.write_tensors(path, tensors)
        facts[name] = {**manifest["splits"][name], "sha256": artifacts.sha256(path)}
    for path in folder.glob("*.safetensors"):
        if path.stem not in splits:
            path.unlink()
    artifacts.write_json(folder / "manifest.json", {**manifest, "splits": facts})
    artifacts.seal(folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises DataError if it is missing, not as it was written, or no manifest."""
    path = artifacts.sealed(folder, "manifest.json") / "manifest.json"
    found = artifacts.read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("splits"), dict):
        raise DataError(f"{path}: is no manifest of prepared data")
    return found


def read_split(folder: Path, name: str) -> Samples:
    """One split as it was written. Raises DataError if it is unknown, missing or not the one of the manifest."""
    splits = read_manifest(folder)["splits"]
    if name not in splits:
        raise DataError(f"{folder / 'manifest.json'}: no split {name!r}, known are {', '.join(splits)}")
    found = artifacts.read_tensors(folder / f"{name}.safetensors", splits[name]["sha256"])
    return Samples(found["images"], found["labels"], found["masks"], found["ids"])
