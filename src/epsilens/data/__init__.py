"""Data sets: read, split, written down.

A new data set is one function `load(root, *, option, ...) -> Source`, one entry here and one test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epsilens import registry
from epsilens.data import cifar10, folder, parquet, shapes, splits
from epsilens.data.config import DataConfig
from epsilens.data.source import Known, Source
from epsilens.errors import DataError


@dataclass(frozen=True)
class Dataset:
    """A loader, one sentence about it, and what its options alone tell of the data."""

    load: Callable[..., Source]  # load(root, **options): `root` is the folder of raw data
    summary: str
    known: Callable[[dict[str, Any]], Known] = lambda options: Known()


def _files(options: dict[str, Any]) -> Known:
    return Known(options["size"])


DATASETS: dict[str, Dataset] = {
    "shapes": Dataset(
        shapes.load, "Coloured shapes made here, with masks and a false cue; needs no files.", shapes.known
    ),
    "cifar10": Dataset(cifar10.load, "CIFAR-10, downloaded by torchvision when it is not there.", cifar10.known),
    "parquet": Dataset(parquet.load, "Images in parquet files in the Hugging Face layout, boxes as masks.", _files),
    "folder": Dataset(folder.load, "Image files, train/<class>/* and test/<class>/*, boxes from XML or CSV.", _files),
}


def check(config: DataConfig) -> dict[str, Any]:
    """The loader's options, checked. Raises ConfigError for an unknown data set, wrong options, and splits that are larger
    than what is known to be there; reads no data."""
    entry = registry.choose(DATASETS, config.name, "data.name")
    options = registry.options(entry.load, config.options, "data.options")
    splits.check(config, entry.known(options))
    return options


def known(config: DataConfig) -> Known:
    """What is known of the data before they are read, and of the test split. Raises ConfigError as `check` does."""
    found = registry.choose(DATASETS, config.name, "data.name").known(check(config))
    return replace(found, test=config.holdout) if found.test == 0 else found


def load(config: DataConfig, root: Path) -> Source:
    """The configured data set. Raises ConfigError as `check` does, DataError as its loader does, and for data of one class:
    where every answer is the same, no attack can change it and no explanation can be wrong."""
    options = check(config)
    source = registry.choose(DATASETS, config.name, "data.name").load(root, **options)
    if len(source.class_names) < 2:
        raise DataError(
            f"data set {config.name}: found one class ({', '.join(source.class_names)}), expected two or more"
        )
    return source
