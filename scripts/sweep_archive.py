"""Results as one file, for scripts/sweep.py: packed where they were computed, unpacked where dvc is."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from sweep_plan import FOLDER, ROOT, Task

from epsilens import artifacts
from epsilens.errors import DataError

CONTENTS = FOLDER / "contents.json"  # in an archive: the tasks whose outputs are in it, and the facts of each stage
MANIFEST = FOLDER / artifacts.MANIFEST.name  # in an archive: the manifest of the data that were used
UNPACKED = ROOT / FOLDER / "unpacked"


def pack(archive: Path, plan: Sequence[Task], left_out: Iterable[Path] = ()) -> list[Task]:
    """Write the outputs of all tasks that have ended, and return these; the same outputs give the same bytes.

    The prepared data are not packed but for their manifest, because `dvc repro prepare` makes them again.
    """
    outside = {artifacts.PREPARED, *left_out}
    packed = [task for task in plan if task.done() and not any(_under(path, outside) for path in task.outputs)]
    if not packed:
        raise DataError("nothing to pack: no stage has ended with the present parameters and code")
    files = {path: ROOT / path for task in packed for path in _files(task)} | {MANIFEST: ROOT / artifacts.MANIFEST}
    facts = {name: value for task in packed for name, value in task.stage.facts.items()}
    contents = {"tasks": [task.target for task in packed], "facts": facts}
    text = (json.dumps(contents, indent=1, sort_keys=True) + "\n").encode()
    partial = archive.with_name(archive.name + ".partial")
    try:
        with (
            partial.open("wb") as raw,
            gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as zipped,
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            _add(tar, CONTENTS, io.BytesIO(text), len(text))
            for name, path in sorted(files.items()):
                with path.open("rb") as file:
                    _add(tar, name, file, path.stat().st_size)
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)
    return packed


def unpack(archive: Path, plan: Sequence[Task]) -> list[Task]:
    """Put the outputs in an archive in place of those that are here, and return the tasks they are of.

    Raises DataError, and changes nothing, if it is damaged or was made from other parameters, other code or other data.
    """
    remove(UNPACKED)
    try:
        with gzip.open(archive) as zipped:
            with tarfile.open(fileobj=zipped, mode="r:") as tar:
                contents = json.loads(_content(tar, CONTENTS))
                tasks = [task for task in plan if task.target in contents["tasks"]]
                _compare(contents, tasks, _content(tar, MANIFEST))
                outputs = {path for task in tasks for path in task.outputs}
                for member in tar:
                    if member.isreg() and _under(Path(member.name), outputs):
                        _extract(tar, member)
            while zipped.read(2**20):  # to the end, where the checksum is
                pass
        for path in sorted(outputs):
            remove(ROOT / path)
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (UNPACKED / path).rename(ROOT / path)
    except (OSError, tarfile.TarError, zlib.error, EOFError, KeyError, ValueError) as error:
        raise DataError(f"{archive}: cannot be unpacked: {error}") from None
    finally:
        remove(UNPACKED)
    return tasks


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _compare(contents: Mapping[str, Any], tasks: Sequence[Task], manifest: bytes) -> None:
    here = {name: value for task in tasks for name, value in task.stage.facts.items()}
    there = contents["facts"]
    lines = [f"{name}: is not the one that it was made from" for name in sorted(here) if here[name] != there.get(name)]
    lines += [f"{name}: is not here" for name in sorted(set(there) - set(here))]
    strange = sorted(set(contents["tasks"]) - {task.target for task in tasks})
    lines += [f"{target}: is no stage of the study here" for target in strange]
    if not (ROOT / artifacts.MANIFEST).exists():
        lines.append(f"{artifacts.MANIFEST}: is not here; `dvc repro prepare` makes it")
    elif (ROOT / artifacts.MANIFEST).read_bytes() != manifest:
        lines.append(f"{artifacts.MANIFEST}: is not the one that it was made from (other data)")
    if lines:
        raise DataError("\n".join(["the archive does not belong to this working copy; nothing was changed", *lines]))


def _files(task: Task) -> list[Path]:
    """Every file of its outputs, from the root of the working copy."""
    paths = [ROOT / path for path in task.outputs]
    found = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return [file.relative_to(ROOT) for file in found if file.is_file()]


def _under(path: Path, folders: Iterable[Path]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders) and ".." not in path.parts


def _add(tar: tarfile.TarFile, name: Path, file: IO[bytes], size: int) -> None:
    info = tarfile.TarInfo(name.as_posix())  # owner root, mode 0644, time 0
    info.size = size
    tar.addfile(info, file)


def _content(tar: tarfile.TarFile, name: Path) -> bytes:
    file = tar.extractfile(name.as_posix())
    return file.read() if file else b""


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    target = UNPACKED / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None  # a regular file
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
