"""How far a long loop is: a bar in a terminal, a line now and then where there is none. On stderr, and in no result."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from tqdm import tqdm

EVERY = 30.0  # seconds between two lines, and before the first
PATIENCE = 1.0  # seconds before a bar appears

Done = Callable[[int], object]  # is told of so many more


def untold(_: int) -> None:
    """For callers that nobody watches."""


def say(text: str) -> None:
    """A line on stdout, above a bar if there is one."""
    tqdm.write(text)
    sys.stdout.flush()


@dataclass(frozen=True)
class Lines:
    """A stream on which tqdm cannot move back: what it would redraw becomes a line, what it would wipe nothing."""

    stream: TextIO

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            self.stream.write(f"{line}\n")

    def flush(self) -> None:
        self.stream.flush()


@contextmanager
def progress(what: str, total: int, unit: str, *, begun: int = 0, shown: bool = True) -> Iterator[Done]:
    """Show `what` while the block runs, which is to be done `total` times; the block is given a function to count with.

    unit: of what is counted, in the plural; begun: how many were done before; shown: False shows nothing. What is shown is
    wiped at the end; after an error or an interrupt it stays, and the message has a line of its own.
    """
    if sys.stderr.isatty():
        how = {"file": sys.stderr, "delay": PATIENCE, "dynamic_ncols": True, "unit": f" {unit}"}
    else:
        text = "{desc}: {n_fmt} of {total_fmt} {unit}, {remaining} left"
        how = {"file": Lines(sys.stderr), "delay": EVERY, "mininterval": EVERY, "maxinterval": EVERY, "unit": unit}
        how |= {"bar_format": text, "miniters": 1}
    started = time.monotonic()
    with tqdm(desc=what, total=total, initial=begun, leave=False, disable=not shown, **how) as bar:
        try:
            yield bar.update
        except BaseException:
            bar.leave = True
            if time.monotonic() - started >= how["delay"]:
                bar.delay = 0.0  # it was seen, even if the interrupt came before tqdm could note that
            raise
