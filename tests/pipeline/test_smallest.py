"""The smallest study there is, on images whose names are meant to do harm."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.pipeline.conftest import Project

NAMES = ("<script>alert(1)</script>".replace("/", "⁄"), "a\"b'c &amp; d", "ünï cödé $(touch hacked)`touch hacked`")
CHANGES = {
    "study": {"description": "<img src=x onerror=alert(1)> & co."},
    "sweep": {"epsilons": [4], "seeds": [3]},
    "data": {"name": "folder", "validation": 6, "evaluation": 3, "holdout": 0},
    "train": {"flip": False, "epochs": 1},
    "attack": {"images": 3, "ensemble": {"images": 3}},
    "score": {"audit": {"scale": [], "blur": [], "temperature": []}},
    "report": {"metrics": ["gini", "direction_sensitivity", "road_gap"]},
}
OPTIONS = {"path": "raw data", "size": 16, "resize": None, "own_test": "test", "boxes": [], "on_bad": "refuse"}


def draw(folder: Path, count: int, name: str, label: int) -> None:
    """Pictures of a class: noise about a brightness of its own."""
    g = np.random.default_rng([label, count])
    folder = folder / name
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = g.integers(60 * label, 60 * label + 120, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name[:6]} {number} $(touch hacked).png")


def test_one_network_of_one_seed_and_names_that_are_code(project: Project, tmp_path: Path) -> None:
    for split, count in (("train", 20), ("test", 4)):
        for label, name in enumerate(NAMES):
            draw(tmp_path / "raw data" / split, count, name, label)
    project.params(CHANGES)
    path = project.folder / "params.yaml"
    import yaml

    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw["data"]["options"] = OPTIONS
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    project.run("python", "-m", "stages.validate")
    output = project.run("dvc", "repro", EPSILENS_DATA=str(tmp_path))
    assert "Traceback" not in output
    page = (project.folder / "reports/index.html").read_text(encoding="utf-8")
    for raw_text in ("<script>alert", "<img src=x"):
        assert raw_text not in page
    assert "&lt;script&gt;alert" in page
    assert not list(project.folder.rglob("hacked"))
    assert not list(tmp_path.glob("hacked"))
    manifest = json.loads((project.folder / "data/prepared/manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["class_names"]) == set(NAMES)
    assert "one seed" in page.lower()
    verdicts = {
        row["verdict"] for row in json.loads((project.folder / "metrics/claims.json").read_text(encoding="utf-8"))
    }
    assert not verdicts & {"supported", "contradicted"}, verdicts  # with one training epsilon nothing can be said of it
