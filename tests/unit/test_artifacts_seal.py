"""Checksums that a stage leaves in its output folder, and what a reader makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from epsilens import artifacts
from epsilens.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").write_bytes(b"first")
    (tmp_path / "b").write_bytes(b"second")
    artifacts.seal(tmp_path)
    return tmp_path


def test_a_whole_folder_is_given_back_and_sealing_again_changes_nothing(folder: Path) -> None:
    before = (folder / artifacts.SEAL).read_bytes()
    assert artifacts.sealed(folder) == folder
    artifacts.seal(folder)
    assert (folder / artifacts.SEAL).read_bytes() == before
    assert set(json.loads(before)) == {"a", "b"}


def test_every_file_that_is_other_or_missing_is_named_with_the_remedy(folder: Path) -> None:
    (folder / "a").write_bytes(b"fIrst")
    (folder / "b").unlink()
    with pytest.raises(
        DataError, match=r"/a, \S+/b: not as recorded in checksums.json.*make verify.*dvc repro"
    ) as caught:
        artifacts.sealed(folder)
    assert caught.value.status == 3


def test_only_what_is_read_is_looked_at(folder: Path) -> None:
    (folder / "a").write_bytes(b"fIrst")
    assert artifacts.sealed(folder, "b") == folder
    with pytest.raises(DataError, match="/a: not as recorded"):
        artifacts.sealed(folder, "a", "b")
    with pytest.raises(DataError, match="/c: not as recorded"):
        artifacts.sealed(folder, "c")


def test_a_folder_without_checksums_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"checksums\.json: cannot be read"):
        artifacts.sealed(tmp_path)
