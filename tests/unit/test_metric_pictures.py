"""scripts/metric_pictures.py on networks that learned in seconds, from a cue that nobody can miss."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from epsilens.errors import DataError
from epsilens.metrics import METRICS, score
from epsilens.types import Samples

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import metric_pictures
from metric_cases import CASES


@pytest.fixture(scope="module")
def study() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metric_pictures, "CUE", 64.0)
        patch.setattr(metric_pictures, "SHOWN", 12)
        trained = {epsilon: metric_pictures.train(epsilon, 600, 2) for epsilon in (0.0, 4.0)}
        networks = {epsilon: network for epsilon, (network, _) in trained.items()}
        yield metric_pictures.Study.of(networks, trained[0.0][1])


def test_only_images_that_all_networks_get_right_are_shown(study: Any) -> None:
    assert 4 <= len(study.samples) <= metric_pictures.SHOWN
    for network in study.networks.values():
        assert torch.equal(network(study.samples.pixels()).argmax(dim=1), study.samples.labels)


@pytest.mark.parametrize("name", CASES)
def test_a_picture_has_the_scores_of_the_image_on_which_the_sides_differ_most(name: str, study: Any) -> None:
    case = CASES[name]
    drawn = metric_pictures.draw(study, case)
    with Image.open(io.BytesIO(drawn)) as opened:
        assert opened.width < 1300
        written = json.loads(opened.info["scores"])
    assert tuple(written) == case.metrics
    one, other = (score(study.evidence(side), case.asked()) for side in (case.better, case.worse))
    for metric, pair in written.items():
        rows = torch.stack([one[metric], other[metric]], dim=1)
        row = (rows - torch.tensor(pair)).abs().sum(dim=1)
        assert row.nan_to_num(1).min() < 1e-5
    first = case.metrics[0]
    gaps, found = one[first] - other[first], written[first][0] - written[first][1]
    lower = METRICS[first].facts.better == "lower"
    best = gaps[~gaps.isnan()].min() if lower else gaps[~gaps.isnan()].max()
    assert found == pytest.approx(float(best), abs=1e-5)


def test_the_same_picture_has_the_same_bytes(study: Any) -> None:
    assert metric_pictures.draw(study, CASES["relevance"]) == metric_pictures.draw(study, CASES["relevance"])


def test_every_metric_is_in_a_case() -> None:
    assert {name for case in CASES.values() for name in case.metrics} == set(METRICS)


def test_nothing_to_show_is_an_error(study: Any) -> None:
    wrong = Samples(study.samples.images, (study.samples.labels + 1) % 10, study.samples.masks, study.samples.ids)
    with pytest.raises(DataError, match="no image"):
        metric_pictures.Study.of(study.networks, wrong)
