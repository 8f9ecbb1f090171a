"""A flipped byte in DVC's cache, which DVC hands out as "up to date": the stage that reads it says so, and it is healed."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tests.pipeline.conftest import Project

# A file of each output, and a stage that reads it.
READ_BY = {
    "data/prepared/manifest.json": "train --epsilon 4 --seed 0",
    "data/prepared/train.safetensors": "train --epsilon 4 --seed 0",
    "models/eps-4/seed-0/card.json": "attack --epsilon 4 --seed 0",
    "models/eps-4/seed-0/model.safetensors": "attribute --epsilon 4 --seed 0",
    "results/attributions/eps-4/seed-0/maps.safetensors": "score --epsilon 4 --seed 0",
    "results/attributions/eps-4/seed-0/index.parquet": "score --epsilon 4 --seed 0",
    "results/scores/eps-4/seed-0/rows.parquet": "report",
    "results/attacks/eps-4/seed-0/gate.json": "report",
    "results/gallery/eps-4/seed-0/gallery.json": "report",
    "models/eps-4/seed-0/history.json": "report",
}


def cached(project: Project, content: bytes) -> Path:
    """The object of DVC's cache that holds a file of this content."""
    digest = hashlib.md5(content).hexdigest()
    return project.folder / ".dvc/cache/files/md5" / digest[:2] / digest[2:]


def put(path: Path, content: bytes) -> None:
    """Replace an object of the cache, read-only as DVC leaves it: that is what it takes for whole."""
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o444)


def hand_out(project: Project, file: str) -> None:
    """Let DVC put a file of its cache into the working copy, with the folder it lies in."""
    shutil.rmtree((project.folder / file).parent)
    project.run("dvc", "checkout", "--quiet")


def flipped(content: bytes) -> bytes:
    """Another byte in the middle, as text still text."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_a_flipped_byte_in_the_cache_is_found_by_whoever_reads_it_and_healed(project: Project) -> None:
    good = {file: (project.folder / file).read_bytes() for file in READ_BY}
    for file, stage in READ_BY.items():
        put(cached(project, good[file]), flipped(good[file]))
        hand_out(project, file)
        assert (project.folder / file).read_bytes() == flipped(good[file])
        output = project.run("python", "-m", *f"stages.{stage}".split(), status=3)
        assert file in output, output
        assert "make verify" in output
        assert "Traceback" not in output
        put(cached(project, good[file]), good[file])
        hand_out(project, file)

    damaged = list(READ_BY)[2::3]
    for file in damaged:
        put(cached(project, good[file]), flipped(good[file]))
        hand_out(project, file)
    assert project.run("dvc", "status").strip().endswith("up to date.")  # this is why there are checksums
    lock = (project.folder / "dvc.lock").read_bytes()
    said = project.run("python", "-m", "stages.verify")
    assert said.count("removed from DVC's cache") == len(damaged)
    assert all(f"removed: {Path(file).parent}" in said for file in damaged)
    project.repro()
    assert {file: (project.folder / file).read_bytes() for file in READ_BY} == good
    assert (project.folder / "dvc.lock").read_bytes() == lock
    assert "nothing is damaged" in project.run("python", "-m", "stages.verify")
