"""Boxes: in closed form, against painted pictures, out of every kind of file, and down to the metrics that need them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from epsilens.data import annotations, boxes, decode, folder, manifest, parquet, splits
from epsilens.data.config import DataConfig
from epsilens.data.decode import Fit, Frame
from epsilens.errors import ConfigError, DataError
from epsilens.metrics import relevance

BOX_TYPE = pa.list_(pa.list_(pa.float32()))


def draw(given: Sequence[Any], frame: Frame, size: int, resize: int | None = None) -> Tensor:
    return boxes.draw(given, frame, Fit(size, resize), "x")


def block(size: int, rows: slice, columns: slice) -> Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


def encoded(image: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


# --- the rule in closed form


@pytest.mark.parametrize("size", range(2, 33, 2))
def test_half_an_image_stays_half_at_every_size(size: int) -> None:
    for width, height in ((10, 5), (7, 31), (500, 375)):
        frame = Frame(width, height)
        left = draw([[0, 0, width / 2, height]], frame, size)
        assert torch.equal(left, block(size, slice(None), slice(size // 2)))
        below = draw([[0, height / 2, width, height]], frame, size)
        assert torch.equal(below, block(size, slice(size // 2, None), slice(None)))


@pytest.mark.parametrize("size", [1, 3, 7, 10, 31])
def test_boxes_that_share_an_edge_share_no_pixel_and_leave_none_out(size: int) -> None:
    left, right = draw([[0, 0, 5, 5]], Frame(10, 5), size), draw([[5, 0, 10, 5]], Frame(10, 5), size)
    if size > 1:
        assert not (left & right).any()
    assert (left | right).all()
    assert draw([[0, 0, 5, 5], [5, 0, 10, 5]], Frame(10, 5), size).all()


def test_a_pixel_counts_by_its_centre() -> None:
    # size 4 of 8 x 16: a pixel is 2 wide and 4 high, centres at x 1 3 5 7 and y 2 6 10 14
    assert torch.equal(draw([[1, 2, 5, 10]], Frame(8, 16), 4), block(4, slice(0, 2), slice(0, 2)))
    assert torch.equal(draw([[1.01, 2.01, 5.01, 10.01]], Frame(8, 16), 4), block(4, slice(1, 3), slice(1, 3)))
    assert torch.equal(draw([[0, 0, 3, 6], [5, 6, 8, 16]], Frame(8, 16), 4).nonzero(),
                       torch.tensor([[0, 0], [1, 2], [1, 3], [2, 2], [2, 3], [3, 2], [3, 3]]))  # fmt: skip


def test_a_box_without_a_centre_is_the_pixel_of_its_middle() -> None:
    for x, y in ((0.1, 0.1), (3.2, 6.7), (7.8, 15.9)):
        found = draw([[x, y, x + 0.1, y + 0.1]], Frame(8, 16), 4)
        assert found.nonzero().tolist() == [[int(y / 4), int(x / 2)]]
    nearer = draw([[1.5, 2.5, 2.9, 5.9]], Frame(8, 16), 4)  # over the border of pixels, the larger part beyond it
    assert nearer.nonzero().tolist() == [[1, 1]]
    line = draw([[0, 7, 8, 7.5]], Frame(8, 16), 4)  # thin on one axis only
    assert torch.equal(line, block(4, slice(1, 2), slice(None)))


def test_a_crop_cuts_a_box_off() -> None:
    frame = Frame(20, 10)  # the centre is x 5 to 15
    assert torch.equal(draw([[0, 0, 10, 10]], frame, 10, 10), block(10, slice(None), slice(5)))
    assert torch.equal(draw([[12, 3, 20, 9]], frame, 10, 10), block(10, slice(3, 9), slice(7, 10)))
    assert draw([[0, 0, 20, 10]], frame, 10, 10).all()
    for gone in ([0, 0, 5, 10], [15, 0, 20, 10], [1, 1, 1.1, 1.1], [19, 9, 19.1, 9.1]):
        assert not draw([gone], frame, 10, 10).any()
    # twice as large, and only the central 10 of 20 rows and of 40 columns: x 7.5 to 12.5, y 2.5 to 7.5
    assert torch.equal(draw([[8, 0, 10, 4]], frame, 10, 20), block(10, slice(0, 3), slice(1, 5)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "shape"), [("PNG", (24, 48)), ("TIFF", (48, 24)), ("JPEG", (32, 32))])
@pytest.mark.parametrize("fit", [Fit(24), Fit(12), Fit(12, 12), Fit(10, 24), Fit(21, 48)])
def test_a_mask_lies_where_the_painted_box_is(orientation: int, kind: str, shape: tuple[int, int], fit: Fit) -> None:
    """Black with one white box, decoded as any picture is; at its edges pixels are grey."""
    left, top, right, bottom = 4, 8, 20, 20
    image = np.zeros((*shape, 3), dtype=np.uint8)
    image[top:bottom, left:right] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    decoded, frame = decode.decode(encoded(image, kind, exif=exif, **options), "x", fit)
    assert frame == Frame(shape[1], shape[0], orientation)
    mask = boxes.draw([[left, top, right, bottom]], frame, fit, "x")
    assert mask.any()
    assert mask[decoded[0] > 205].all()
    assert not mask[decoded[0] < 50].any()
    assert ((decoded[0] - 127.5).abs() < 78).double().mean() < 0.25  # so that this says something


@pytest.mark.parametrize("number", [0, 9, 77])
def test_an_unknown_orientation_is_upright(number: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = number
    assert decode.decode(encoded(np.zeros((3, 5, 3), np.uint8), exif=exif), "x", Fit(2))[1] == Frame(5, 3, 1)


# --- impossible boxes


@pytest.mark.parametrize(
    "box",
    [
        [4, 1, 2, 3],  # x1 > x2
        [1, 4, 3, 2],  # y1 > y2
        [1, 1, 1, 3],  # no area
        [1, 2, 3, 2],
        [10, 1, 12, 3],  # right of the image
        [-4, 1, 0, 3],  # left
        [1, 5, 2, 7],  # below
        [1, -2, 2, 0],  # above
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [1, float("nan"), 3, 4],
        [1, 1, float("inf"), 4],
        [1, 2, None, 4],
        None,
        7,
    ],
)
def test_impossible_boxes_are_named(box: Any) -> None:
    with pytest.raises(DataError, match=r"row 7: found box .*expected"):
        boxes.draw([[1, 1, 2, 2], box], Frame(10, 5), Fit(10), "row 7")


def test_the_message_has_the_values_and_what_is_allowed() -> None:
    with pytest.raises(DataError, match=r"found box \[4, 1, 2, 3\], expected x1 < x2 and y1 < y2 within 10 x 5 pixels"):
        draw([[4, 1, 2, 3]], Frame(10, 5), 4)
    with pytest.raises(DataError, match=r"found box \[4, 1, 3, 3\], expected x1 <= x2"):
        boxes.clip([4, 1, 3, 3], (10, 5), "x", extent=1)


def test_what_lies_outside_is_cut_off() -> None:
    assert boxes.clip([-3, -1, 2, 99], (10, 5), "x") == (0, 0, 2, 5)
    assert boxes.clip([8, 4, 99, 4.5], (10, 5), "x") == (8, 4, 10, 4.5)
    assert boxes.clip([0, 0, 9, 4], (10, 5), "x", extent=1) == (0, 0, 10, 5)
    assert boxes.clip([3, 2, 3, 2], (10, 5), "x", extent=1) == (3, 2, 4, 3)  # one pixel
    assert boxes.clip([2, 2, 10, 5], (10, 5), "x", extent=1) == (2, 2, 10, 5)


# --- parquet


def shard(path: Path, column: pa.Array | None, size: tuple[int, int] = (8, 4), seed: int = 0) -> None:
    count = 4 if column is None else len(column)
    rng = np.random.default_rng(seed)
    images = [encoded(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(count)]
    rows = pa.array(
        [{"bytes": image, "path": ""} for image in images], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    columns = {"img": rows, "label": pa.array([i % 2 for i in range(count)])}
    if column is not None:
        columns["bbox"] = column
    pq.write_table(pa.table(columns).replace_schema_metadata({"class_names": "cat,dog"}), path)


def load(root: Path, own_test: Any = "ignore") -> Any:
    return parquet.load(root, path=".", size=4, own_test=own_test, on_bad="refuse")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[4.0, 0, 8, 4], [], None, [0.0, 0, 8, 2]], pa.list_(pa.float32())),
        pa.array([[[4, 0, 8, 4]], [], None, [[0, 0, 8, 1], [0, 1, 8, 2]]], pa.list_(pa.list_(pa.int64()))),
        pa.array([[[4, 0, 8, 4]], [], None, [[0, 0, 8, 2]]], pa.large_list(pa.list_(pa.float64(), 4))),
    ],
)
def test_one_box_or_a_list_of_boxes(tmp_path: Path, column: pa.Array) -> None:
    shard(tmp_path / "train-0.parquet", column)
    found = load(tmp_path)
    right, upper = block(4, slice(None), slice(2, 4)), block(4, slice(2), slice(None))
    assert torch.equal(found.train.masks, torch.stack([right, right & ~right, right & ~right, upper]))
    assert found.boxes == {
        "rule": boxes.RULE,
        "images_with_boxes": 2,
        "of_these_cut_off": 0,
        "of_these_covered": 0,
    }


def test_a_box_may_cover_its_image(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", pa.array([[0.0, 0, 7, 4], [0.0, 0, 8, 4]], pa.list_(pa.float32(), 4)))
    found = load(tmp_path)
    assert found.train.masks.flatten(1).all(dim=1).tolist() == [False, True]
    assert found.boxes["of_these_covered"] == 1


@pytest.mark.parametrize(
    "column",
    [pa.array([[], []], pa.list_(pa.null())), pa.nulls(2), pa.array([[], None], pa.list_(pa.list_(pa.null())))],
)
def test_a_column_without_any_box(tmp_path: Path, column: pa.Array) -> None:
    shard(tmp_path / "train-0.parquet", column)
    found = load(tmp_path)
    assert not found.train.masks.any()
    assert found.boxes["images_with_boxes"] == 0


def test_only_some_files_may_have_the_column(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", None)
    shard(tmp_path / "test-0.parquet", pa.array([[[0, 0, 1, 1]]], BOX_TYPE), seed=1)
    assert load(tmp_path).boxes == {}
    found = load(tmp_path, "test")
    assert found.boxes["images_with_boxes"] == 1
    assert found.test.masks.sum() == 1


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["0 0 1 1"]), "column bbox: found string, expected lists"),
        (pa.array([[["a"]]]), "column bbox: found list<.*string"),
        (pa.array([[[[1.0]]]]), "column bbox: found list<.*list<.*list<"),
        (pa.array([1.0]), "column bbox: found double"),
        (
            pa.array([[1.0, 2, 3, 4], [1.0, 2, 3]]),
            r"row 1: found box \[1\.0, 2\.0, 3\.0\], expected \[x1, y1, x2, y2\]",
        ),
        (pa.array([[1.0, 2, 3, 4, 0, 0, 1, 1]]), r"row 0: found box .*four finite numbers"),
        (pa.array([[[8, 0, 9, 4]]], BOX_TYPE), r"row 0: found box \[8\.0, .*within 8 x 4 pixels"),
    ],
)
def test_bad_columns_and_rows_are_named(tmp_path: Path, column: pa.Array, message: str) -> None:
    shard(tmp_path / "train-0.parquet", column)
    with pytest.raises(DataError, match=r"train-0\.parquet: " + message):
        load(tmp_path)


# --- XML and CSV beside image folders

XML = "<annotation>{size}{objects}</annotation>"
SIZE = "<size><width>{}</width><height>{}</height><depth>3</depth></size>"


def xml(*objects: tuple[str, Sequence[Any]], size: tuple[Any, Any] | None = (20, 10)) -> str:
    parts = [
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, (a, b, c, d) in objects
    ]
    return XML.format(size=SIZE.format(*size) if size else "", objects="".join(parts))


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images 20 wide and 10 high: a and b of n01, c of n02, v of n01 for validation."""
    rng = np.random.default_rng(0)
    for name in ("train/n01/a", "train/n01/b", "train/n02/c", "val/n01/v", "val/n02/w"):
        write(tmp_path / f"set/{name}.JPEG", encoded(rng.integers(0, 256, (10, 20, 3), dtype=np.uint8), "JPEG"))
    return tmp_path


