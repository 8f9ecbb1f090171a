"""Splits and manifest: nobody is in two splits, classes keep their shares, numbers are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from epsilens import artifacts
from epsilens.data import manifest, splits
from epsilens.data.config import DataConfig
from epsilens.data.source import Source
from epsilens.errors import ConfigError, DataError
from epsilens.types import Samples

NAMES = ("cat", "dog", "<b>fox</b>")


def make(labels: list[int], seed: int = 0, height: int = 2, width: int = 3) -> Samples:
    """Random images; every third has a mask."""
    count = len(labels)
    images = torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(seed))
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    masks[::3, 0, 1:] = True
    return Samples(images.to(torch.uint8), torch.tensor(labels), masks, torch.arange(count))


def shuffled(sizes: list[int], seed: int = 1) -> list[int]:
    labels = torch.tensor([label for label, size in enumerate(sizes) for _ in range(size)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))].tolist()


def settings(**changes: Any) -> DataConfig:
    base = {
        "name": "x",
        "options": {},
        "holdout": 0,
        "holdout_by": "last",
        "validation": 10,
        "evaluation": 6,
        "evaluation_masked": False,
        "duplicates": "report",
        "seed": 0,
    }
    return DataConfig.model_validate(base | changes)


def source(test: bool = True) -> Source:
    own = make(shuffled([10, 5, 15]), seed=2)
    extras = {"test_without_cue": make([0, 1, 2], seed=3)}
    return Source(make(shuffled([50, 20, 30])), own if test else None, extras, NAMES)


def counts(part: Samples) -> list[int]:
    return torch.bincount(part.labels, minlength=3).tolist()


# --- apportionment


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([50, 20, 30], 10, [5, 2, 3]),
        ([47, 16, 158, 12, 20, 7], 10, [2, 1, 6, 0, 1, 0]),  # quotas 1.81 .62 6.08 .46 .77 .27
        ([10, 10, 10], 4, [2, 1, 1]),  # a tie goes to the lower label
        ([1, 99], 50, [1, 49]),  # quotas 0.5 and 49.5: a tie
        ([0, 3, 0, 2], 5, [0, 3, 0, 2]),
        ([3, 4], 0, [0, 0]),
        ([7], 3, [3]),
    ],
)
def test_apportion(sizes: list[int], count: int, expected: list[int]) -> None:
    assert splits.apportion(sizes, count) == expected


def test_apportion_never_gives_more_than_there_is() -> None:
    for seed in range(200):
        numbers = torch.Generator().manual_seed(seed)
        sizes = torch.randint(0, 9, (5,), generator=numbers).tolist()
        total = sum(sizes)
        for count in range(total + 1 if total else 0):
            seats = splits.apportion(sizes, count)
            assert sum(seats) == count
            assert all(size * count // total <= seat <= size for seat, size in zip(seats, sizes, strict=True))


def test_a_class_is_drawn_independently_of_the_others() -> None:
    labels = torch.tensor(shuffled([40, 40]))
    more = torch.cat([labels, torch.full((40,), 2)])
    two = splits.stratified(labels, 20, 0, "validation")
    three = splits.stratified(more, 30, 0, "validation")
    assert torch.equal(three[:80], two)
    assert not torch.equal(splits.stratified(labels, 20, 1, "validation"), two)
    assert not torch.equal(splits.stratified(labels, 20, 0, "evaluation"), two)
    zeros = two[labels == 0]
    assert not torch.equal(zeros, two[labels == 1])  # two classes of one size are not drawn alike


# --- splits


def test_splits_partition_the_source() -> None:
    given = source()
    found = splits.split(given, settings())
    assert list(found) == ["train", "validation", "test", "evaluation", "test_without_cue"]
    train, validation = found["train"].ids.tolist(), found["validation"].ids.tolist()
    assert sorted(train + validation) == list(range(100))
    assert counts(found["validation"]) == [5, 2, 3]
    assert counts(found["train"]) == [45, 18, 27]
    assert counts(found["evaluation"]) == [2, 1, 3]
    assert found["test"] is given.test
    assert found["test_without_cue"] is given.extras["test_without_cue"]


def test_every_split_is_in_id_order_and_keeps_its_rows_together() -> None:
    given = source()
    found = splits.split(given, settings())
    for name, origin in (("train", given.train), ("validation", given.train), ("evaluation", given.test)):
        assert origin is not None
        part = found[name]
        assert (part.ids[1:] > part.ids[:-1]).all()
        for field in ("images", "labels", "masks"):
            assert torch.equal(getattr(part, field), getattr(origin, field)[part.ids])


def test_the_last_images_are_held_out() -> None:
    found = splits.split(source(test=False), settings(holdout=30))
    assert found["test"].ids.tolist() == list(range(70, 100))
    assert found["train"].ids.max() < 70
    assert found["validation"].ids.max() < 70
    assert set(found["evaluation"].ids.tolist()) <= set(range(70, 100))


def test_a_drawn_holdout_keeps_the_classes_shares() -> None:
    found = splits.split(source(test=False), settings(holdout=30, holdout_by="seed"))
    assert counts(found["test"]) == [15, 6, 9]
    ids = [index for name in ("train", "validation", "test") for index in found[name].ids.tolist()]
    assert sorted(ids) == list(range(100))


def test_splits_depend_on_the_seed_alone() -> None:
    def drawn(**changes: Any) -> list[list[int]]:
        found = splits.split(source(test=False), settings(holdout=30, holdout_by="seed", **changes))
        return [found[name].ids.tolist() for name in ("test", "validation", "evaluation")]

    first = drawn()
    torch.manual_seed(123)
    state = torch.get_rng_state()
    assert drawn() == first
    assert torch.equal(torch.get_rng_state(), state)
    assert all(a != b for a, b in zip(drawn(seed=1), first, strict=True))


@pytest.mark.parametrize(
    ("test", "changes", "message"),
    [
        (False, {}, r"data\.holdout: found 0, expected 1 or more"),
        (True, {"holdout": 5}, r"data\.holdout: found 5, expected 0.*\(30 images\)"),
        (False, {"holdout": 99}, r"data\.holdout: found 99, expected at most 98"),
        (True, {"validation": 100}, r"data\.validation: found 100, expected at most 99"),
        (False, {"holdout": 60, "validation": 40}, r"data\.validation: found 40, expected at most 39"),
        (True, {"evaluation": 31}, r"data\.evaluation: found 31, expected at most 30"),
        (False, {"holdout": 9, "evaluation": 10}, r"data\.evaluation: found 10, expected at most 9"),
        (True, {"validation": 99}, r"leave no training image of .*dog"),
    ],
)
def test_contradictions_are_named(test: bool, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        splits.split(source(test), settings(**changes))


def test_the_largest_allowed_values_are_allowed() -> None:
    one_class = Source(make([0] * 5), make([0] * 3), {}, ("cat",))
    found = splits.split(one_class, settings(validation=4, evaluation=3))
    assert [len(part) for part in found.values()] == [1, 4, 3, 3]


def test_a_part_is_stratified_and_0_means_all() -> None:
    whole = make(shuffled([10, 5, 15]))
    part = splits.part_of(whole, 6, 0, "attack.images")
    assert counts(part) == [2, 1, 3]
    assert torch.equal(part.images, whole.images[part.ids])
    assert part.ids.tolist() != splits.part_of(whole, 6, 1, "attack.images").ids.tolist()
    assert splits.part_of(whole, 0, 0, "attack.images") is whole
    assert len(splits.part_of(whole, 30, 0, "attack.images")) == 30
    with pytest.raises(ConfigError, match=r"attack\.images: found 31, expected at most 30"):
        splits.part_of(whole, 31, 0, "attack.images")


def masked_source() -> Source:
    own = make(shuffled([10, 5, 15]), seed=2)  # 10 of 30 have masks
    return Source(make(shuffled([50, 20, 30])), own, {}, NAMES)


def test_the_evaluation_split_may_be_drawn_from_masked_images() -> None:
    given = masked_source()
    found = splits.split(given, settings(evaluation=6, evaluation_masked=True))
    part = found["evaluation"]
    assert len(part) == 6
    assert part.masks.flatten(1).any(dim=1).all()
    assert given.test is not None
    masked = given.test[given.test.masks.flatten(1).any(dim=1)]
    assert counts(part) == splits.apportion(counts(masked), 6)
    assert torch.equal(part.images, given.test.images[part.ids])
    assert (part.ids[1:] > part.ids[:-1]).all()
    every = splits.split(given, settings(evaluation=10, evaluation_masked=True))["evaluation"]
    assert torch.equal(every.ids, masked.ids)
    plain = splits.split(given, settings(evaluation=6))
    for name in ("train", "validation", "test"):
        assert torch.equal(found[name].ids, plain[name].ids)


def test_without_masks_in_question_the_draw_is_that_of_all_test_images() -> None:
    given = masked_source()
    assert given.test is not None
    drawn = splits.stratified(given.test.labels, 6, 0, "evaluation")
    assert torch.equal(splits.split(given, settings())["evaluation"].ids, given.test.ids[drawn])
    full = Samples(given.test.images, given.test.labels, torch.ones_like(given.test.masks), given.test.ids)
    source = Source(given.train, full, {}, NAMES)  # where all have masks, both draws are one
    assert torch.equal(splits.split(source, settings(evaluation_masked=True))["evaluation"].ids, given.test.ids[drawn])


def test_too_few_masked_images_are_named() -> None:
    message = r"data\.evaluation: found 11, expected at most 10: so many of the 30 test images have a mask"
    with pytest.raises(ConfigError, match=message):
        splits.split(masked_source(), settings(evaluation=11, evaluation_masked=True))


def test_training_images_with_masks_may_join_the_test_images() -> None:
    """Of 100 training images 34 have a mask; of 30 test images 10."""
    given = source()
    found = splits.split(given, settings(holdout=20, holdout_by="masked", evaluation=25, evaluation_masked=True))
    assert given.test is not None
    assert torch.equal(found["test"].ids, torch.cat([torch.arange(30), found["test"].ids[30:]]))
    held = found["test"].ids[30:] - 30
    assert len(held) == 20
    assert set(held.tolist()) <= set(range(0, 100, 3))
    assert torch.equal(found["test"].images[30:], given.train.images[held])
    assert torch.equal(found["test"].images[:30], given.test.images)
    trained = {*found["train"].ids.tolist(), *found["validation"].ids.tolist()}
    assert trained == set(range(100)) - set(held.tolist())
    assert bool(found["evaluation"].masks.flatten(1).any(dim=1).all())
    alone = splits.split(source(test=False), settings(holdout=20, holdout_by="masked", evaluation=20))
    assert torch.equal(alone["test"].ids, held)


@pytest.mark.parametrize(
    ("holdout", "message"),
    [
        (35, r"data\.holdout: found 35, expected at most 34: so many of the 100 training images have a mask"),
        (0, r"data\.holdout: found 0, expected 1 or more, because data\.holdout_by is masked"),
    ],
)
def test_masked_images_that_are_not_there_are_not_held_out(holdout: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        splits.split(source(), settings(holdout=holdout, holdout_by="masked"))


# --- manifest


def test_the_manifest_speaks_of_boxes_and_skipped_images_only_where_there_are_any() -> None:
    given = source()
    found = splits.split(given, settings())
    assert set(manifest.manifest(settings(), given, found)) == {
        "name", "class_names", "channels", "height", "width", "mean", "std", "splits", "sources", "duplicates",
    }  # fmt: skip
    boxed = Source(given.train, given.test, given.extras, NAMES, {}, {"rule": "r", "images_with_boxes": 3})
    assert manifest.manifest(settings(), boxed, found)["boxes"] == {"rule": "r", "images_with_boxes": 3}
    partly = Source(given.train, given.test, given.extras, NAMES, skipped=("a.png", "b.png"))
    assert manifest.manifest(settings(), partly, found)["skipped"] == ["a.png", "b.png"]


def test_channel_statistics_in_closed_form() -> None:
    images = torch.tensor([[[[0, 255, 255]]], [[[51, 0, 0]]]], dtype=torch.uint8)  # [2, 1, 1, 3]
    mean, std = manifest.channel_statistics(images)
    values = [0, 1, 1, 0.2, 0, 0]
    expected = sum(values) / 6
    assert mean == pytest.approx([expected], abs=1e-15)
    assert std == pytest.approx([(sum((v - expected) ** 2 for v in values) / 6) ** 0.5], abs=1e-15)


def test_channel_statistics_are_over_all_pixels_of_all_images() -> None:
    """Not the mean of each image's own deviation, which is smaller: two flat images have 0 each, together 0.5."""
    flat = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 2, 3)
    assert manifest.channel_statistics(flat) == ([0.5], [0.5])
    images = make([0] * 50).images
    mean, std = manifest.channel_statistics(images)
    floats = images.double() / 255
    assert mean == pytest.approx(floats.mean(dim=(0, 2, 3)).tolist(), abs=1e-12)
    assert std == pytest.approx(floats.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-12)
    assert std > floats.std(dim=(2, 3), correction=0).mean(dim=0).tolist()


