"""The stages `attribute` and `score` on made-up data and an untrained network, with every member of the registry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from epsilens import artifacts
from epsilens.attributions import ATTRIBUTIONS
from epsilens.data.manifest import write
from epsilens.errors import ConfigError
from epsilens.models import build
from epsilens.models.checkpoints import save
from epsilens.types import Samples
from stages import attribute, score
from tests import options

ROOT = Path(__file__).parents[2]
CELL = ("4", 0)
CLASSES = ["a", "b", "c"]
METHODS: dict[str, dict[str, Any]] = {
    **options.METHODS,
    "integrated_gradients": {"steps": 1},
    "integrated_gradients@blur": {"steps": 400, "baseline": "blur"},
}


def samples(count: int, first: int) -> Samples:
    masks = torch.zeros(count, 8, 12, dtype=torch.bool)
    masks[:, 2:5, 3:8] = True
    images = torch.randint(0, 256, (count, 3, 8, 12), dtype=torch.uint8)
    return Samples(images, torch.arange(count) % len(CLASSES), masks, first + torch.arange(count))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working copy in which `prepare` and `train` have run."""
    params = yaml.safe_load((ROOT / "studies" / "shapes.yaml").read_text(encoding="utf-8"))
    methods = {name: METHODS.get(name, {}) for name in (*ATTRIBUTIONS, "integrated_gradients@blur")}
    params["attribute"] = {"batch_size": 2, "gallery": 2, "seed": 0, "methods": methods}
    params["score"]["metrics"] = {"gini": {}, "retention": {"radius_255": 4, "samples": 1}}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPSILENS_DEVICE", "cpu")
    monkeypatch.setattr(sys, "argv", ["stage", "--epsilon", CELL[0], "--seed", str(CELL[1])])
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    facts = {"class_names": CLASSES, "splits": {"train": {}, "evaluation": {}}}
    write(artifacts.PREPARED, facts, {"train": samples(5, 0), "evaluation": samples(3, 10)})
    mean, std, sizes = [0.5] * 3, [0.25] * 3, {"width": 3, "stem_stride": 1}
    card = {"architecture": "small_resnet", "options": sizes, "class_names": CLASSES, "mean": mean, "std": std}
    network = build("small_resnet", sizes, len(CLASSES), mean, std, seed=4)
    folder = artifacts.cell(artifacts.MODELS, *CELL)
    save(folder, network.state_dict(), card)
    artifacts.seal(folder)
    return tmp_path