def read(root: Path, *given: str, size: int = 20, resize: int | None = None, own_test: Any = "test") -> Any:
    return folder.load(
        root, path="set", size=size, resize=resize, own_test=own_test, on_bad="refuse", boxes=list(given)
    )


RIGHT = [10, 0, 19, 9]  # the right half: its last pixel is 19


@pytest.mark.parametrize("place", ["train/n01/a", "train/a", "n01/a", "a"])
def test_xml_is_found_where_imagenet_has_it(root: Path, place: str) -> None:
    write(root / f"ann/{place}.xml", xml(("n01", RIGHT)))
    write(root / "ann/other/n09_1.xml", "not even read")
    found = read(root, "ann")
    assert torch.equal(found.train.masks[0], block(20, slice(None), slice(10, 20)))
    assert not found.train.masks[1:].any()
    assert not found.test.masks.any()
    assert found.boxes["images_with_boxes"] == 1
    assert found.boxes["annotations_without_image"] == {"ann": 1}
    sha = hashlib.sha256((root / f"ann/{place}.xml").read_bytes()).hexdigest()
    assert found.files["ann"] == hashlib.sha256(f"{sha}  {place}.xml\n".encode()).hexdigest()
    assert found.files["train"] == read(root).files["train"]


def test_the_nearest_annotation_counts(root: Path) -> None:
    write(root / "ann/a.xml", xml(("n01", [0, 0, 0, 0])))
    write(root / "ann/n01/a.xml", xml(("n01", [1, 0, 1, 0])))
    write(root / "ann/val/a.xml", "of another split")
    write(root / "ann/n02/a.xml", "of another class")
    assert read(root, "ann").train.masks[0, :2, 1].all()
    assert not read(root, "ann").train.masks[0, :, 0].any()


