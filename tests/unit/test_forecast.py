"""What a forecast says, from names and numbers; tests/pipeline has a real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages import common, forecast

SECONDS = {"train": 60.0, "score": 30.0, "report": 10.0}


def test_the_time_is_that_of_every_network_of_every_stage() -> None:
    text = forecast.told(["train@0-0", "train@8-0", "score@0-0", "score@8-0", "report"], SECONDS, "here")
    assert text.splitlines() == [
        "to run, at most: 5 stages, about 3 min by what they took here",
        "  train 0-0, 8-0",
        "  score 0-0, 8-0",
        "  report",
    ]


def test_what_never_ran_is_named_and_nothing_known_gives_no_time() -> None:
    assert "without attack, which has not run yet" in forecast.told(["attack@0-0", "report"], SECONDS, "here")
    assert forecast.told(["attack@0-0"], SECONDS, "here").splitlines()[0] == "to run, at most: 1 stages"
    assert forecast.told([], SECONDS, "here") == "nothing to run: everything is up to date"


def test_many_networks_are_counted() -> None:
    assert "  train 12 networks" in forecast.told([f"train@{n}-0" for n in range(12)], SECONDS, "here")


@pytest.mark.parametrize(("seconds", "words"), [(1.2, "1 s"), (89, "89 s"), (700, "12 min"), (9000, "2.5 h")])
def test_durations_in_words(seconds: float, words: str) -> None:
    assert forecast.words(seconds) == words


def test_the_median_of_this_study_is_taken_here_before_the_recorded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record = Path("metrics/mine/provenance.json")
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"seconds": {"train": 100.0, "attack": 7.0}}), encoding="utf-8")
    assert forecast.known("mine") == (
        {"train": 100.0, "attack": 7.0},
        "where metrics/mine/provenance.json was recorded",
    )
    common.DURATIONS.parent.mkdir()
    lines = [{"study": "mine", "stage": f"train@{n}-0", "seconds": s} for n, s in enumerate((1.0, 2.0, 9.0))]
    lines += [{"study": "other", "stage": "train@0-0", "seconds": 99.0}]
    common.DURATIONS.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"half', encoding="utf-8")
    assert forecast.known("mine") == ({"train": 2.0, "attack": 7.0}, "here")
    assert forecast.known("unknown") == ({}, "where metrics/unknown/provenance.json was recorded")