def test_every_member_is_explained_and_scored(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attribute.main()
    folder = artifacts.cell(artifacts.ATTRIBUTIONS, *CELL)
    maps = artifacts.read_tensors(folder / artifacts.MAPS)
    assert set(maps) == {*ATTRIBUTIONS, "integrated_gradients@blur"}
    assert {tuple(each.shape) for each in maps.values()} == {(3, 3, 8, 12)}
    index = artifacts.read_rows(folder / artifacts.INDEX).to_pydict()
    assert set(index) == {"image", "label", "target"} | {
        f"completeness_error.{name}" for name in ("integrated_gradients", "integrated_gradients@blur")
    }
    assert max(index["completeness_error.integrated_gradients@blur"]) < 0.05
    assert max(index["completeness_error.integrated_gradients"]) > 0.05
    printed = capsys.readouterr().out
    assert "warning: integrated_gradients: completeness error" in printed
    assert "\nintegrated_gradients@blur: completeness error" in printed

    score.main()
    rows = artifacts.read_rows(artifacts.cell(artifacts.SCORES, *CELL) / artifacts.ROWS).to_pydict()
    assert set(rows["attribution"]) == set(maps)
    described = artifacts.read_json(artifacts.cell(artifacts.SCORES, *CELL) / artifacts.FACTS)["attributions"]
    assert {name for name, entry in described.items() if entry["kind"] == "control"} == {
        "random", "blurred_random", "sobel", "deviation", "randomised", "inverse",
    }  # fmt: skip


def test_the_training_images_are_read_only_for_a_method_that_needs_them(study: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["attribute"]["methods"] = {"gradient": {}}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    (artifacts.PREPARED / "train.safetensors").unlink()
    attribute.main()
    assert set(artifacts.read_tensors(artifacts.cell(artifacts.ATTRIBUTIONS, *CELL) / artifacts.MAPS)) == {"gradient"}


@pytest.mark.parametrize("audited", [float(CELL[0]), 77.0])
def test_the_audit_is_of_the_cells_that_it_names_and_all_have_traits(study: Path, audited: float) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["attribute"]["methods"] = {"gradient": {}, "random": {}}
    params["score"]["audit"] |= {"epsilon": audited, "scale": [0.5], "blur": [1.0], "temperature": [2.0]}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    attribute.main()
    score.main()
    folder = artifacts.cell(artifacts.SCORES, *CELL)
    rows = artifacts.read_rows(folder / artifacts.TRAITS).to_pandas()
    kinds = ["none", "scale", "blur", "temperature"] if audited == float(CELL[0]) else ["none"]
    assert list(dict.fromkeys(rows["kind"])) == kinds
    assert len(rows) == len(kinds) * 3 * 3  # traits, images
    norms = rows[rows["trait"] == "norm"].set_index(["kind", "image"])["value"]
    if len(kinds) > 1:
        assert norms["scale"].tolist() == norms["temperature"].tolist() == (norms["none"] / 2).tolist()
        scores = artifacts.read_rows(folder / artifacts.AUDITED).to_pandas()
        shared = ["epsilon", "seed", "image", "correct", "attribution", "kind", "amount"]
        assert list(scores) == [*shared, "metric", "score"]
        assert len(scores) == 3 * 3 * len(params["score"]["metrics"])
        assert set(scores["attribution"]) == {"gradient"}
    else:
        assert not (folder / artifacts.AUDITED).exists()


def test_too_few_classes_for_a_mosaic_are_reported_before_anything_is_scored(study: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["score"]["metrics"] = {"gini": {}, "mosaic_focus": {}}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"score\.metrics\.mosaic_focus: found data of 3 classes, expected 4 or more"):
        score.main()


def test_a_curve_of_random_layers_is_scored(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer from the output, two, all; the training images are read once."""
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["attribute"]["methods"] = {"gradient": {}, "sobel": {}, "expected_gradients": {"samples": 1}}
    depths = {
        "randomisation@top1": {"layers": 1},
        "randomisation@top2": {"layers": 2},
        "randomisation": {"layers": "all"},
    }
    params["score"]["metrics"] = depths
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    attribute.main()
    read: list[int] = []
    references = score.references
    monkeypatch.setattr(score, "references", lambda: (read.append(1), references())[1])
    score.main()
    rows = artifacts.read_rows(artifacts.cell(artifacts.SCORES, *CELL) / artifacts.ROWS).to_pydict()
    found: dict[tuple[str, str], list[float]] = {}
    for method, metric, value in zip(rows["attribution"], rows["metric"], rows["score"], strict=True):
        found.setdefault((method, metric), []).append(value)
    assert read == [1]
    assert all(found["sobel", name] == pytest.approx([1.0] * 3) for name in depths)
    assert len({tuple(found["gradient", name]) for name in depths}) == 3
    assert max(found["gradient", "randomisation"]) < 0.9


def test_the_class_that_is_explained_is_that_of_the_logits(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two logits that differ by less than their probabilities can show in float32."""

    class Close(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = torch.nn.Conv2d(3, 3, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 1e-12 * torch.tensor([1.0, 2.0, 3.0]) + 0 * self.mix(images).mean(dim=(2, 3))

    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["attribute"]["methods"] = {"sobel": {}}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    monkeypatch.setattr(attribute, "load", lambda *_: Close())
    attribute.main()
    folder = artifacts.cell(artifacts.ATTRIBUTIONS, *CELL)
    assert artifacts.read_rows(folder / artifacts.INDEX)["target"].to_pylist() == [2, 2, 2]