def test_corners_are_pixels_counted_from_0(root: Path) -> None:
    for box, rows, columns in (
        ([0, 0, 19, 9], slice(None), slice(None)),
        ([3, 2, 3, 2], slice(4, 6), slice(3, 4)),  # one pixel of 20 x 10 is two of 20 x 20
        ([3, 2, 20, 10], slice(4, None), slice(3, None)),  # 1 too far, as files that count from 1 have it
    ):
        write(root / "ann/a.xml", xml(("n01", box)))
        assert torch.equal(read(root, "ann").train.masks[0], block(20, rows, columns))


def test_coordinates_are_those_of_the_annotations_own_size(root: Path) -> None:
    for size, factor in (((200, 100), 10), ((60, 30), 3), ((500, 251), 25), (None, 1)):
        box = [10 * factor, 0, 20 * factor - 1, 10 * factor - 1]
        write(root / "ann/a.xml", xml(("n01", box), size=size))
        mask = read(root, "ann").train.masks[0]
        assert torch.equal(mask, block(20, slice(None), slice(10, 20)))


def test_an_image_of_another_shape_has_no_boxes_and_is_counted(root: Path) -> None:
    write(root / "ann/a.xml", xml(("n01", [10, 0, 19, 12]), size=(20, 13)))
    write(root / "ann/b.xml", xml(("n01", RIGHT)))
    found = read(root, "ann")
    assert found.train.masks.flatten(1).any(dim=1).tolist() == [False, True, False]
    assert found.boxes["images_of_another_shape"] == {"images": 1, "examples": ["train/n01/a.JPEG"]}
    (root / "ann/b.xml").unlink()
    with pytest.raises(DataError, match=r"none of 5 images has a box in ann \(1 are of another shape"):
        read(root, "ann")


