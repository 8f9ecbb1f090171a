"""Locks and the watch on the parent, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from epsilens.errors import BusyError
from epsilens.processes import keep_freed_memory, sole_writer

SRC = Path(__file__).resolve().parent.parent.parent / "src"


Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Python on a program; whatever still runs at the end of the test is killed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    with ExitStack() as stack:

        def started(code: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", code]
            process = subprocess.Popen(command, env={**env, "PYTHONPATH": str(SRC)}, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield started


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_lock_keeps_a_second_process_out_and_ends_with_its_holder(start: Start, tmp_path: Path) -> None:
    lock = tmp_path / "sub" / "a.lock"
    holder = start(
        "import time, pathlib\nfrom epsilens.processes import sole_writer\n"
        f"with sole_writer(pathlib.Path({str(lock)!r}), 'x'):\n print('held', flush=True)\n time.sleep(60)"
    )
    assert line(holder) == "held"
    with pytest.raises(BusyError, match="another process trains; wait"), sole_writer(lock, "trains", patience=0.1):
        pass
    holder.kill()
    holder.wait()
    with sole_writer(lock, "trains", patience=5.0):
        pass


# A stand-in for dvc: it starts a shell with DVC_STAGE set, as DVC does, and the shell starts a stage.
DVC = """
import os, subprocess, sys, time
stage = "import os, time; from epsilens.processes import end_with_dvc as e; e(0.05); print(os.getpid(), flush=True)"
stage += "; time.sleep(60)"
subprocess.Popen(["sh", "-c", f"{sys.executable} -c '{stage}'; true"], env={**os.environ, "DVC_STAGE": "train"})
time.sleep(60)
"""


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_stage_ends_when_dvc_is_killed_though_its_shell_lives(start: Start) -> None:
    dvc = start(DVC)
    stage = int(line(dvc))
    time.sleep(0.3)
    assert alive(stage)
    dvc.send_signal(signal.SIGKILL)
    dvc.wait()
    end = time.monotonic() + 10
    while alive(stage) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(stage)


def test_outside_dvc_nothing_is_watched(start: Start) -> None:
    done = start(
        "import threading\nfrom epsilens.processes import end_with_dvc\nend_with_dvc()\nprint(threading.active_count())"
    )
    assert line(done) == "1"
    done.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept(start: Start) -> None:
    """A tensor's pages are touched anew by the system each time, unless the process keeps them."""
    code = (
        "import resource, torch\nfrom epsilens.processes import keep_freed_memory\n{call}\n"
        "torch.set_num_threads(1)\nx, w = torch.rand(64, 32, 32, 32), torch.rand(32, 32, 3, 3)\n"
        "def use():\n y = x.clone().requires_grad_()\n z = torch.conv2d(torch.conv2d(y, w).relu(), w).relu()\n"
        " torch.autograd.grad(z.sum(), y)\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(3): use()\nbefore = faults()\nfor _ in range(5): use()\nprint(faults() - before)"
    )
    counts = []
    for call in ("", "keep_freed_memory()"):
        process = start(code.format(call=call))
        counts.append(int(line(process)))
        process.wait()
    assert counts[0] > 1000  # or the machine has huge pages, and this test no meaning
    assert counts[1] < counts[0] / 10


def test_keeping_memory_twice_is_harmless() -> None:
    keep_freed_memory()
    keep_freed_memory()
