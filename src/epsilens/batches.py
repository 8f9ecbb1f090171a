"""Batch after batch, each half as large as the last where memory was not enough."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from epsilens.errors import NumericError
from epsilens.progress import Done, untold

T = TypeVar("T")

CPU_REFUSAL = "DefaultCPUAllocator"  # torch has no exception of its own for the memory of the CPU


@dataclass
class Batches:
    """How many rows are computed at once: `size`, or what it has been halved to."""

    size: int

    def of(self, compute: Callable[[slice], T], count: int, done: Done = untold) -> Iterator[tuple[slice, T]]:
        """Slices of the rows 0 to `count`, in order, and what `compute` makes of each; `done` is told of rows.

        What does not fit into memory is tried again with half the rows, and so is all that follows. Values are those of any
        other size, because none depends on its batch mates. Raises NumericError if a single row does not fit.
        """
        start = 0
        while start < count:
            part = slice(start, min(start + self.size, count))
            found = _tried(compute, part)
            if found is None:
                self.size = _halved(part.stop - part.start)
                continue
            done(part.stop - start)
            yield part, found[0]
            start = part.stop


def _tried(compute: Callable[[slice], T], part: slice) -> tuple[T] | None:
    """What `compute` gives, or None if memory was not enough: on return the tensors in the frames of the error are gone."""
    try:
        return (compute(part),)
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:
        if CPU_REFUSAL not in str(error):
            raise
        return None


def _halved(size: int) -> int:
    if size == 1:
        raise NumericError("out of memory with one image at once: smaller images or a smaller network are needed")
    torch.cuda.empty_cache()  # nothing without a GPU
    print(f"warning: out of memory with {size} images at once, going on with {size // 2}", file=sys.stderr, flush=True)
    return size // 2
