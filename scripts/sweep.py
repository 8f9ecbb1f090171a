"""Run the study of params.yaml where there is Python and torch, but no dvc, mlflow or git; carry the results home.

    python scripts/sweep.py --workers 4 --pack results.tar.gz    # there; after a stop the same line goes on
    python scripts/sweep.py --unpack results.tar.gz              # at home, after `dvc repro prepare`

A stage that has ended is not repeated as long as its parameters, its code and its outputs are there as they were.
docs/scale.md says more.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from queue import SimpleQueue

from filelock import FileLock, Timeout
from sweep_archive import pack, remove, unpack
from sweep_plan import FOLDER, ROOT, Task, read_plan

from epsilens import artifacts
from epsilens.errors import BusyError, ConfigError, EpsilensError

TAIL = 15  # lines of a failed stage's log that are shown
PATIENCE = 15.0  # seconds that a stage has to end by itself after an interrupt


@dataclass
class Sweep:
    """The child processes of a sweep: starts them, ends them, says what became of them."""

    plan: Sequence[Task]
    started: float = field(default_factory=time.monotonic)
    failed: list[str] = field(default_factory=list)
    stopped: bool = False
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    starting: threading.Lock = field(default_factory=threading.Lock)

    def say(self, text: str) -> None:
        """A line with the time since the start."""
        print(f"[{time.monotonic() - self.started:6.0f} s] {text}", flush=True)

    def run(self, task: Task, env: Mapping[str, str]) -> bool:
        """Run a task, unless it has ended before; whether its outputs are there."""
        if task.done():
            self.say(f"{task.name}: has ended before")
            return True
        begun = time.monotonic()
        try:
            self._clear(task)
            status = self._wait(task, env)
            if status == 0:
                task.mark()
        except OSError as error:
            return self._fail(task, str(error))
        if status:
            return not self.stopped and self._fail(task, f"exit status {status}")
        self.say(f"{task.name}: {time.monotonic() - begun:.0f} s")
        return True

    def stop(self) -> None:
        """End all children: an interrupt, then, after some patience, a kill."""
        with self.starting:
            self.stopped = True
        for number in (signal.SIGINT, signal.SIGKILL):
            alive = [child for child in self.children if child.poll() is None]
            for child in alive:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, number)
            limit = time.monotonic() + PATIENCE
            while any(child.poll() is None for child in alive) and time.monotonic() < limit:
                time.sleep(0.05)

    def _clear(self, task: Task) -> None:
        """Remove its outputs, as DVC does, and the markers of all that was made from them."""
        for later in self.plan[self.plan.index(task) :]:
            if later.cell == task.cell or None in (later.cell, task.cell):
                later.forget()
        for path in task.outputs:
            remove(ROOT / path)

    def _wait(self, task: Task, env: Mapping[str, str]) -> int:
        with task.log.open("wb") as log:
            with self.starting:
                if self.stopped:
                    return -signal.SIGINT
                # A session of its own, so that one signal reaches whatever a launcher starts.
                child = subprocess.Popen(
                    task.command,
                    cwd=ROOT,
                    env={**env, "DVC_STAGE": task.target},  # with it, a stage ends when this process has gone
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                self.children.append(child)
            return child.wait()

    def _fail(self, task: Task, reason: str) -> bool:
        lines = task.log.read_text(encoding="utf-8", errors="replace").splitlines() if task.log.exists() else []
        self.failed.append(f"{task.name}: {reason}; see {task.log.relative_to(ROOT)}")
        self.say("\n    ".join([f"{task.name}: failed, {reason}", *lines[-TAIL:]]))
        return False


def environments(workers: int) -> list[dict[str, str]]:
    """One for each worker. It names a CUDA device where there are several, and no launcher that divides them."""
    base = {**os.environ, "EPSILENS_LIVE": "0"}
    if workers > 1:
        base.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    devices = cuda_devices() if workers > 1 and not os.environ.get("LAUNCH") else []
    chosen = [{"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} if devices else {} for i in range(workers)]
    return [base | device for device in chosen]


def cuda_devices() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def run_networks(sweep: Sweep, tasks: Sequence[Task], workers: int) -> None:
    """The tasks of each network one after the other, `workers` networks at a time; one that fails stops no other."""
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    for env in environments(workers):
        free.put(env)

    def run_one(network: list[Task]) -> None:
        env = free.get()
        if all(sweep.run(task, env) for task in network):
            sweep.say(f"{network[0].cell_name}: done up to {network[-1].stage.name}")
        free.put(env)

    networks = [list(group) for _, group in groupby(tasks, key=lambda task: task.cell)]
    with ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(run_one, networks))
        except KeyboardInterrupt:
            sweep.stop()
            raise


def run_all(sweep: Sweep, tasks: Sequence[Task], workers: int) -> None:
    """What runs once before the networks, the networks, what runs once after them; each only if nothing failed before."""
    for once, group in groupby(tasks, key=lambda task: task.cell is None):
        if sweep.failed:
            return
        if not once:
            run_networks(sweep, list(group), workers)
            continue
        for task in group:
            if not sweep.run(task, environments(1)[0]):
                return


def selected(plan: Sequence[Task], until: str | None, only: Sequence[str]) -> list[Task]:
    """The part of the plan that was asked for: a part of the grid has no report, a single stage nothing before it."""
    stages = list(dict.fromkeys(task.stage.name for task in plan))
    networks = list(dict.fromkeys(task.cell_name for task in plan if task.cell))
    targets = {task.target for task in plan if task.cell}
    unknown = [
        f"--only: found {name!r}, expected some of {', '.join(networks)}, or stages of them such as train@{networks[0]}"
        for name in only
        if name not in targets.union(networks)
    ]
    if until is not None and until not in stages:
        unknown.append(f"--until: found {until!r}, expected one of {', '.join(stages)}")
    if unknown:
        raise ConfigError("\n".join(unknown))
    wanted = stages[: stages.index(until) + 1] if until else stages
    last = max(index for index, task in enumerate(plan) if task.cell)
    chosen = [task for task in (plan[: last + 1] if only else plan) if task.stage.name in wanted]
    names = set(only or networks)
    before = bool(names.intersection(networks))  # whether what runs once before the networks is asked for, too
    return [task for task in chosen if (before if task.cell is None else names & {task.cell_name, task.target})]


def compute(given: argparse.Namespace) -> int:
    """Run what was asked for, pack it, list what failed; the exit status."""
    valid = subprocess.run([sys.executable, "-m", "stages.validate"], cwd=ROOT, check=False)
    if valid.returncode:
        return valid.returncode
    plan = read_plan()
    tasks = selected(plan, given.until, given.only)
    running = Sweep(plan)
    running.say(
        f"{len(tasks)} stages, {given.workers} at a time; what they print: {FOLDER}/<stage>-<epsilon>-<seed>.log"
    )
    try:
        run_all(running, tasks, given.workers)
    except KeyboardInterrupt:
        running.stop()
        running.say("stopped; the same command goes on from here")
        return 128 + signal.SIGINT
    if given.pack:
        packed = pack(given.pack, plan, [artifacts.MODELS] if given.without_models else [])
        running.say(f"{given.pack}: {len(packed)} of {len(plan)} stages, {given.pack.stat().st_size / 1e6:.1f} MB")
    for line in running.failed:
        print(f"failed: {line}", file=sys.stderr)
    left = [task.name for task in tasks if not task.done()]
    if left:
        print(f"not done: {', '.join(left)}; the same command tries again", file=sys.stderr)
    return 1 if left else 0


def bring_home(archive: Path) -> int:
    """Unpack, and say how DVC is told of it."""
    plan = read_plan()
    tasks = unpack(archive, plan)
    targets = []
    for stage in dict.fromkeys(task.stage.name for task in plan):
        there = [task.target for task in tasks if task.stage.name == stage]
        whole = len(there) == sum(task.stage.name == stage for task in plan)
        targets += [stage] if whole else there
    print(f"{archive}: {len(tasks)} of {len(plan)} stages are in place")
    if any(path.is_relative_to(artifacts.MODELS) for task in tasks for path in task.outputs):
        print(f"dvc commit -f {' '.join(targets)} && dvc repro")
    else:
        print("the networks are not among them: this can be looked at, but not committed")
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1, help="networks at a time (several may share one GPU)")
    parser.add_argument("--until", metavar="STAGE", help="stop after this stage")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="EPSILON-SEED",
        help="no others; or stages: train@0-0",
    )
    parser.add_argument("--pack", type=Path, metavar="FILE.tar.gz", help="write the results to this file afterwards")
    parser.add_argument("--without-models", action="store_true", help="pack results to look at, not to commit")
    parser.add_argument("--unpack", type=Path, metavar="FILE.tar.gz", help="put packed results in place; runs nothing")
    given = parser.parse_args()
    if given.workers < 1:
        parser.error(f"--workers: found {given.workers}, expected 1 or more")
    if given.pack and not given.pack.absolute().parent.is_dir():
        parser.error(f"--pack: the folder of {given.pack} does not exist")
    return given


def interrupt(*_: object) -> None:
    """What SIGTERM and SIGHUP do: the same as Ctrl-C."""
    raise KeyboardInterrupt


def main() -> int:
    """Hold the lock of the working copy and do one of the two things."""
    given = parse()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    lock = ROOT / FOLDER / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            return bring_home(given.unpack) if given.unpack else compute(given)
    except Timeout:
        raise BusyError("another sweep is at work in this folder; wait for it or stop it") from None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EpsilensError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
