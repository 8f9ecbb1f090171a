"""Every path and file format that crosses between stages, once.

`epsilon` is the text of a training budget as params.yaml writes it ("8", "0.25"): paths are built from it, as in dvc.yaml.
All writers are atomic and deterministic: the same content gives the same bytes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
from torch import Tensor

from epsilens.errors import DataError

PREPARED = Path("data/prepared")
MANIFEST = PREPARED / "manifest.json"
MODELS = Path("models")
ATTACKS = Path("results/attacks")
ATTRIBUTIONS = Path("results/attributions")
GALLERY = Path("results/gallery")
SCORES = Path("results/scores")
REPORTS = Path("reports")
PAPER = REPORTS / "paper"  # no output of DVC: `make report` makes it in seconds
COMPARISON = REPORTS / "compare.html"
METRICS = Path("metrics")
SUMMARY = METRICS / "summary.json"
ACCURACY = METRICS / "accuracy.json"
QUALITY = METRICS / "quality.csv"  # thousands of rows: as JSON three times as long
HEADLINE = METRICS / "headline.json"  # of these the few that `dvc plots` draws
CURVES = METRICS / "curves.json"
NETWORKS = METRICS / "networks.json"
GATES = METRICS / "gate.json"
PLAUSIBLE = METRICS / "plausible.json"
AUDIT = METRICS / "audit.json"
CLAIMS = METRICS / "claims.json"
CHOICE = METRICS / "choice.json"
# Flat rows, as JSON or CSV by their names.
TABLES = (ACCURACY, NETWORKS, GATES, QUALITY, HEADLINE, CURVES, PLAUSIBLE, AUDIT, CLAIMS, CHOICE)

NETWORK_MEANS = "scores.parquet"  # in the folder of a recorded study

# Names of files inside the folder of a cell.
ROWS = "rows.parquet"
AUDITED = "audit.parquet"
TRAITS = "traits.parquet"
FACTS = "facts.json"
GATE = "gate.json"
HISTORY = "history.json"
MAPS = "maps.safetensors"
INDEX = "index.parquet"
GALLERY_INDEX = "gallery.json"
SEAL = "checksums.json"  # of the other files of the folder
HEAL = "`make verify` removes what is damaged, also in DVC's cache; then `dvc repro`"


def cell(root: Path, epsilon: str, seed: int) -> Path:
    """The folder of one network (one cell of the grid) under one stage's root."""
    return root / f"eps-{epsilon}" / f"seed-{seed}"


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Write the SHA-256 of every file of a folder into it: a stage's last act there. `sealed` is what readers call."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != SEAL)
    write_json(folder / SEAL, {path.name: sha256(path) for path in files})


def sealed(folder: Path, *names: str) -> Path:
    """The folder, if these of its files (all, if none is named) are as they were when it was sealed.

    DVC takes what lies in its cache for what was put there. Raises DataError that names every file that is missing or other.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is missing; `dvc repro` makes it")
    recorded = read_json(folder / SEAL)
    wrong = [str(folder / name) for name in names or recorded if not _as_recorded(folder / name, recorded.get(name))]
    if wrong:
        raise DataError(f"{', '.join(wrong)}: not as recorded in {SEAL}: missing, changed or damaged. {HEAL}")
    return folder


def _as_recorded(path: Path, checksum: str | None) -> bool:
    return path.is_file() and sha256(path) == checksum


def write_bytes(path: Path, content: bytes) -> None:
    """Write through a temporary file: `path` is either the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def as_json(content: Any) -> bytes:
    """JSON with sorted keys; NaN is written as null."""
    return (json.dumps(_plain(content), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def write_json(path: Path, content: Any) -> None:
    """`as_json` in a file."""
    write_bytes(path, as_json(content))


def as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Flat rows as CSV, the columns in the order in which they occur; what is null or NaN is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_plain(row) for row in rows)
    return text.getvalue().encode()


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Flat rows as CSV or as JSON, by the name of the file."""
    if path.suffix == ".csv":
        write_bytes(path, as_csv(rows))
    else:
        write_json(path, rows)


def read_json(path: Path) -> Any:
    """Raises DataError if the file is missing or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Named tensors as safetensors, in the order of their names."""
    ordered = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    write_bytes(path, safetensors.torch.save(ordered))


def read_tensors(path: Path, checksum: str | None = None) -> dict[str, Tensor]:
    """Raises DataError if the file is missing, damaged, or not the one whose SHA-256 is `checksum`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if checksum is not None and hashlib.sha256(content).hexdigest() != checksum:
        raise DataError(f"{path}: its SHA-256 is not the recorded one: changed or damaged. {HEAL}")
    try:
        return safetensors.torch.load(content)
    except Exception as error:  # safetensors raises types of its own for each kind of damage
        raise DataError(f"{path}: is no safetensors file: {error}") from None


def remember(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Keep named tensors for a run that may be interrupted: their SHA-256, then safetensors."""
    content = safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    write_bytes(path, hashlib.sha256(content).digest() + content)


def remembered(path: Path, compute: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """What `remember` left in `path`; if there is nothing, or it is damaged, what `compute` gives, kept there."""
    held = path.read_bytes() if path.is_file() else b""
    if held and hashlib.sha256(held[32:]).digest() == held[:32]:
        return safetensors.torch.load(held[32:])
    found = compute()
    remember(path, found)
    return found


def write_rows(path: Path, columns: Mapping[str, Any]) -> None:
    """A table as parquet; `columns` maps names to equally long sequences."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(dict(columns)), sink, compression="zstd")
    write_bytes(path, sink.getvalue().to_pybytes())


def read_rows(path: Path) -> pa.Table:
    """Raises DataError if the file is missing or is no parquet."""
    try:
        return pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as parquet: {error}") from None


def remove_orphans(root: Path, grid: Iterable[tuple[str, int]]) -> list[Path]:
    """Delete the cells under `root` that are not in the grid (DVC leaves them behind when a grid shrinks).

    They would be hashed with a folder dependency, and a fresh clone would differ from the author's. DVC's cache keeps them.
    """
    kept = {cell(root, epsilon, seed) for epsilon, seed in grid}
    orphans = [path for path in sorted(root.glob("eps-*/seed-*")) if path not in kept]
    for path in orphans:
        shutil.rmtree(path)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    return orphans


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