def test_a_constant_channel_is_refused() -> None:
    images = make([0, 1]).images.clone()
    images[:, 1] = 7
    with pytest.raises(DataError, match="channel 1 has one and the same value"):
        manifest.channel_statistics(images)


def _with(samples: Samples, index: int, image: Tensor) -> Samples:
    images = samples.images.clone()
    images[index] = image
    return Samples(images, samples.labels, samples.masks, samples.ids + 100)


def test_duplicates_are_counted_with_their_ids() -> None:
    a, b, c = make([0] * 4, 1), make([0] * 4, 2), make([0] * 4, 3)
    b = _with(b, 2, a.images[3])
    c = _with(_with(c, 1, a.images[0]), 3, a.images[0])
    found = manifest.duplicates({"a": a, "b": b, "c": c})
    assert found == {
        "a/b": {"images": 1, "examples": [[3, 102]]},
        "a/c": {"images": 2, "examples": [[0, 201], [0, 203]]},
        "b/c": {"images": 0, "examples": []},
    }
    many = manifest.duplicates({"a": make([0] * 30), "b": make([0] * 30)})["a/b"]
    assert (many["images"], len(many["examples"])) == (30, 10)


def test_duplicates_across_splits_are_refused_unless_they_are_to_be_reported() -> None:
    train, test = make([0, 1] * 10, 1), make([0, 1] * 5, 2)
    given = Source(train, _with(_with(test, 2, train.images[3]), 4, train.images[3]), {}, NAMES)
    asked = {"validation": 2, "evaluation": 4}
    parts = splits.split(given, settings(**asked))
    with pytest.raises(DataError, match=r"two splits: (train|validation)/test 2, e\.g\. .*data\.duplicates: report"):
        manifest.manifest(settings(**asked, duplicates="refuse"), given, parts)
    found = manifest.manifest(settings(**asked), given, parts)["duplicates"]
    assert sum(both["images"] for both in found.values()) == 2
    clean = Source(train, test, {}, NAMES)
    parts = splits.split(clean, settings(**asked))
    assert manifest.manifest(settings(**asked, duplicates="refuse"), clean, parts)["duplicates"]


