"""CIFAR-10 as torchvision keeps it: 50,000 training and 10,000 test images (Krizhevsky 2009)."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import torch

from epsilens.data.source import Known, OwnTest, Source, assemble, checksums, samples
from epsilens.errors import DataError
from epsilens.types import Samples

KNOWN = Known(side=32, classes=10, train=50_000, test=10_000)
ATTEMPTS = 2  # a download that breaks off or arrives damaged is deleted and tried once more


def known(options: dict[str, Any]) -> Known:
    """What the options tell: own test images may be no test split."""
    return KNOWN if options["own_test"] == "test" else replace(KNOWN, test=0)


def load(root: Path, *, own_test: OwnTest) -> Source:
    """Read `root`/cifar-10-batches-py, downloaded if absent; torchvision checks every file's MD5.

    own_test: what becomes of the 10,000 test images. Raises DataError if the data are neither there nor to be had.
    """
    from torchvision.datasets import CIFAR10

    _provide(CIFAR10, root)
    train, test = CIFAR10(str(root), train=True), CIFAR10(str(root), train=False)
    folder = root / CIFAR10.base_folder
    names = [CIFAR10.meta["filename"], *(name for name, _ in CIFAR10.train_list + CIFAR10.test_list)]
    files = checksums(folder / name for name in sorted(names))
    own = None if own_test == "ignore" else _samples(test)
    return assemble(_samples(train), own, own_test, train.classes, files)


def _samples(dataset: Any) -> Samples:
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()  # [N, 3, 32, 32]
    return samples(images, torch.tensor(dataset.targets, dtype=torch.int64))


def _provide(dataset: Any, root: Path) -> None:
    for attempt in range(ATTEMPTS + 1):
        try:
            dataset(str(root), download=attempt > 0)
            return
        except (OSError, RuntimeError, HTTPException) as error:  # absent, no network, damaged archive
            problem = error
            if isinstance(error, HTTPError):
                error.close()  # it holds the connection to the server
            if attempt > 0:
                _forget_damaged(root / dataset.filename, dataset.tgz_md5)
    raise DataError(
        f"{root / dataset.base_folder}: CIFAR-10 is not there and cannot be downloaded ({problem}); "
        f"fetch {dataset.url} on another machine and unpack it in {root}, "
        f"or set EPSILENS_DATA to the folder that holds {dataset.base_folder}"
    ) from None


def _forget_damaged(archive: Path, md5: str) -> None:
    """Delete what a download left unfinished; an intact archive is kept, it may be the user's own."""
    from torchvision.datasets.utils import check_integrity

    with contextlib.suppress(OSError):  # a read-only folder has nothing of ours to delete
        if not check_integrity(archive, md5):
            archive.unlink(missing_ok=True)
