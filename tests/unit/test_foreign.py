"""Published networks: every layout in, and a clear answer to every file that does not fit."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dill
import pytest
import torch
import yaml
from torch import Tensor, nn

from epsilens import artifacts, config
from epsilens.data import manifest
from epsilens.errors import ConfigError, DataError
from epsilens.models import build, foreign
from epsilens.models import checkpoints as networks
from epsilens.models.foreign import fill, normalisation, read
from epsilens.types import Samples
from stages import validate

State = dict[str, Tensor]
MEAN, STD = [0.5, 0.25, 0.125], [0.25, 0.5, 1.0]  # exact in float32
# One block a stage: the names that torchvision would give to small_resnet.
NAMES = {"features.0": "conv1", "features.1": "bn1", "features.3": "layer1.0", "features.4": "layer2.0",
         "features.5": "layer3.0", "head": "fc"}  # fmt: skip


def network(classes: int = 4, seed: int = 3) -> nn.Sequential:
    made = build("small_resnet", {"width": 4, "stem_stride": 2}, classes, MEAN, STD, seed)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in made[1].state_dict().values():
            value.add_(0.2 * torch.rand(value.shape, generator=g) if value.is_floating_point() else 5)
    return made.eval()


def torchvision_names(state: State) -> State:
    renamed = {}
    for key, value in state.items():
        prefix = next(ours for ours in NAMES if key.startswith(f"{ours}."))
        renamed[(NAMES[prefix] + key.removeprefix(prefix)).replace("shortcut", "downsample")] = value
    return renamed


def robustness_names(state: State) -> State:
    return {k.replace("downsample", "shortcut").replace("fc.", "linear."): v for k, v in state.items()}


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def attacker_model(state: State) -> State:
    """As robustness.attacker.AttackerModel writes it."""
    scale = {"new_mean": torch.tensor(MEAN).view(3, 1, 1), "new_std": torch.tensor(STD).view(3, 1, 1)}
    return (
        prefixed(scale, "normalizer.")
        | prefixed(state, "model.")
        | prefixed(scale, "attacker.normalize.")
        | prefixed(state, "attacker.model.")
    )


WEIGHTS = torchvision_names(network()[1].state_dict())
CIFAR = robustness_names(WEIGHTS)
MORE = {"epoch": 90, "optimizer": {"state": {0: {"momentum_buffer": torch.rand(3)}}, "param_groups": [{"lr": 0.1}]}}
LAYOUTS: dict[str, tuple[Any, str, str]] = {
    "weights only": (WEIGHTS, "plain", ""),
    "of DataParallel": (prefixed(WEIGHTS, "module."), "plain", ""),
    "names of robustness": (CIFAR, "plain", ""),
    "under state_dict": ({"state_dict": prefixed(WEIGHTS, "module."), **MORE}, "plain", "state_dict"),
    "under net": ({"net": CIFAR, "acc": 93.1}, "plain", "net"),
    "under model": ({**MORE, "model": WEIGHTS}, "plain", "model"),
    "robustness": ({**MORE, "model": prefixed(attacker_model(CIFAR), "module.")}, "robustness", "model"),
    "robustness, ImageNet": ({"model": attacker_model(WEIGHTS), **MORE}, "robustness", "model"),
}


class Schedule:
    """Something that only its own library can read."""


def write(path: Path, content: Any, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    return lambda content, **how: write(tmp_path / "theirs.ckpt", content, **how)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("module", [pickle, dill], ids=lambda module: module.__name__)
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read(name: str, module: Any, zipped: bool, save: Callable[..., Path]) -> None:
    content, layout, under = LAYOUTS[name]
    if under and module is dill:
        content = {**content, "schedule": Schedule()}
    path = save(content, pickle_module=module, _use_new_zipfile_serialization=zipped)
    found = read(path)
    own = layout == "robustness"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.facts == {"file": "theirs.ckpt", "sha256": digest, "layout": layout, "under": under}
    assert (found.mean, found.std) == ((MEAN, STD) if own else (None, None))
    mean, std = normalisation(found, None if own else MEAN, None if own else STD, 3)
    other = build("small_resnet", {"width": 4, "stem_stride": 2}, 4, mean, std, seed=8).eval()
    fill(other, found, "small_resnet")
    expected = network().state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in other.state_dict().items())
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(other(images), network()(images))


def test_counters_of_batches_may_be_missing_and_halves_are_widened(save: Callable[..., Path]) -> None:
    kept = {key: value.half() for key, value in WEIGHTS.items() if "num_batches" not in key}
    other = network(seed=9)
    fill(other, read(save(kept)), "small_resnet")
    assert other[1].head.weight.dtype == torch.float32
    assert torch.equal(other[1].head.weight, WEIGHTS["fc.weight"].half().float())


def changed(**changes: Any) -> State:
    """WEIGHTS with some replaced (`_` for `.`, at the first place), or left out where None."""
    state = WEIGHTS | {key.replace("_", ".", 1): value for key, value in changes.items()}
    return {key: value for key, value in state.items() if value is not None}


MISFITS: dict[str, tuple[Callable[[], State], str]] = {
    "missing": (lambda: changed(fc_weight=None, bn1_bias=None), r"missing: bn1\.bias, fc\.weight"),
    "left over": (lambda: changed(extra_weight=torch.rand(2)), r"unexpected: extra\.weight"),
    "another shape": (lambda: changed(conv1_weight=torch.rand(4, 3, 7, 7)),
                      r"of another shape: conv1\.weight \[4, 3, 7, 7\] for \[4, 3, 3, 3\]"),
    "integers": (lambda: changed(bn1_weight=torch.ones(4, dtype=torch.int64)), r"bn1\.weight \[4\] of integers for \[4\]"),
    "all at once": (lambda: changed(fc_weight=None, extra_weight=torch.rand(2), bn1_bias=torch.rand(5)),
                    r"missing: fc\.weight; unexpected: extra\.weight; of another shape: bn1\.bias \[5\] for \[4\]"),
    "many": (lambda: prefixed(WEIGHTS, "backbone."), r"missing: conv1\.weight, .* and 42 more; unexpected: backbone\.conv"),
    "classes": (lambda: torchvision_names(network(classes=9)[1].state_dict()), "of 9 classes, but the data set has 4"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_weights_that_do_not_fit_are_named(name: str, save: Callable[..., Path]) -> None:
    make, words = MISFITS[name]
    path = save(make())
    other = network(seed=9)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(DataError, match=words) as caught:
        fill(other, read(path), "small_resnet")
    assert str(path) in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: changed(bn1_bias=torch.tensor([1.0, torch.nan, 1, 1])), r"NaN.* in bn1\.bias"),
    "infinity": (lambda: changed(fc_bias=torch.tensor([1.0, -torch.inf, 1, 1])), r"infinity.* in fc\.bias"),
    "beyond float32": (lambda: changed(fc_bias=torch.full((4,), 1e300, dtype=torch.float64)), r"beyond float32 in fc\.bias"),
    "a tensor": (lambda: torch.rand(3), "holds a Tensor, expected a state dict"),
    "a network": (network, "holds a pickled object, expected a state dict"),
    "no weights": (dict, "holds no state dict"),
    "no weights there": (lambda: {"model": {}}, "no state dict under 'model'"),
    "something else": (lambda: {"epoch": 3, "args": [1]}, "no weights are epoch, args"),
    "a list among weights": (lambda: {"model": {**WEIGHTS, "fc.bias": [1.0, 2.0]}}, r"no weights are fc\.bias"),
    "complex numbers": (lambda: changed(fc_bias=torch.zeros(4, dtype=torch.complex64)), r"no weights are fc\.bias"),
    "sparse": (lambda: changed(fc_weight=WEIGHTS["fc.weight"].to_sparse()), r"no weights are fc\.weight"),
    "two names": (lambda: {**WEIGHTS, "linear.bias": torch.rand(4)}, "two names of the same"),
    "a deviation of 0": (lambda: attacker_model(CIFAR) | {"normalizer.new_std": torch.zeros(3), "attacker.normalize.new_std":
                                                          torch.zeros(3)}, "for each channel a number in"),
    "pixels to 255": (lambda: attacker_model(CIFAR) | {"normalizer.new_mean": torch.full((3,), 125.0),
                      "attacker.normalize.new_mean": torch.full((3,), 125.0)}, r"for pixels in \[0, 1\]"),
    "one number for a billion": (lambda: changed(fc_bias=torch.zeros(1).expand(10**9)), r"no weights are fc\.bias"),
    "a negative variance": (lambda: changed(bn1_running_var=-torch.ones(4)), r"variances below 0 in bn1\.running_var"),
    "two networks": (lambda: attacker_model(CIFAR) | {"attacker.model.linear.bias": torch.rand(4)},
                     r"attacker\.model\.linear\.bias is not what it should repeat"),
    "two normalisations": (lambda: attacker_model(CIFAR) | {"attacker.normalize.new_mean": torch.rand(3, 1, 1)},
                           r"attacker\.normalize\.new_mean is not"),
    "a third part": (lambda: attacker_model(CIFAR) | {"head.bias": torch.rand(4)}, r"head\.bias: not known in this layout"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_published_network_is_refused(name: str, save: Callable[..., Path]) -> None:
    make, words = WRONG[name]
    path = save(make())
    with pytest.raises(DataError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value)


def damaged(path: Path, kind: str) -> Path:
    whole = write(path, {"model": WEIGHTS}, _use_new_zipfile_serialization="zip" in kind).read_bytes()
    contents = {
        "empty": b"",
        "text": b"<html>404 Not Found</html>",
        "noise": bytes(range(256)) * 9,
        "PK": b"PK\x03\x04",
    }
    contents |= {"half of a zip": whole[: len(whole) // 2], "half of a legacy": whole[: len(whole) // 2]}
    contents |= {"all but a byte of a legacy": whole[:-1], "start of a legacy": whole[:50]}
    path.write_bytes(contents[kind])
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "text",
        "noise",
        "PK",
        "half of a zip",
        "half of a legacy",
        "all but a byte of a legacy",
        "start of a legacy",
    ],
)
def test_damaged_files_are_one_message(kind: str, tmp_path: Path) -> None:
    path = damaged(tmp_path / "theirs.ckpt", kind)
    with pytest.raises(DataError, match=re.escape(str(path))) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_one_message(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(DataError, match=f"{re.escape(str(path))}: cannot be read: {words}.*EPSILENS_DATA"):
            read(path)


def test_a_bomb_among_weights_is_refused_and_beside_them_ignored(tmp_path: Path) -> None:
    mark = tmp_path / "executed"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {mark}",)

    beside, among = {"model": WEIGHTS, "schedule": Bomb()}, {"model": {**WEIGHTS, "fc.bias": Bomb()}}
    for zipped in (True, False):
        found = read(write(tmp_path / "a.ckpt", beside, _use_new_zipfile_serialization=zipped))
        assert torch.equal(found.state["fc.weight"], WEIGHTS["fc.weight"])
        with pytest.raises(DataError, match=r"no weights are fc\.bias"):
            read(write(tmp_path / "b.ckpt", among, _use_new_zipfile_serialization=zipped))
    assert not mark.exists()


def test_normalisation_comes_from_one_place_or_from_two_that_agree(save: Callable[..., Path]) -> None:
    plain = read(save(WEIGHTS))
    assert normalisation(plain, MEAN, STD, 3) == (MEAN, STD)
    with pytest.raises(ConfigError, match=r"train\.mean: found null.*no normalisation of its own.*plain"):
        normalisation(plain, None, None, 3)
    with pytest.raises(DataError, match="is for 3 channels, but the images of the data set have 1"):
        normalisation(plain, MEAN, STD, 1)
    own = read(save(attacker_model(CIFAR)))
    assert normalisation(own, None, None, 3) == normalisation(own, MEAN, STD, 3) == (MEAN, STD)
    with pytest.raises(
        ConfigError, match=r"train\.mean: found \[0\.5, 0\.25, 0\.126\].*trained with 0\.5, 0\.25, 0\.125"
    ):
        normalisation(own, [0.5, 0.25, 0.126], STD, 3)
    with pytest.raises(ConfigError, match=r"train\.std: found \[0\.25, 0\.5\]"):
        normalisation(own, MEAN, [0.25, 0.5], 3)
    decimal = attacker_model(CIFAR)
    for key in ("normalizer.new_mean", "attacker.normalize.new_mean"):
        decimal[key] = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    mean, _ = normalisation(read(save(decimal)), [0.485, 0.456, 0.406], STD, 3)  # equal but for float32
    assert mean == decimal["normalizer.new_mean"].flatten().tolist() != [0.485, 0.456, 0.406]


def prepared(folder: Path, classes: int) -> dict[str, Any]:
    """A data set like CIFAR-10, of a few images of 16 x 16."""
    images, labels = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8), torch.arange(8) % classes
    part = Samples(images, labels, torch.zeros(8, 16, 16, dtype=torch.bool), torch.arange(8))
    splits = dict.fromkeys(("train", "validation", "test", "evaluation"), part)
    counts = {name: {"images": 8} for name in splits}
    facts = {"name": "toy", "class_names": [f"class {i}" for i in range(classes)], "channels": 3, "height": 16,
             "width": 16, "mean": [0.1] * 3, "std": [0.9] * 3, "splits": counts}  # fmt: skip
    manifest.write(folder, facts, splits)
    return facts


def stage(root: Path, folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(root), "EPSILENS_DATA": "raw", "EPSILENS_DEVICE": "cpu"}
    env.pop("DVC_ROOT", None)
    command = [sys.executable, "-B", "-m", f"stages.{name}", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def study(root: Path, folder: Path, **changes: Any) -> None:
    raw = yaml.safe_load((root / "studies" / "shapes.yaml").read_text(encoding="utf-8"))
    raw["train"] = {"source": "checkpoint", "checkpoints": {0: "a.ckpt", 0.5: "b.ckpt"}, "mean": None, "std": None}
    raw["model"] = {"name": "small_resnet", "options": {"width": 4, "stem_stride": 2}}
    raw["sweep"] = {"epsilons": [0, 0.5], "seeds": [0]}
    for section, values in changes.items():
        raw[section].update(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")


def test_the_stage_writes_what_a_training_writes(root: Path, tmp_path: Path) -> None:
    prepared(tmp_path / artifacts.PREPARED, classes=4)
    (tmp_path / "raw").mkdir()
    write(tmp_path / "raw" / "b.ckpt", {"model": prefixed(attacker_model(CIFAR), "module."), "schedule": Schedule()})
    study(root, tmp_path)
    done = stage(root, tmp_path, "train", "--epsilon", "0.5", "--seed", "0")
    assert done.returncode == 0, done.stderr
    folder = artifacts.cell(tmp_path / artifacts.MODELS, "0.5", 0)
    card = artifacts.read_json(folder / networks.CARD)
    assert artifacts.read_json(folder / artifacts.HISTORY) == []
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.json",
        "checksums.json",
        "history.json",
        "model.safetensors",
    ]
    assert card["checkpoint"] == {"file": "b.ckpt", "layout": "robustness", "under": "model",
                                  "sha256": artifacts.sha256(tmp_path / "raw" / "b.ckpt")}  # fmt: skip
    assert (card["mean"], card["std"], card["threat"]) == (MEAN, STD, {"norm": "linf", "epsilon": 0.5})
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(networks.load(folder, "cpu")(images), network()(images))
    missing = stage(root, tmp_path, "train", "--epsilon", "0", "--seed", "0")
    assert missing.returncode == DataError.status
    assert re.fullmatch(r"error: \S*raw/a\.ckpt: cannot be read: No such file.*\n", missing.stderr)


def test_the_stage_refuses_a_network_of_other_classes(root: Path, tmp_path: Path) -> None:
    prepared(tmp_path / artifacts.PREPARED, classes=5)
    (tmp_path / "raw").mkdir()
    write(tmp_path / "raw" / "a.ckpt", WEIGHTS)
    study(root, tmp_path, train={"mean": MEAN, "std": STD})
    done = stage(root, tmp_path, "train", "--epsilon", "0", "--seed", "0")
    assert (done.returncode, "of 4 classes, but the data set has 5" in done.stderr) == (DataError.status, True)
    assert not (tmp_path / artifacts.MODELS).exists()


def test_validation_reports_all_that_is_missing_at_once(root: Path, tmp_path: Path) -> None:
    def problems(**changes: Any) -> str:
        study(root, tmp_path, **changes)
        return "\n".join(validate.problems(config.read(tmp_path / "params.yaml")))

    assert problems() == ""
    found = problems(sweep={"epsilons": [0, 0.5, 2, 8], "seeds": [0, 1]}, model={"name": "resnet19"})
    for words in (
        "train.checkpoints: no file for epsilon 2 of sweep.epsilons; there are files for 0, 0.5",
        "train.checkpoints: no file for epsilon 8",
        "sweep.seeds: found [0, 1], expected one",
        "model.name: found 'resnet19'",
    ):
        assert words in found
    found = problems(train={"checkpoints": {"many": "", -1: "c"}, "mean": [0.5], "recipe": {}})
    for words in ("train.checkpoints.many", "train.checkpoints.-1", "train.recipe: unknown key"):
        assert words in found
    for std in (None, [0.5, 0.5]):
        assert "a number for each channel" in problems(train={"mean": [0.5], "std": std})
    assert "train.std.0: found 0" in problems(train={"mean": [0.5], "std": [0.0]})
    assert "train.source: found 'download', expected 'training' or 'checkpoint'" in problems(
        train={"source": "download"}
    )


def test_every_layout_says_where_it_is_from() -> None:
    assert all(layout.source for layout in foreign.LAYOUTS.values())
