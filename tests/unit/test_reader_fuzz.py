"""Damaged data sets: a reader gives a source or a DataError that names the file, and nothing else ever."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from epsilens.data import annotations, folder, parquet
from epsilens.data.decode import Fit, decode
from epsilens.errors import DataError

RELAXED = settings(deadline=None, suppress_health_check=list(HealthCheck))


def picture(kind: str, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


WHOLE = [picture("PNG"), picture("JPEG"), picture("GIF"), picture("BMP"), picture("WEBP"), picture("TIFF"),
         picture("PNG", mode="P"), picture("JPEG", mode="CMYK"), picture("PNG", mode="LA")]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, whole: list[bytes] = WHOLE) -> bytes:
    """A file cut and overwritten, or any bytes at all."""
    content = bytearray(draw(st.sampled_from([*whole, b""])))
    if not content:
        return draw(st.binary(max_size=40))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content) - 1))
        patch = draw(st.binary(min_size=1, max_size=4))
        content[at : at + len(patch)] = patch
    return bytes(content[: draw(st.integers(0, len(content)))]) if draw(st.booleans()) else bytes(content)


@given(content=damaged())
@RELAXED
@pytest.mark.filterwarnings("ignore")  # Pillow's, of files that it reads all the same
def test_any_bytes_are_a_picture_or_an_error_with_their_name(content: bytes) -> None:
    try:
        pixels, frame = decode(content, "odd.png", Fit(4))
    except DataError as error:
        assert str(error).startswith("odd.png: ")
    else:
        assert pixels.shape == (3, 4, 4)
        assert min(frame.width, frame.height) >= 1


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("raw")


@given(contents=st.lists(damaged(), min_size=1, max_size=3), name=st.text(min_size=1, max_size=12))
@RELAXED
@pytest.mark.filterwarnings("ignore")
def test_any_folder_is_a_source_or_an_error(images: Path, contents: list[bytes], name: str) -> None:
    shutil.rmtree(images / "set", ignore_errors=True)
    for number, content in enumerate(contents):
        path = images / "set" / "train" / "a class" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    try:
        (images / "set" / "train" / name).mkdir(exist_ok=True)
    except (OSError, ValueError):  # no name for a folder
        return
    options: dict[str, Any] = {"size": 4, "resize": None, "own_test": "ignore", "boxes": [], "on_bad": "refuse"}
    try:
        source = folder.load(images, path="set", **options)
    except DataError as error:
        assert str(images) in str(error)
    else:
        assert len(source.train) >= 1


def shard(rows: list[dict[str, Any]], names: str) -> bytes:
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"class_names": names})
    pq.write_table(table, buffer)
    return buffer.getvalue()


SHARDS = [
    shard([{"img": {"bytes": picture("PNG"), "path": "x"}, "label": label, "bbox": box} for label, box in rows], "a,b")
    for rows in ([(0, [[0, 0, 3, 3]]), (1, [])], [(0, []), (1, [[1, 1, 2, 2], [0, 0, 6, 5]])])
]
ODD = st.none() | st.integers(-2, 3) | st.floats() | st.text(max_size=3) | st.binary(max_size=3)


@given(content=damaged(SHARDS))
@RELAXED
def test_any_bytes_are_parquet_or_an_error(images: Path, content: bytes) -> None:
    read_parquet(images, content)


@given(label=ODD, image=ODD | st.just({"bytes": picture("PNG")}), box=st.lists(st.lists(ODD, max_size=5), max_size=2))
@RELAXED
def test_any_row_is_an_image_or_an_error(images: Path, label: Any, image: Any, box: Any) -> None:
    rows = [{"img": {"bytes": picture("PNG")}, "label": 0, "bbox": [[0.0, 0.0, 3.0, 3.0]]}]
    try:
        content = shard([*rows, {"img": image, "label": label, "bbox": box}], "a,b")
    except (pa.ArrowException, OverflowError):  # no column has both
        try:
            content = shard([{"img": image, "label": label, "bbox": box}], "a,b")
        except (pa.ArrowException, OverflowError):
            return
    read_parquet(images, content)


def read_parquet(images: Path, content: bytes) -> None:
    path = images / "shards" / "train-0.parquet"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    try:
        source = parquet.load(images, path="shards", size=4, own_test="ignore", on_bad="refuse")
    except DataError as error:
        assert "train-0.parquet" in str(error)
    else:
        assert source.train.labels.max() <= 1


XML = (
    b"<annotation><size><width>6</width><height>5</height></size><object><name>a</name><bndbox><xmin>0</xmin>"
    b"<ymin>0</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></object></annotation>"
)
BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotation>&b;</annotation>'


@given(content=damaged([XML, BOMB]))
@RELAXED
def test_any_bytes_are_an_annotation_or_an_error(content: bytes) -> None:
    try:
        annotations.parse(content, "odd.xml")
    except DataError as error:
        assert str(error).startswith("odd.xml: ")
