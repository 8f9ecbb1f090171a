"""What a process of the pipeline owes the others: it ends with the `dvc` that started it, writes alone, wastes no pages."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from epsilens.errors import BusyError

PROC = Path("/proc")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt(3)
LARGEST_THRESHOLD = 32 << 20  # bytes; glibc refuses a larger one


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor instead of giving it back to the system.

    By default a large tensor is a mapping of its own, whose pages the system clears anew at every use. The process then
    stays about as large as it ever was. Tensors above 32 MiB are mapped as before: without any limit, the gaps between
    them would grow. Where the C library has no mallopt, nothing happens.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def sole_writer(lock: Path, doing: str, patience: float = 5.0) -> Iterator[None]:
    """Hold a lock file while the block runs; the system lets go of it when the process ends, however it ends.

    Raises BusyError if another process holds it for `patience` seconds: the time that one left behind by a killed `dvc`
    takes to notice. doing: what the other does, for the message.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=patience)
    except Timeout:
        raise BusyError(f"another process {doing}; wait for it or stop it") from None
    with held:
        yield


def end_with_dvc(poll: float = 0.5) -> None:
    """End this process when the `dvc` above it has gone, watched from a thread every `poll` seconds.

    A killed `dvc` leaves its stage running, and the next `dvc repro` would start a second one on the same files. Does
    nothing outside DVC, or where there is no /proc.
    """
    watched = _dvc()
    if watched is not None:
        threading.Thread(target=_watch, args=(*watched, poll), daemon=True, name="end_with_dvc").start()


def _dvc() -> tuple[int, str] | None:
    """(pid, start time) of the nearest ancestor that does not have this process's DVC_STAGE: DVC gives it to its children.

    The start time is empty if `dvc` had gone before this process could look, so that something else adopted it.
    """
    if "DVC_STAGE" not in os.environ:
        return None
    own, pid = f"DVC_STAGE={os.environ['DVC_STAGE']}".encode(), os.getppid()
    try:
        while pid > 1 and own in (PROC / str(pid) / "environ").read_bytes().split(b"\0"):
            pid = int(_stat(pid)[1])
        command = (PROC / str(pid) / "cmdline").read_bytes()
        return pid, _started(pid) if b"dvc" in command or b"python" in command else ""
    except OSError:
        return None


def _watch(pid: int, started: str, poll: float) -> None:
    while _started_or_gone(pid) == started:
        time.sleep(poll)
    print("error: the dvc that started this has gone; `dvc repro` continues from here", file=sys.stderr, flush=True)
    os._exit(128 + signal.SIGHUP)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the third on (state, parent, ...); the second may hold spaces."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _started(pid: int) -> str:
    return _stat(pid)[19]  # field 22, in clock ticks since boot: tells two processes with one number apart


def _started_or_gone(pid: int) -> str | None:
    try:
        return None if _stat(pid)[0] == "Z" else _started(pid)
    except OSError:
        return None