def test_the_shape_may_differ_by_one_rounded_pixel() -> None:
    """400 x 25 at a tenth is 40 x 2.5: rounded to 40 x 2, the width that belongs to a height of 2 is 32."""
    for turn in (slice(None), slice(None, None, -1)):
        assert annotations._same_shape((40, 2)[turn], (400, 25)[turn])
        assert not annotations._same_shape((40, 4)[turn], (400, 25)[turn])


def test_boxes_of_a_turned_image_are_of_the_shape_that_its_annotation_says(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise: 10 wide, 20 high; the stored left edge is the upper one
    write(root / "set/train/n01/a.JPEG", encoded(np.full((10, 20, 3), 99, np.uint8), "JPEG", exif=exif))
    upper = block(20, slice(0, 10), slice(None))
    write(root / "ann/a.xml", xml(("n01", [0, 0, 9, 9]), size=(20, 10)))  # of the stored one
    assert torch.equal(read(root, "ann").train.masks[0], upper)
    write(root / "ann/a.xml", xml(("n01", [0, 0, 9, 9]), size=(10, 20)))  # of the upright one
    assert torch.equal(read(root, "ann").train.masks[0], upper)
    write(root / "ann/a.xml", xml(("n01", [0, 10, 9, 19]), size=(10, 20)))
    assert torch.equal(read(root, "ann").train.masks[0], ~upper)


def test_only_objects_of_the_images_class_count_where_there_are_some(root: Path) -> None:
    own, other, foreign = ("n01", [0, 0, 9, 9]), ("n02", RIGHT), ("wheel", RIGHT)
    left, right = block(20, slice(None), slice(10)), block(20, slice(None), slice(10, 20))
    for objects, expected in (
        ((own, other, foreign), left),
        ((other, foreign), right),
        ((own, own), left),
        ((foreign,), right),
        ((other,), left & right),
    ):
        write(root / "ann/a.xml", xml(*objects))
        write(root / "ann/c.xml", xml(("n02", RIGHT)))
        assert torch.equal(read(root, "ann").train.masks[0], expected)


def test_csv_of_the_localisation_challenge(root: Path) -> None:
    content = "ImageId,PredictionString\na,n01 0 0 9 9 n01 10 0 19 4 \nv,n01 10 0 19 9\nb,\nn09_1,n09 0 0 1 1\n"
    write(root / "LOC.csv", content)
    found = read(root, "LOC.csv")
    expected = block(20, slice(None), slice(10)) | block(20, slice(10), slice(10, 20))
    assert torch.equal(found.train.masks[0], expected)
    assert not found.train.masks[1:].any()
    assert torch.equal(found.test.masks[0], block(20, slice(None), slice(10, 20)))
    assert found.boxes["images_with_boxes"] == 2
    assert found.boxes["annotations_without_image"] == {"LOC.csv": 1}
    assert found.files["LOC.csv"] == hashlib.sha256(content.encode()).hexdigest()


def test_of_several_sources_the_first_that_knows_an_image_counts(root: Path) -> None:
    write(root / "one.csv", "ImageId,PredictionString\na,n01 0 0 9 9\n")
    write(root / "ann/a.xml", xml(("n01", RIGHT)))
    write(root / "ann/b.xml", xml(("n01", RIGHT)))
    found = read(root, "one.csv", "ann")
    left = block(20, slice(None), slice(10))
    assert torch.equal(found.train.masks[:2], torch.stack([left, ~left]))
    assert found.boxes["annotations_without_image"] == {"one.csv": 0, "ann": 1}


def test_boxes_are_cropped_with_the_image(root: Path) -> None:
    write(root / "ann/a.xml", xml(("n01", RIGHT)))
    write(root / "ann/b.xml", xml(("n01", [0, 0, 4, 9])))
    write(root / "ann/c.xml", xml(("n02", [2, 0, 17, 9])))
    found = read(root, "ann", size=10, resize=10)
    assert torch.equal(found.train.masks[0], block(10, slice(None), slice(5, 10)))
    assert not found.train.masks[1].any()
    assert found.boxes["of_these_cut_off"] == 1
    assert found.boxes["of_these_covered"] == 1
    with pytest.raises(ConfigError, match=r"data\.options\.resize: found 9, expected null or at least size, 10"):
        read(root, "ann", size=10, resize=9)


def test_without_boxes_nothing_is_said_of_them(root: Path) -> None:
    found = read(root)
    assert found.boxes == {}
    assert set(found.files) == {"train", "val"}
    assert not found.train.masks.any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (xml(("n01", RIGHT))[:-20], "cannot be read as XML"),
        ("", "cannot be read as XML"),
        (xml(("n01", RIGHT)).encode("utf-16"), "cannot be read as XML in UTF-8"),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>' + xml(("&x;", RIGHT)),
            "declares a document type or an entity",
        ),
        ("<!DOCTYPE a>" + xml(("n01", RIGHT)), "declares a document type or an entity"),
        (xml(("&x;", RIGHT)), "cannot be read as XML.*undefined entity"),
        (xml(("n01", RIGHT)) + " " * annotations.LARGEST, "found .* bytes, expected at most 1048576"),
        (xml(("n01", [0, 0, "nine", 9])), r"object/bndbox/xmax: found 'nine', expected a number"),
        (xml(("n01", RIGHT)).replace("ymax", "yend"), r"object/bndbox/ymax: found None, expected a number"),
        (xml(("n01", RIGHT), size=(0, 10)), "found size 0.0 x 10.0, expected whole numbers above 0"),
        (xml(("n01", RIGHT), size=("nan", 10)), "found size nan x 10.0"),
        (xml(("n01", RIGHT), size=("inf", 10)), "found size inf x 10.0"),
        (xml(("n01", [0, 0, 9, "nan"])), "found box .*four finite numbers"),
        (xml(("n01", [9, 0, 8, 9])), r"found box \[9\.0, .*expected x1 <= x2 and y1 <= y2 within 20 x 10 pixels"),
        (xml(("n01", [20, 0, 25, 9])), "found box .*within 20 x 10"),
        (xml(("n01", [0, -5, 9, -1])), "found box .*within 20 x 10"),
    ],
)
def test_bad_xml_is_named(root: Path, content: str | bytes, message: str) -> None:
    write(root / "ann/n01/a.xml", content)
    with pytest.raises(DataError, match=r"ann/n01/a\.xml: " + message):
        read(root, "ann")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "found columns None, expected ImageId and PredictionString"),
        ("ImageId,Boxes\na,n01 0 0 1 1\n", r"found columns \['ImageId', 'Boxes'\]"),
        ("ImageId,PredictionString\na,n01 0 0 1\n", "line 2: found 4 words"),
        ("ImageId,PredictionString\nb,\na,n01 0 0 1 x\n", "line 3: .*'x'"),
        ("ImageId,PredictionString\na,\na,\n", "line 3: found image a a second time"),
        ("ImageId,PredictionString\na,n01 0 0 nan 1\n", "line 2: found box"),
        ("ImageId,PredictionString\na,n01 5 0 4 1\n", "line 2: found box .*within 20 x 10"),
        (b"ImageId,PredictionString\na\xff,\n", "cannot be read as CSV in UTF-8"),
    ],
)
def test_bad_csv_is_named(root: Path, content: str | bytes, message: str) -> None:
    write(root / "loc.csv", content)
    with pytest.raises(DataError, match=r"loc\.csv: " + message):
        read(root, "loc.csv")


