"""What a forecast says, from names and numbers; tests/pipeline has real ones."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from epsilens.errors import EpsilensError
from stages import common, forecast

SECONDS = {"train": 60.0, "score": 29.0, "report": 10.0}
STAGES = ("prepare", "train@0-0", "train@8-0", "score@0-0", "score@8-0", "report")
MISSING = [{"changed deps": {"data/prepared": "deleted"}}, {"changed outs": {"models/eps-8/seed-0": "deleted"}}]
OTHER = [{"changed deps": {"params.yaml": {"score": "modified"}}}]
LOCKED = {stage: {"outs": [{"path": stage, "md5": "0123"}]} for stage in STAGES}


def pipeline(changed: dict[str, Any]) -> forecast.Pipeline:
    before = {"train": ["prepare"], "score": ["train@0-0", "train@8-0"], "report": ["score@0-0", "score@8-0"]}
    arrows = defaultdict(set, {stage: set(before.get(stage.partition("@")[0], ())) for stage in STAGES})
    for seed in ("0-0", "8-0"):
        arrows[f"score@{seed}"] = {f"train@{seed}"}
    return forecast.Pipeline(STAGES, changed, arrows)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "01").mkdir()
    (tmp_path / "01" / "23").touch()
    return tmp_path


def test_the_time_is_that_of_every_network_of_every_stage_and_of_dvc() -> None:
    text = forecast.headline(["train@0-0", "train@8-0", "score@0-0", "score@8-0", "report"], SECONDS, "here")
    assert text == "to run, at most: 5 stages, about 3 min by what they took here"  # 188 s and five times DVC


def test_what_never_ran_is_named_and_nothing_known_gives_no_time() -> None:
    text = forecast.headline(["attack@0-0", "report"], SECONDS, "here")
    assert text == "to run, at most: 2 stages, about 11 s by what they took here, without attack, which has not run yet"
    text = forecast.headline(["attack@0-0"], {}, "")
    assert text == "to run, at most: 1 stage, no estimate yet: none of them has run"


def test_networks_are_named_if_few_and_counted_if_many() -> None:
    of = ["prepare", *(f"train@{n}-0" for n in range(12))]
    assert forecast.told(["prepare", "train@2-0", "train@4-0"], of) == [
        "  prepare",
        "  train 2 of 12 networks: 2-0, 4-0",
    ]
    assert forecast.told(of[1:], of) == ["  train 12 of 12 networks"]


def test_what_depends_on_a_changed_stage_is_out_of_date_and_nothing_else() -> None:
    assert pipeline({"train@8-0": OTHER}).out_of_date() == ["train@8-0", "score@8-0", "report"]
    assert pipeline({"prepare": OTHER}).out_of_date() == list(STAGES)
    assert pipeline({}).out_of_date() == []


def test_what_only_misses_files_comes_from_the_cache(cache: Path) -> None:
    gone = dict.fromkeys(STAGES, MISSING)
    assert pipeline(gone).to_run(LOCKED, cache) == []
    assert pipeline({**gone, "score@8-0": [*MISSING, *OTHER]}).to_run(LOCKED, cache) == ["score@8-0", "report"]
    assert pipeline({**gone, "prepare": ["changed command"]}).to_run(LOCKED, cache) == list(STAGES)
    # What nothing is the matter with, behind a stage that is restored, does not run.
    assert pipeline({"train@8-0": MISSING}).to_run(LOCKED, cache) == []


def test_what_the_cache_has_not_runs_unless_it_is_in_its_place(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gone, lost = {"train@8-0": MISSING}, {"outs": [{"path": "train@8-0", "md5": "4567"}]}
    downstream = ["train@8-0", "score@8-0", "report"]
    assert pipeline(gone).to_run({**LOCKED, "train@8-0": lost}, cache) == downstream
    assert pipeline(gone).to_run({}, cache) == downstream  # never run
    Path("train@8-0").touch()
    assert pipeline(gone).to_run({**LOCKED, "train@8-0": lost}, cache) == []


def test_what_comes_from_the_cache_is_counted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "params", lambda: {"study": {"name": "unknown", "description": ""}})
    assert forecast.forecast(pipeline({}), {}, cache) == "nothing to run: everything is up to date"
    assert forecast.forecast(pipeline({"train@8-0": MISSING}), LOCKED, cache) == "from DVC's cache: 1 stage"
    both = pipeline({"train@8-0": MISSING, "report": OTHER})
    assert forecast.forecast(both, LOCKED, cache).splitlines()[1:] == ["  report", "from DVC's cache: 1 stage"]


@pytest.mark.parametrize(("seconds", "words"), [(1.2, "1 s"), (89, "89 s"), (700, "12 min"), (9000, "2.5 h")])
def test_durations_in_words(seconds: float, words: str) -> None:
    assert forecast.words(seconds) == words


def test_the_median_of_the_last_runs_counts() -> None:
    lines = [{"stage": f"train@{n}-0", "seconds": float(s)} for n, s in enumerate([99] * 30 + [1] * 5 + [2] + [9] * 6)]
    assert forecast.medians(lines) == {"train": 5.5}  # of the last twelve


def test_the_times_of_this_study_here_come_before_the_recorded_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record, stages = Path("metrics/mine/provenance.json"), ["train@0-0", "attack@0-0"]
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"seconds": {"train": 100.0, "attack": 7.0, "report": 3.0}}), encoding="utf-8")
    there = f"where {record} was recorded"
    assert forecast.known("mine", stages) == ({"train": 100.0, "attack": 7.0}, there)
    common.DURATIONS.parent.mkdir()
    lines = [{"study": "mine", "stage": f"train@{n}-0", "seconds": s} for n, s in enumerate((1.0, 2.0, 9.0))]
    lines += [{"study": "other", "stage": "train@0-0", "seconds": 99.0}]
    common.DURATIONS.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"half', encoding="utf-8")
    assert forecast.known("mine", stages) == ({"train": 2.0, "attack": 7.0}, f"here and {there}")
    assert forecast.known("mine", ["train@8-0"]) == ({"train": 2.0}, "here")
    assert forecast.known("unknown", stages) == ({}, "")


def test_a_file_that_is_damaged_or_a_dvc_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["forecast"])
    for damage in (KeyError("study"), TypeError("int"), FileNotFoundError("dvc")):

        def broken(damage: Exception = damage) -> None:
            raise damage

        monkeypatch.setattr(forecast, "pipeline", broken)
        with pytest.raises(EpsilensError, match=r"^no forecast: .*(study|int|dvc)"):
            forecast.main()
