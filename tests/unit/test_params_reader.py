"""params.yaml is read as DVC reads it, or refused with its line or key; contradictions are found before any stage."""

from __future__ import annotations

import errno
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from ruamel.yaml import YAML

from epsilens import config, data, models
from epsilens.data.config import DataConfig
from epsilens.data.source import Known
from epsilens.errors import ConfigError, DataError
from epsilens.models.config import ModelConfig
from stages import common, forecast, validate
from stages.validate import problems

ROOT = Path(__file__).parents[2]
PARAMS = yaml.safe_load((ROOT / "studies" / "shapes.yaml").read_text(encoding="utf-8"))


def read(folder: Path, text: str | bytes) -> Any:
    path = folder / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return config.read(path)


@pytest.mark.parametrize(
    "text",
    ["8", "0", "-1", "0.25", "8.", ".5", "-.5", "1e-3", "1E3", "8.0", "1e+16", ".inf", "true", "False", "null", "~", "",
     "no", "on", "y", "2001-01-01", "1:30", "'8'", "a: b", "[1, 1e-2]", "ε", "&a 1", "Infinity", ".5e3", "1e"],
)  # fmt: skip
def test_a_value_is_what_dvc_takes_it_for(text: str, tmp_path: Path) -> None:
    content = f"a:\n  {text}\n"
    dated = {"2001-01-01": "2001-01-01"}  # there it is a date: no parameter is one, and as a text it looks alike
    assert read(tmp_path, content)["a"] == dated.get(text, YAML(typ="safe").load(content)["a"])


@pytest.mark.parametrize("text", ["010", "0x1f", "0b1", "1_000", "0o17", "+1_0"])
def test_what_readers_of_yaml_disagree_on_is_no_number(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, f"a: {text}") == {"a": text}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "found nothing, expected a mapping of sections"),
        ("- 1", "found list, expected a mapping"),
        ("a: 1\nb: 2\na: 3", "line 3: found the key 'a' twice"),
        ("a: {0: x, 0.0: y}", "line 1: found the key '0.0' twice"),
        ("a: !!python/object/apply:os.system [touch executed]", "line 1: found the tag"),
        ("a: !!set {x}", "line 1: found the tag"),
        ("a:\n\tb: 1", "line 2: found character '\\t'"),
        ("a: 1\n---\nb: 2", "line 2: but found another document"),
        ("a: *b", "line 1: found undefined alias 'b'"),
        ("? [a]\n: 1", "line 1: found unhashable key"),
        (b"a: \xff", "cannot be read: 'utf-8' codec"),
        (b"a: \0", "cannot be read: unacceptable character"),
        ("a: [" + "9" * 5000 + "]", "Exceeds the limit"),
        ("a: [0, 4294967296]", "a.1: found an integer of 10 digits, expected one of 32 bits"),
        ('a: {b: "x\\0"}', "a.b: found 'x\\x00', expected a text without NUL"),
        ('a: {"b\\n": 1}', "a: found the key 'b\\n', expected printable"),
        ("a: &a [*a]", "at most 100000 values in at most 20 levels"),
        ("[" * 5000, "at most 100000 values in at most 20 levels"),
        ("a: " + "[" * 30 + "]" * 30, "at most 100000 values in at most 20 levels"),
        (
            "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 9)),
            "at most 100000 values",
        ),
    ],
)
def test_what_is_no_params_yaml_is_refused(text: str | bytes, told: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("executed").exists()


def test_anchors_and_merges_are_used_and_many_faults_told_together(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {z: 4}]}\n"
    assert read(tmp_path, text)["b"] == {"x": 1, "y": 3}
    assert read(tmp_path, text)["c"] == {"x": 1, "y": 2, "z": 4}
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, 'a: [1e99, 99999999999]\nb: "\\ud800"')
    assert len(str(caught.value).splitlines()) == 2