def test_annotations_that_are_not_there_are_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv: cannot be read"):
        read(root, "absent.csv")
    with pytest.raises(DataError, match=r"absent: no such folder; data\.options\.boxes"):
        read(root, "absent")
    (root / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: holds no \.xml"):
        read(root, "empty")
    write(root / "ann/elsewhere.xml", xml(("n01", RIGHT)))
    with pytest.raises(DataError, match="none of 5 images has a box in ann"):
        read(root, "ann")


# --- from file to metric


def test_from_parquet_to_relevance(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", None, seed=3)
    given = [[[4, 0, 8, 4]], None, [], [[0, 0, 8, 2]], [[0, 0, 8, 4]], [[0, 0, 4, 4]]]
    shard(tmp_path / "test-0.parquet", pa.array(given, BOX_TYPE), seed=4)
    config = DataConfig(
        name="parquet",
        options={},
        holdout=0,
        holdout_by="last",
        validation=1,
        evaluation=4,
        evaluation_masked=True,
        duplicates="report",
        seed=0,
    )
    source = load(tmp_path, "test")
    parts = splits.split(source, config)
    out = tmp_path / "prepared"
    manifest.write(out, manifest.manifest(config, source, parts), parts)
    assert manifest.read_manifest(out)["boxes"]["images_with_boxes"] == 4
    found = manifest.read_split(out, "evaluation")
    assert found.ids.tolist() == [0, 3, 4, 5]
    maps = torch.zeros(4, 3, 4, 4)
    maps[:, :, 0, 3] = -2.0  # upper right: in the first three boxes, not in the last
    maps[:, :, 3, 0] = 1.0  # lower left: in the last two
    third = 1 / 3
    assert relevance.relevance_mass(maps, found.masks).tolist() == pytest.approx([2 * third, 2 * third, 1, third])
    assert relevance.pointing_game(maps, found.masks).tolist() == [1, 1, 1, 0]
    corrected = relevance.relevance_mass_corrected(maps, found.masks)
    assert corrected[[0, 1, 3]].tolist() == pytest.approx([third, third, -third])
    assert corrected[2].isnan()  # the box covers the image
    whole = manifest.read_split(out, "test")
    assert (
        relevance.relevance_mass(torch.ones(6, 3, 4, 4), whole.masks).isnan().tolist()
        == [False, True, True] + [False] * 3
    )
