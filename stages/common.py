"""What every stage shares: its command line, its parameters, its device, and how it fails."""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from epsilens import artifacts, config
from epsilens.errors import ConfigError, DataError, EpsilensError
from epsilens.processes import end_with_dvc, keep_freed_memory, sole_writer
from stages import STARTED

# Why the system refuses to write, and what helps.
REFUSED = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room in the quota",
    errno.EROFS: "make the folder writable",
    errno.EACCES: "make it readable and writable",
    errno.EPERM: "make it readable and writable",
}
DURATIONS = Path(".checkpoints/durations.jsonl")
VALID = Path(".checkpoints/valid")  # the state of parameters and code that was last found valid
VALIDATING = ("stages/*.py", "src/epsilens/**/*.py")


def run(main: Callable[[], None]) -> None:
    """Run a stage: an error that the user can mend becomes a message and an exit status, not a traceback."""
    keep_freed_memory()
    end_with_dvc()
    try:
        main()
        _took(time.monotonic() - STARTED)
    except EpsilensError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        place = error.filename or "a file"
        print(f"error: {place}: {error.strerror}; {REFUSED[error.errno]}, then `dvc repro` goes on", file=sys.stderr)
        sys.exit(DataError.status)
    except KeyboardInterrupt:
        print("stopped; `dvc repro` continues from here", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def durations() -> list[dict[str, Any]]:
    """How long stages took here: study, stage, seconds and threads, the oldest first. What cannot be read is left out."""
    found = []
    with suppress(OSError):
        for line in (project_root() / DURATIONS).read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
    return found


def _took(seconds: float) -> None:
    """Take down what forecasts and provenance are made from: in no output, and no error where it cannot be written."""
    if "DVC_STAGE" in os.environ:
        line = {"study": config.read()["study"]["name"], "stage": os.environ["DVC_STAGE"], "seconds": round(seconds, 1)}
        if "torch" in sys.modules:
            line["threads"] = sys.modules["torch"].get_num_threads()
        path = project_root() / DURATIONS
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def params() -> Mapping[str, Any]:
    """params.yaml of the working copy. Under DVC, raises ConfigError for whatever is wrong in it, also in other sections."""
    raw = config.read()
    if "DVC_STAGE" in os.environ:
        _held_valid()
    return raw


def _held_valid() -> None:
    """Have params.yaml validated as a whole, once for each state of parameters and code.

    `dvc repro` alone validates nothing: a stage with a good section would work for hours before one with a bad section ends
    the run. What validates imports every room, on which no stage may depend, so it is a process of its own (2 s).
    """
    root, valid = Path(__file__).resolve().parent.parent, project_root() / VALID
    files = [config.PARAMS, *(path for pattern in VALIDATING for path in sorted(root.glob(pattern)))]
    state = hashlib.sha256("".join(map(artifacts.sha256, files)).encode()).hexdigest().encode()
    if valid.is_file() and valid.read_bytes() == state:
        return
    env = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"} | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "stages.validate"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(done.stderr.strip().removeprefix("error: "))
    with suppress(OSError):
        artifacts.write_bytes(valid, state)


def cell(description: str | None) -> tuple[str, float, int]:
    """`--epsilon E --seed S` of one network: the text of epsilon as paths have it, its value, the seed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--epsilon", required=True, help="training budget (Linf: in 1/255, L2: in [0, 1]-pixel norm)")
    parser.add_argument("--seed", required=True, type=int, help="seed of the training run")
    given = parser.parse_args()
    try:
        return given.epsilon, float(given.epsilon), given.seed
    except ValueError:
        raise ConfigError(f"--epsilon: found {given.epsilon!r}, expected a number") from None


def device() -> str:
    """EPSILENS_DEVICE, or cuda where there is one, else cpu: where a stage computes is no parameter of the study.

    Convolutions in float32 are then what they say, and not TensorFloat-32. EPSILENS_DETERMINISTIC=1: a GPU then uses only
    what gives the same bits each time, and an operation that has no such form is an error (docs/reliability.md).
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False
    if deterministic():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before cuBLAS is first used
        torch.use_deterministic_algorithms(True)
    return os.environ.get("EPSILENS_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")


def deterministic() -> bool:
    """EPSILENS_DETERMINISTIC: 1 or 0, which is the default."""
    given = os.environ.get("EPSILENS_DETERMINISTIC") or "0"
    if given not in ("0", "1"):
        raise ConfigError(f"EPSILENS_DETERMINISTIC: found {given!r}, allowed are 0 and 1")
    return given == "1"


def run_key(code: Sequence[str], *facts: object) -> str:
    """A name for everything that defines a result: the facts given, and the code (globs), versions and threads behind it."""
    import torch

    root = Path(__file__).resolve().parent.parent
    files = {str(p.relative_to(root)): artifacts.sha256(p) for pattern in code for p in sorted(root.glob(pattern))}
    known = (facts, files, torch.__version__, version("robustness"), torch.get_num_threads())
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:16]


@contextmanager
def alone(scratch: Path, doing: str) -> Iterator[None]:
    """Hold two locks: on the output of this working copy, and on the scratch folder of this run, which queued experiments
    share with it; the folder is there then. scratch: `.checkpoints/<stage>-<epsilon>-<seed>-<key>`; doing: for messages.
    """
    output = Path(".checkpoints") / f"{scratch.name.rpartition('-')[0]}.lock"
    with sole_writer(output, doing), sole_writer(scratch.with_name(f"{scratch.name}.lock"), doing):
        scratch.mkdir(exist_ok=True)
        yield


def data_root() -> Path:
    """EPSILENS_DATA, the folder of raw data sets; data/raw of the repository by default."""
    return project_root() / (os.environ.get("EPSILENS_DATA") or "data/raw")  # an absolute path stays what it is


def project_root() -> Path:
    """The repository itself, also where DVC runs a stage in a temporary copy of it."""
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()
