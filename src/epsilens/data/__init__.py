"""Data sets: read, split, written down.

A new data set is one function `load(root, *, option, ...) -> Source`, one entry here and one test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epsilens import registry
from epsilens.data import cifar10, folder, parquet, shapes
from epsilens.data.config import DataConfig
from epsilens.data.source import Source


@dataclass(frozen=True)
class Dataset:
    """A loader and one sentence about it."""

    load: Callable[..., Source]  # load(root, **options): `root` is the folder of raw data
    summary: str


DATASETS: dict[str, Dataset] = {
    "shapes": Dataset(shapes.load, "Coloured shapes made here, with masks and a false cue; needs no files."),
    "cifar10": Dataset(cifar10.load, "CIFAR-10, downloaded by torchvision when it is not there."),
    "parquet": Dataset(parquet.load, "Images in parquet files in the Hugging Face layout, boxes as masks."),
    "folder": Dataset(folder.load, "Image files, train/<class>/* and test/<class>/*, boxes from XML or CSV."),
}


def check(config: DataConfig) -> dict[str, Any]:
    """The loader's options, checked. Raises ConfigError for an unknown data set or wrong options; reads no data."""
    entry = registry.choose(DATASETS, config.name, "data.name")
    return registry.options(entry.load, config.options, "data.options")


def load(config: DataConfig, root: Path) -> Source:
    """The configured data set. Raises ConfigError as `check` does, and DataError as its loader does."""
    options = check(config)
    return registry.choose(DATASETS, config.name, "data.name").load(root, **options)