def test_the_manifest_says_what_there_is() -> None:
    given = source()
    found = splits.split(given, settings())
    facts = manifest.manifest(settings(), given, found)
    assert facts["class_names"] == list(NAMES)
    assert (facts["channels"], facts["height"], facts["width"]) == (3, 2, 3)
    assert (facts["mean"], facts["std"]) == manifest.channel_statistics(found["train"].images)
    assert facts["splits"]["evaluation"]["per_class"] == [2, 1, 3]
    assert facts["splits"]["test"] == {"images": 30, "per_class": [10, 5, 15], "masks": 10}
    assert set(facts["duplicates"]) == {"train/validation", "train/test", "validation/test"}


def prepared(folder: Path) -> dict[str, Samples]:
    given = source()
    found = splits.split(given, settings())
    manifest.write(folder, manifest.manifest(settings(), given, found), found)
    return found


def test_splits_come_back_as_they_were_written(tmp_path: Path) -> None:
    for name, part in prepared(tmp_path).items():
        again = manifest.read_split(tmp_path, name)
        for field in ("images", "labels", "masks", "ids"):
            assert torch.equal(getattr(again, field), getattr(part, field))
            assert getattr(again, field).dtype == getattr(part, field).dtype
        recorded = manifest.read_manifest(tmp_path)["splits"][name]["sha256"]
        assert recorded == artifacts.sha256(tmp_path / f"{name}.safetensors")


def test_the_same_data_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/older_split.safetensors").write_bytes(b"from another configuration")
    prepared(tmp_path / "a")
    prepared(tmp_path / "b")
    a, b = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab")
    assert a == b


def test_a_changed_split_is_noticed(tmp_path: Path) -> None:
    prepared(tmp_path)
    path = tmp_path / "test.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"test\.safetensors: its SHA-256"):
        manifest.read_split(tmp_path, "test")
    path.unlink()
    with pytest.raises(DataError, match=r"test\.safetensors: cannot be read"):
        manifest.read_split(tmp_path, "test")


def test_unknown_splits_and_bad_manifests_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"checksums\.json: cannot be read"):
        manifest.read_split(tmp_path, "test")
    prepared(tmp_path)
    with pytest.raises(DataError, match="no split 'tset', known are evaluation, test"):
        manifest.read_split(tmp_path, "tset")
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match=r"manifest\.json: not as recorded in checksums\.json"):
        manifest.read_manifest(tmp_path)
    artifacts.seal(tmp_path)
    with pytest.raises(DataError, match="is no manifest"):
        manifest.read_manifest(tmp_path)