def test_a_long_value_is_cut_in_its_message() -> None:
    assert config.shown("x" * 10) == repr("x" * 10)
    assert len(config.shown(["x" * 1000])) < 220


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The default study with values at dotted keys."""
    study = deepcopy(PARAMS)
    for key, value in changes.items():
        *above, last = key.split(".")
        at = study
        for name in above:
            at = at[name]
        at[last] = value
    return study


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data.evaluation": 1001}, "data.evaluation: found 1001, expected at most 1000"),
        ({"data.validation": 3000}, "data.validation: found 3000, expected at most 2999"),
        ({"data.holdout": 1}, "data.holdout: found 1, expected 0: the data set has a test split of its own (1000 images)"),
        ({"attack.images": 1001}, "attack.images: found 1001, expected at most 1000, the test images"),
        ({"attack.images": 0, "attack.ensemble.images": 1001}, "attack.ensemble.images: found 1001, expected at most 1000"),
        ({"train.crop": 32}, "train.crop: found 32, expected less than 32"),
        ({"score.metrics.regional_gini.block": 32}, "score.metrics.regional_gini.block: found 32, expected less than 32"),
        ({"score.metrics.regional_gini@a": {"block": 99}}, "score.metrics.regional_gini@a.block: found 99"),
        ({"score.metrics.randomisation": {"layers": 11}}, "randomisation.layers: found 11, expected all, or 1 to 10"),
        ({"attack.epsilons.l2": [0.5, 128]}, "attack.epsilons.l2: found budget 128, allowed for l2 is 0 to 55.4"),
        ({"sweep.epsilons": [0, 300]}, "sweep.epsilons: found budget 300.0, allowed for linf is 0 to 255"),
        ({"sweep.seeds": [0, -1]}, "sweep.seeds.1: found -1, expected greater than or equal to 0"),
        ({"sweep.epsilons": 8}, "sweep.epsilons: found 8, expected a list"),
        ({"sweep.epsilons": ["8/../9"]}, "sweep.epsilons.0: found '8/../9', expected a finite number"),
        ({"sweep.epsilons": [[0, 1]]}, "sweep.epsilons.0: found [0, 1], expected a finite number"),
        ({"sweep": []}, "sweep: found [], expected a mapping"),
        ({"attack.ensemble.attacks": {"apgd_ce": {}}}, "attack.ensemble.attacks: found {'apgd_ce': {}}, expected a list"),
        ({"report.bootstrap": 10**6}, "report.bootstrap: found 1000000, expected less than or equal to 100000"),
        ({"study.name": "x" * 101}, "study.name: found"),
        ({"score.metrics.gini@é": {}}, "score.metrics.gini@é: found 'gini@é', expected after @ a label of 1 to 40 letters"),
        ({"score.metrics.gini@" + "x" * 41: {}}, "expected after @ a label of 1 to 40 letters"),
    ],
)  # fmt: skip
def test_a_contradiction_is_one_line_with_its_key(changes: dict[str, Any], told: str) -> None:
    [line] = problems(changed(changes))
    assert told in line
    assert line.startswith("params.yaml: ")


@pytest.mark.parametrize(
    "changes",
    [
        {"data.evaluation": 1000, "data.validation": 2989, "attack.images": 1000, "attack.ensemble.images": 1000},
        {"train.crop": 31, "score.metrics.regional_gini.block": 31, "attack.images": 0},
        {"score.metrics.randomisation": {"layers": 10}, "score.metrics.randomisation@a": {"layers": "all"}},
        {"attack.epsilons.l2": [55.4]},
        {"threat.norm": "l2", "sweep.epsilons": [0, 55.4], "attack.epsilon": 1.0},
        {"sweep.epsilons": [8]},  # the audit's epsilon is none of these: there is no audit, and the report says so
        {"data.name": "folder", "attack.images": 10**6, "attack.epsilons.l2": [300],
         "data.options": {"path": "x", "size": 224, "resize": None, "own_test": "test", "boxes": [], "on_bad": "refuse"}},
    ],
)  # fmt: skip
def test_the_most_that_is_allowed_is_allowed(changes: dict[str, Any]) -> None:
    assert problems(changed(changes)) == []


def test_attacks_and_metrics_need_their_classes_where_these_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate.datasets, "known", lambda _: Known(32, classes=3))
    [line] = problems(changed({"score.metrics.mosaic_focus": {}}))
    assert line == "params.yaml: attack.ensemble.attacks.apgd_t: needs 4 classes or more, the data set has 3"
    study = changed({"score.metrics.mosaic_focus": {}})
    study["attack"]["ensemble"]["attacks"].pop(1)
    [line] = problems(study)
    assert line.startswith("params.yaml: score.metrics.mosaic_focus: found data of 3 classes, expected 4")


def test_layers_are_those_that_random_weights_count() -> None:
    assert models.layers(ModelConfig(name="small_resnet", options={"width": 4, "stem_stride": 2})) == 10
    assert models.layers(ModelConfig(name="resnet18", options={"width": 64})) == 21  # 17, 3 shortcuts, the head


def test_one_class_is_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "d" / split / "cat").mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / "d" / split / "cat" / "a.png")
    options = {"path": "d", "size": 8, "resize": None, "own_test": "test", "boxes": [], "on_bad": "refuse"}
    settings = DataConfig.model_validate(PARAMS["data"] | {"name": "folder", "options": options})
    with pytest.raises(DataError, match=r"data set folder: found one class \(cat\), expected two or more"):
        data.load(settings, tmp_path)


@pytest.mark.parametrize("number", common.REFUSED)
def test_a_stage_that_may_not_write_says_so(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise OSError(number, os.strerror(number), "models/x")

    with pytest.raises(SystemExit) as caught:
        common.run(fails)
    assert caught.value.code == 3
    told = f"error: models/x: {os.strerror(number)}; {common.REFUSED[number]}, then `dvc repro` goes on\n"
    assert capsys.readouterr().err == told


def test_another_fault_of_the_system_is_not_taken_for_it() -> None:
    def fails() -> None:
        raise OSError(errno.EIO, "x")

    with pytest.raises(OSError, match="x"):
        common.run(fails)


@pytest.mark.parametrize(
    ("stderr", "status", "told"),
    [
        ("ERROR: /x is not a git repository\n", 3, "dvc status: /x is not a git repository; `git init` makes it one"),
        ("ERROR: you are not inside of a DVC repository (checked up to /)", 3, "`dvc init` makes it one"),
        ("ERROR: unexpected error - [Errno 30] Read-only file system: 'x'\n\nTroubles? https://dvc.org/support", 3,
         "dvc status: [Errno 30] Read-only file system: 'x'; copy the folder"),
        ("ERROR: failed to parse\nmore", 1, "dvc status: failed to parse"),
        ("", 1, "dvc status: it failed"),
    ],
)  # fmt: skip
def test_what_dvc_says_of_a_folder_goes_with_what_helps(stderr: str, status: int, told: str) -> None:
    error = forecast.failure("status", stderr)
    assert error.status == status
    assert told in str(error)
