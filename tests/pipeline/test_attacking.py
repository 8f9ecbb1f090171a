"""The attack stage: killed and continued, damaged notes, a network that masks its gradients."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from epsilens.artifacts import read_json, sha256
from tests.pipeline.conftest import Project, kill, started, until

ATTACK = ("python", "-m", "stages.attack", "--epsilon", "4", "--seed", "0")
CELL = Path("results/attacks/eps-4/seed-0")
LONG = {"attack": {"steps": 400, "batch_size": 5}}  # seconds, so that there is a middle


def notes(project: Project) -> list[Path]:
    """What a stage that was stopped has left."""
    return sorted(
        path for path in (project.folder / ".checkpoints").glob("attack-4-0-*/*") if path.suffix != ".partial"
    )


def results(project: Project) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted((project.folder / CELL).iterdir())}


@pytest.mark.parametrize("damage", [False, True])
def test_a_killed_attack_goes_on_and_ends_in_the_same_bytes(project: Project, damage: bool) -> None:
    project.params(LONG)
    project.run(*ATTACK)
    undisturbed = results(project)
    assert notes(project) == []
    shutil.rmtree(project.folder / CELL)
    with started(project, *ATTACK) as process:
        until(lambda: notes(project))
        kill(process.pid)
    assert not (project.folder / CELL).exists()
    first = notes(project)[0]
    before = first.stat().st_mtime_ns
    if damage:
        content = bytearray(first.read_bytes())
        content[-1] ^= 1
        first.write_bytes(bytes(content))
    with started(project, *ATTACK) as process:
        until(lambda: len(notes(project)) > 1)
        assert (first.stat().st_mtime_ns == before) is not damage  # a whole note is not computed again
        process.wait()
    assert results(project) == undisturbed
    assert notes(project) == []


def test_the_order_of_the_ensemble_is_part_of_the_study(project: Project) -> None:
    """DVC sees no order in a mapping; the list says which attack goes first."""
    project.params({"attack": {"ensemble": {"attacks": [
        {"name": "square", "options": {"queries": 3}}, {"name": "apgd_ce", "options": {"iterations": 2}},
    ]}}})  # fmt: skip
    assert {"attack@0-0", "attack@4-0"} <= project.repro()


def test_every_network_has_a_verdict(reproduced: Project) -> None:
    gate = read_json(reproduced.folder / CELL / "gate.json")
    assert {check["name"] for check in gate["checks"] if check["value"] is None} == set()
    assert gate["sound"] == (not gate["flags"])
    rows = read_json(reproduced.folder / "metrics/gate.json")
    assert {row["epsilon"] for row in rows} == {0, 4}
