"""What every data set loader returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from epsilens.types import Samples


@dataclass(frozen=True)
class Source:
    """A data set as it is delivered, before it is split.

    test: the source's own test split, if it has one. extras: further test splits, evaluated under their names.
    files: name -> SHA-256 of every file read (none for generated data).
    """

    train: Samples
    test: Samples | None
    extras: Mapping[str, Samples]
    class_names: tuple[str, ...]
    files: Mapping[str, str]
