"""Readers: every file becomes the same bytes by one rule, and every bad file is named."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import tarfile
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from epsilens import data
from epsilens.data import cifar10, decode, folder, parquet
from epsilens.data.config import DataConfig
from epsilens.data.decode import Fit, Frame
from epsilens.errors import ConfigError, DataError

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
BOX_TYPE = pa.list_(pa.list_(pa.float32()))


def noise(seed: int, height: int = 4, width: int = 4) -> np.ndarray:
    """uint8 [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def channels_first(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


def shard(
    path: Path,
    contents: Sequence[bytes | None],
    labels: Sequence[int | None],
    boxes: Sequence[Any] | None = None,
    names: str | None = "cat,dog,fox",
    image: str = "img",
    metadata: dict[str, str] | None = None,
) -> None:
    """One parquet file; label comes before the image, because the order of columns must not matter."""
    rows = [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(contents)]
    columns = {"label": pa.array(labels, pa.int64()), image: pa.array(rows, IMAGE_TYPE)}
    if boxes is not None:
        columns["bbox"] = pa.array(boxes, BOX_TYPE)
    given = {**(metadata or {}), **({"class_names": names} if names else {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(given), path)


# --- one rule for all pictures


def test_a_picture_of_the_right_size_is_left_as_it_is() -> None:
    image = noise(0, 5, 5)
    decoded, frame = decode.decode(encoded(image), "x", Fit(5))
    assert decoded.dtype == torch.uint8
    assert frame == Frame(5, 5, 1)
    assert torch.equal(decoded, channels_first(image))


def test_grey_bilevel_and_palette_become_rgb() -> None:
    grey = np.array([[0, 90, 255], [17, 128, 3]], dtype=np.uint8)
    assert np.array_equal(np.asarray(decode.picture(encoded(grey), "x")), np.stack([grey] * 3, axis=-1))
    bits = np.array([[True, False, True], [False, False, True]])
    assert np.array_equal(np.asarray(decode.picture(encoded(bits), "x"))[..., 1], bits * 255)
    palette = Image.new("P", (3, 2))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1, 1, 1, 0, 0])
    colours = np.array([[10, 20, 30], [200, 100, 50]])
    assert np.array_equal(np.asarray(decode.picture(encoded(palette), "x")), colours[[[0, 1, 1], [1, 0, 0]]])


def test_cmyk_becomes_rgb() -> None:
    ink = Image.new("CMYK", (3, 2), (255, 0, 0, 0))  # all cyan, no black
    ink.putpixel((2, 1), (0, 0, 0, 255))
    found = np.asarray(decode.picture(encoded(ink, "TIFF"), "x"))
    assert found[0, 0].tolist() == [0, 255, 255]
    assert found[1, 2].tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_of_16_bits_the_high_byte_counts(kind: str) -> None:
    values = np.array([[0, 255, 256], [40_000, 65_535, 511]], dtype=np.uint16)
    found = np.asarray(decode.picture(encoded(values, kind), "x"))
    assert found[..., 2].tolist() == [[0, 0, 1], [156, 255, 1]]


def test_transparency_is_laid_over_black() -> None:
    image = np.dstack([noise(1, 2, 3), np.array([[0, 255, 128], [255, 0, 64]], dtype=np.uint8)])
    found = np.asarray(decode.picture(encoded(image), "x")).astype(float)
    assert np.abs(found - image[..., :3] * (image[..., 3:] / 255.0)).max() <= 1
    key = np.array([[[9, 9, 9], [200, 1, 2]]], dtype=np.uint8)  # one colour declared transparent, no alpha channel
    assert np.asarray(decode.picture(encoded(key, transparency=(200, 1, 2)), "x"))[0].tolist() == [[9, 9, 9], [0, 0, 0]]


def test_the_exif_orientation_is_applied() -> None:
    image = noise(2, 2, 5)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    upright = np.asarray(decode.picture(encoded(image, exif=exif), "x"))
    assert upright.shape == (5, 2, 3)
    assert np.array_equal(upright, np.rot90(image, k=-1))


def test_a_larger_picture_is_squashed_with_antialiasing() -> None:
    lines = np.zeros((8, 16, 3), dtype=np.uint8)
    lines[:, ::4] = 200  # one column in four: without antialiasing 0 or 200, by chance
    shrunk, frame = decode.decode(encoded(lines), "x", Fit(4))
    assert shrunk.shape == (3, 4, 4)
    assert frame == Frame(16, 8, 1)
    assert ((shrunk > 30) & (shrunk < 80)).all()
    ramp = np.repeat(np.arange(8, dtype=np.uint8)[:, None, None] * 30, 3, axis=2).repeat(2, axis=1)  # [8, 2, 3]
    down = decode.decode(encoded(ramp), "x", Fit(4))[0][0]
    assert (down[:, 0] == down[:, 1]).all()
    assert (down[1:, 0] > down[:-1, 0]).all()  # rows stay rows, in their order


@pytest.mark.parametrize("shape", [(31, 50), (50, 31), (40, 40), (16, 90)])
@pytest.mark.parametrize(("resize", "size"), [(20, 17), (16, 16), (57, 30)])
def test_the_centre_is_cut_out_as_torchvision_does_it(shape: tuple[int, int], resize: int, size: int) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    image = noise(7, *shape)
    expected = np.asarray(Compose([Resize(resize), CenterCrop(size)])(Image.fromarray(image)))
    assert torch.equal(decode.decode(encoded(image), "x", Fit(size, resize))[0], channels_first(expected))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_pictures_are_refused(mode: str) -> None:
    with pytest.raises(DataError, match=r"deep\.tif.*32-bit"):
        decode.picture(encoded(Image.new(mode, (3, 2)), "TIFF"), "deep.tif")


def test_damaged_pictures_are_named() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "BMP"):
        whole = encoded(noise(3, 32, 32), kind)
        with pytest.raises(DataError, match=r"cut\.img: cannot be read as an image"):
            decode.picture(whole[: len(whole) // 2], "cut.img")
    with pytest.raises(DataError, match=r"none\.png.*0 bytes"):
        decode.picture(b"", "none.png")
    with pytest.raises(DataError, match=r"text\.png: cannot be read"):
        decode.picture(b"this is no picture at all", "text.png")


@pytest.mark.parametrize("side", [4, 64])  # below and above the size at which threads are used
def test_many_pictures_keep_their_order(side: int) -> None:
    images = [noise(i, side, side) for i in range(decode.CHUNK * 2 + 3)]
    contents = [encoded(image) for image in images]
    assert (len(contents[0]) > decode.THREADS_PAY) == (side == 64)
    names = [str(i) for i in range(len(images))]
    found = decode.decode_all(contents, names, Fit(side))
    expected = torch.stack([channels_first(image) for image in images])
    assert torch.equal(found.images, expected)
    assert found.frames == [Frame(side, side, 1)] * len(images)
    assert (found.kept, found.bad) == (list(range(len(images))), [])
    contents[40] = contents[40][:-40]
    with pytest.raises(DataError, match=r"^40: "):
        decode.decode_all(contents, names, Fit(side))
    rest = [i for i in range(len(images)) if i != 40]
    found = decode.decode_all(contents, names, Fit(side), "skip")
    assert (found.kept, found.bad) == (rest, [40])
    assert torch.equal(found.images, expected[rest])
    assert len(found.frames) == len(rest)


# --- parquet


@pytest.fixture
def parquet_root(tmp_path: Path) -> Path:
    """Two training shards, written in the wrong order, and two test images."""
    shard(tmp_path / "set/train-00001-of-00002.parquet", [encoded(noise(2))], [0], [[]])
    shard(
        tmp_path / "set/train-00000-of-00002.parquet",
        [encoded(noise(0)), encoded(noise(1, 8, 16))],
        [2, 1],
        [[], [[4, 2, 8, 6]]],
    )
    shard(tmp_path / "set/test-00000-of-00001.parquet", [encoded(noise(8)), encoded(noise(9))], [1, 0], [[], None])
    return tmp_path


def test_parquet_in_the_order_of_file_and_row(parquet_root: Path) -> None:
    source = parquet.load(parquet_root, path="set", size=4, own_test="test", on_bad="refuse")
    assert source.class_names == ("cat", "dog", "fox")
    assert source.train.labels.tolist() == [2, 1, 0]
    assert source.train.ids.tolist() == [0, 1, 2]
    assert torch.equal(source.train.images[0], channels_first(noise(0)))
    assert torch.equal(source.train.images[2], channels_first(noise(2)))
    assert source.test is not None
    assert source.test.ids.tolist() == [0, 1]
    assert source.test.labels.tolist() == [1, 0]
    assert source.extras == {}
    file = parquet_root / "set/test-00000-of-00001.parquet"
    assert source.files[file.name] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert len(source.files) == 3


def test_boxes_are_scaled_with_their_image(parquet_root: Path) -> None:
    masks = parquet.load(parquet_root, path="set", size=4, own_test="test", on_bad="refuse").train.masks
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[1:3, 1:2] = True  # x 4..8 of 16 and y 2..6 of 8, on 4 x 4
    assert torch.equal(masks[1], expected)
    assert not masks[0].any()
    assert not masks[2].any()


def test_own_test_files_go_where_params_say(parquet_root: Path) -> None:
    kept = parquet.load(parquet_root, path="set", size=4, own_test="official_test", on_bad="refuse")
    assert kept.test is None
    assert kept.extras["official_test"].labels.tolist() == [1, 0]
    (parquet_root / "set/test-00000-of-00001.parquet").write_bytes(b"not even read")
    ignored = parquet.load(parquet_root, path="set", size=4, own_test="ignore", on_bad="refuse")
    assert ignored.test is None
    assert ignored.extras == {}
    assert "test-00000-of-00001.parquet" not in ignored.files


def test_validation_files_serve_without_test_files(parquet_root: Path) -> None:
    shard(parquet_root / "set/validation-0.parquet", [encoded(noise(5))], [2])
    both = parquet.load(parquet_root, path="set", size=4, own_test="test", on_bad="refuse").test
    (parquet_root / "set/test-00000-of-00001.parquet").unlink()
    only = parquet.load(parquet_root, path="set", size=4, own_test="test", on_bad="refuse").test
    assert both is not None
    assert only is not None
    assert (len(both), only.labels.tolist()) == (2, [2])
    (parquet_root / "set/validation-0.parquet").unlink()
    with pytest.raises(DataError, match="own_test: test; say ignore"):
        parquet.load(parquet_root, path="set", size=4, own_test="test", on_bad="refuse")


def test_hugging_face_class_labels_and_column_name(tmp_path: Path) -> None:
    feature = {"info": {"features": {"label": {"names": ["a, b", "c"], "_type": "ClassLabel"}}}}
    metadata = {"huggingface": json.dumps(feature)}
    shard(tmp_path / "train-0.parquet", [encoded(noise(0))], [1], names=None, image="image", metadata=metadata)
    assert parquet.load(tmp_path, path=".", size=4, own_test="ignore", on_bad="refuse").class_names == ("a, b", "c")


@pytest.mark.parametrize(
    ("contents", "labels", "message"),
    [
        ([encoded(noise(0))] * 4, [0, 1, 2, 3], r"row 3: found label 3, expected 0 to 2"),
        ([encoded(noise(0))] * 4, [0, 1, 2, -1], r"row 3: found label -1"),
        ([encoded(noise(0))] * 4, [0, 1, 2, None], r"row 3: found label None"),
        ([encoded(noise(0))] * 3 + [None], [0, 1, 2, 0], r"row 3: is empty"),
        ([encoded(noise(0))] * 3 + [b""], [0, 1, 2, 0], r"row 3: is empty"),
        ([encoded(noise(0))] * 3 + [encoded(noise(0))[:50]], [0, 1, 2, 0], r"row 3: cannot be read as an image"),
        ([], [], r"holds no images"),
    ],
)
def test_bad_rows_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: Any, labels: Any, message: str
) -> None:
    monkeypatch.setattr(parquet, "BATCH", 2)  # rows count on from one batch to the next
    shard(tmp_path / "train-0.parquet", contents, labels)
    with pytest.raises(DataError, match=r"train-0\.parquet: " + message):
        parquet.load(tmp_path, path=".", size=4, own_test="ignore", on_bad="refuse")


def test_a_row_without_an_image_is_named(tmp_path: Path) -> None:
    rows = pa.array([{"bytes": encoded(noise(0)), "path": ""}, None], IMAGE_TYPE)
    table = pa.table({"img": rows, "label": [0, 0]}).replace_schema_metadata({"class_names": "cat"})
    pq.write_table(table, tmp_path / "train-0.parquet")
    with pytest.raises(DataError, match="row 1: is empty"):
        parquet.load(tmp_path, path=".", size=4, own_test="ignore", on_bad="refuse")


@pytest.mark.parametrize("names", [None, "cat,cat,dog", "cat,,dog"])
def test_class_names_must_be_there_and_distinct(tmp_path: Path, names: str | None) -> None:
    shard(tmp_path / "train-0.parquet", [encoded(noise(0))], [0], names=names)
    with pytest.raises(DataError, match=r"train-0\.parquet: found class names"):
        parquet.load(tmp_path, path=".", size=4, own_test="ignore", on_bad="refuse")


def test_shards_must_agree_on_class_names(parquet_root: Path) -> None:
    shard(parquet_root / "set/train-00002.parquet", [encoded(noise(0))], [0], names="cat,fox,dog")
    with pytest.raises(DataError, match=r"train-00002\.parquet: its class names differ"):
        parquet.load(parquet_root, path="set", size=4, own_test="test", on_bad="refuse")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"picture": [b""], "label": [0]}, "found columns picture, label"),
        ({"img": [{"bytes": b""}]}, "found columns img,"),
        ({"img": [b""], "label": [0]}, "column img: found binary"),
        ({"img": [{"bytes": b""}], "label": [0.0]}, "column label: found double"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    table = pa.table(columns).replace_schema_metadata({"class_names": "cat"})
    pq.write_table(table, tmp_path / "train-0.parquet")
    with pytest.raises(DataError, match=r"train-0\.parquet: " + message):
        parquet.load(tmp_path, path=".", size=4, own_test="ignore", on_bad="refuse")


def test_missing_and_damaged_parquet_files(parquet_root: Path) -> None:
    with pytest.raises(DataError, match=r"absent: no such folder.*EPSILENS_DATA"):
        parquet.load(parquet_root, path="absent", size=4, own_test="test", on_bad="refuse")
    (parquet_root / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: holds no train-"):
        parquet.load(parquet_root, path="empty", size=4, own_test="test", on_bad="refuse")
    file = parquet_root / "set/train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"train-00001-of-00002\.parquet: cannot be read as parquet"):
        parquet.load(parquet_root, path="set", size=4, own_test="test", on_bad="refuse")


def test_bad_pictures_are_left_out_and_written_down_where_the_study_says_so(tmp_path: Path) -> None:
    """Ids count them, so that those of the others stay what they were."""
    files = [
        ([b"", encoded(noise(0)), b"no picture"], [7, 2, 1]),
        ([encoded(noise(1)), None, encoded(noise(2))], [0, 0, 1]),
    ]
    for number, (contents, labels) in enumerate(files):
        shard(tmp_path / f"train-{number}.parquet", contents, labels)
    source = parquet.load(tmp_path, path=".", size=4, own_test="ignore", on_bad="skip")
    assert source.train.ids.tolist() == [1, 3, 5]
    assert source.train.labels.tolist() == [2, 0, 1]
    assert torch.equal(source.train.images, torch.stack([channels_first(noise(seed)) for seed in range(3)]))
    assert source.skipped == ("train-0.parquet: row 0", "train-0.parquet: row 2", "train-1.parquet: row 1")
    shard(tmp_path / "train-0.parquet", [encoded(noise(0)), b""], [3, 0])
    with pytest.raises(DataError, match=r"train-0\.parquet: row 0: found label 3"):  # nothing else is forgiven
        parquet.load(tmp_path, path=".", size=4, own_test="ignore", on_bad="skip")
    for number in range(2):
        shard(tmp_path / f"train-{number}.parquet", [b""], [0])
    with pytest.raises(DataError, match=r"train-0\.parquet: holds no images that can be read"):
        parquet.load(tmp_path, path=".", size=4, own_test="ignore", on_bad="skip")


@pytest.mark.parametrize("name", [b"path", b"label"])
def test_columns_that_are_no_utf8_are_an_error(tmp_path: Path, name: bytes) -> None:
    file = tmp_path / "train-0.parquet"
    shard(file, [encoded(noise(0))] * 2, [0, 1], names="cat,dog")
    content = file.read_bytes()
    assert name in content
    file.write_bytes(content.replace(name, b"\x80" + name[1:]))
    with pytest.raises(DataError, match=r"train-0\.parquet: "):
        parquet.load(tmp_path, path=".", size=4, own_test="ignore", on_bad="refuse")


def test_class_names_that_are_no_utf8_are_an_error(tmp_path: Path) -> None:
    rows = pa.array([{"bytes": encoded(noise(0)), "path": ""}], IMAGE_TYPE)
    table = pa.table({"img": rows, "label": [0]}).replace_schema_metadata({b"class_names": b"\x80at"})
    pq.write_table(table, tmp_path / "train-0.parquet")
    with pytest.raises(DataError, match=r"train-0\.parquet: cannot be read as parquet: 'utf-8'"):
        parquet.load(tmp_path, path=".", size=4, own_test="ignore", on_bad="refuse")


# --- folder


@pytest.fixture
def image_root(tmp_path: Path) -> Path:
    files = ["train/dog/b.png", "train/dog/a.png", "train/ant hill/nested/z.png", "val/dog/q.png", "val/ant hill/r.png"]
    for i, name in enumerate(files):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(noise(i)))
    (tmp_path / "set/train/dog/.hidden").write_text("no picture")
    (tmp_path / "set/train/notes.txt").write_text("no class")
    return tmp_path


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_folder_in_the_order_of_class_and_name(image_root: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(folder, "BATCH", batch)
    source = folder.load(image_root, path="set", size=4, resize=None, boxes=[], own_test="test", on_bad="refuse")
    assert source.class_names == ("ant hill", "dog")
    assert source.train.labels.tolist() == [0, 1, 1]
    assert source.train.ids.tolist() == [0, 1, 2]
    assert torch.equal(source.train.images, torch.stack([channels_first(noise(i)) for i in (2, 1, 0)]))
    assert source.test is not None
    assert torch.equal(source.test.images, torch.stack([channels_first(noise(i)) for i in (4, 3)]))
    assert not source.train.masks.any()
    assert source.train.masks.shape == (3, 4, 4)


def test_bad_files_are_left_out_and_written_down_where_the_study_says_so(image_root: Path) -> None:
    options = {"path": "set", "size": 4, "resize": None, "boxes": [], "own_test": "test"}
    whole = folder.load(image_root, **options, on_bad="skip")
    assert whole.skipped == ()
    (image_root / "set/train/dog/a.png").write_bytes(b"")
    (image_root / "set/val/dog/q.png").write_bytes(b"\x89PNG")
    found = folder.load(image_root, **options, on_bad="skip")
    assert found.skipped == ("train/dog/a.png", "val/dog/q.png")
    kept = whole.train.ids != whole.class_names.index("dog")  # one of the class ant hill, then a.png of two of dog
    assert torch.equal(found.train.ids, whole.train.ids[kept])
    assert torch.equal(found.train.images, whole.train.images[kept])
    assert found.files != whole.files  # they are a part of what was read
    (image_root / "set/val/ant hill/r.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"val: holds no images that can be read"):
        folder.load(image_root, **options, on_bad="skip")


def test_the_folder_checksum_covers_names_and_bytes(image_root: Path) -> None:
    before = folder.load(image_root, path="set", size=4, resize=None, boxes=[], own_test="test", on_bad="refuse").files
    listing = "".join(
        f"{hashlib.sha256((image_root / 'set/val' / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("ant hill/r.png", "dog/q.png")
    )
    assert before["val"] == hashlib.sha256(listing.encode()).hexdigest()
    (image_root / "set/train/dog/a.png").rename(image_root / "set/train/dog/aa.png")
    after = folder.load(image_root, path="set", size=4, resize=None, boxes=[], own_test="test", on_bad="refuse").files
    assert after["train"] != before["train"]
    assert after["val"] == before["val"]


def test_test_goes_before_val(image_root: Path) -> None:
    shutil.copytree(image_root / "set/train", image_root / "set/test")
    kept = folder.load(image_root, path="set", size=4, resize=None, boxes=[], own_test="official_test", on_bad="refuse")
    assert kept.test is None
    assert len(kept.extras["official_test"]) == 3
    assert set(
        folder.load(image_root, path="set", size=4, resize=None, boxes=[], own_test="ignore", on_bad="refuse").files
    ) == {"train"}


def test_bad_folders_are_named(image_root: Path) -> None:
    def load() -> Any:
        return folder.load(image_root, path="set", size=4, resize=None, boxes=[], own_test="test", on_bad="refuse")

    (image_root / "set/val/eel").mkdir()
    with pytest.raises(DataError, match=r"val/eel: no class of that name"):
        load()
    (image_root / "set/val/eel").rmdir()
    (image_root / "set/train/cow").mkdir()
    with pytest.raises(DataError, match=r"train/cow: the class folder holds no images"):
        load()
    (image_root / "set/train/cow").rmdir()
    (image_root / "set/train/dog/a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"train/dog/a\.png: is empty"):
        load()
    (image_root / "set/train/dog/a.png").unlink()
    shutil.rmtree(image_root / "set/val/dog")
    with pytest.raises(DataError, match=r"val/dog: no such folder"):
        load()
    shutil.rmtree(image_root / "set/val")
    with pytest.raises(DataError, match="neither test/ nor val/"):
        load()
    shutil.rmtree(image_root / "set/train")
    with pytest.raises(DataError, match=r"set/train: no such folder"):
        load()
    (image_root / "set/train").mkdir()
    with pytest.raises(DataError, match="holds no class folders"):
        load()


# --- cifar10


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Six batches of two images in torchvision's files, with their own checksums in place of the official ones."""
    from torchvision.datasets import CIFAR10

    rng = np.random.default_rng(0)
    files = {"batches.meta": pickle.dumps({"label_names": list("abcdefghij")})}
    for i, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        files[name] = pickle.dumps({"data": rng.integers(0, 256, (2, 3072), dtype=np.uint8), "labels": [i, 9 - i]})
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    archive = tmp_path / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{n}", md5[f"data_batch_{n}"]] for n in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return files


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address at which the files of `tmp_path` are to be had."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def write_batches(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = root / "cifar-10-batches-py" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_cifar10_from_its_folder(tmp_path: Path, cifar: dict[str, bytes]) -> None:
    write_batches(tmp_path, cifar)
    source = cifar10.load(tmp_path, own_test="test")
    assert source.class_names == tuple("abcdefghij")
    assert source.train.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    first = torch.from_numpy(pickle.loads(cifar["data_batch_1"], encoding="latin1")["data"])
    assert torch.equal(source.train.images[:2], first.view(2, 3, 32, 32))
    assert source.test is not None
    assert source.test.labels.tolist() == [5, 4]
    assert source.files == {name: hashlib.sha256(content).hexdigest() for name, content in cifar.items()}


def test_cifar10s_own_test_images_go_where_params_say(tmp_path: Path, cifar: dict[str, bytes]) -> None:
    write_batches(tmp_path, cifar)
    beside = cifar10.load(tmp_path, own_test="official_test")
    assert beside.test is None
    assert beside.extras["official_test"].labels.tolist() == [5, 4]
    none = cifar10.load(tmp_path, own_test="ignore")
    assert (none.test, none.extras) == (None, {})
    held = {"holdout": 10_000, "holdout_by": "last"}
    data.check(settings("cifar10", own_test="official_test").model_copy(update=held))
    assert data.known(settings("cifar10", own_test="official_test").model_copy(update=held)).test == 10_000
    for own_test, given, message in (
        ("test", held, "data.holdout: found 10000, expected 0"),
        ("ignore", {"holdout": 0}, "data.holdout: found 0, expected 1 or more"),
        ("ignore", {"holdout": 50_000}, "data.holdout: found 50000, expected at most 49998"),
        ("ignore", {"holdout": 49_900, "validation": 1000}, "data.validation: found 1000, expected at most 99"),
        ("ignore", {"holdout": 5, "evaluation": 10}, "data.evaluation: found 10, expected at most 5"),
    ):
        with pytest.raises(ConfigError, match=message):
            data.check(settings("cifar10", own_test=own_test).model_copy(update={"holdout_by": "last", **given}))


def test_cifar10_is_downloaded_when_absent(
    tmp_path: Path, cifar: dict[str, bytes], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "url", f"{server}/cifar.tar.gz")
    root = tmp_path / "raw"
    root.mkdir()
    (root / "cifar-10-python.tar.gz").write_bytes(b"half a download")
    assert len(cifar10.load(root, own_test="test").train) == 10


def test_cifar10_says_how_to_provide_it(
    tmp_path: Path, cifar: dict[str, bytes], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    (tmp_path / "wrong.tar.gz").write_bytes(b"not the archive")
    for url in (f"{server}/absent.tar.gz", f"{server}/wrong.tar.gz", "http://127.0.0.1:1/nobody/listens"):
        monkeypatch.setattr(CIFAR10, "url", url)
        with pytest.raises(DataError, match=r"cifar-10-batches-py.*unpack it in .*EPSILENS_DATA"):
            cifar10.load(tmp_path / "raw", own_test="test")
        assert not (tmp_path / "raw/cifar-10-python.tar.gz").exists()


def test_an_intact_archive_is_never_deleted(
    tmp_path: Path, cifar: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import cifar as module

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    shutil.copy(tmp_path / "cifar.tar.gz", tmp_path / "cifar-10-python.tar.gz")
    monkeypatch.setattr(module, "download_and_extract_archive", full)
    with pytest.raises(DataError, match="No space left"):
        cifar10.load(tmp_path, own_test="test")
    assert (tmp_path / "cifar-10-python.tar.gz").exists()


# --- the registry


def settings(name: str, **options: Any) -> DataConfig:
    return DataConfig(
        name=name,
        options=options,
        holdout=0,
        holdout_by="last",
        validation=1,
        evaluation=1,
        evaluation_masked=False,
        duplicates="report",
        seed=0,
    )


def test_data_sets_are_chosen_by_name(parquet_root: Path) -> None:
    config = settings("parquet", path="set", size=4, own_test="test", on_bad="refuse")
    assert data.check(config) == config.options
    assert len(data.load(config, parquet_root).train) == 3
    with pytest.raises(ConfigError, match=r"data\.name: found 'parket', known are shapes, .*did you mean 'parquet'"):
        data.check(settings("parket"))


def test_all_wrong_options_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        data.check(settings("folder", size=0, own_test="maybe", on_bad="forget", colour=True))
    lines = str(caught.value).splitlines()
    keys = {line.split(": ")[1] for line in lines}
    assert keys == {
        f"data.options.{key}" for key in ("path", "size", "resize", "own_test", "boxes", "on_bad", "colour")
    }
