"""Boxes that lie beside their images: ImageNet's XML files, and the CSV of the ImageNet localisation challenge on Kaggle.

In both, xmin, ymin, xmax, ymax are the first and the last pixel of a box, counted from 0: the form comes from PASCAL VOC,
which counts from 1, but ImageNet's files hold 0, and width - 1 at the other end (499 of 500). A file that counts from 1 is
read one stored pixel too far to the right and down. What lies outside the image is cut off.

XML coordinates are pixels of the annotation's own `size`, and are scaled with it to the image, so that smaller copies of
ImageNet need no others. The image must have that shape, to within one pixel, as it is stored or as it is upright (then the
boxes are taken to be upright too); a cropped or squashed one has not: its boxes cannot be known, so it gets none and is
counted. The CSV says no size: it needs the original images.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

from epsilens.data.boxes import Box, clip
from epsilens.data.decode import Frame
from epsilens.data.source import read_bytes
from epsilens.errors import DataError

LARGEST = 1 << 20  # bytes of an XML file; ImageNet's have less than 1 % of it
COLUMNS = ["ImageId", "PredictionString"]
CORNERS = ("xmin", "ymin", "xmax", "ymax")
EXAMPLES = 10  # images of another shape that are written down


@dataclass(frozen=True)
class Annotation:
    """The objects of one image: their class and their box as the file has it."""

    name: str  # file, or file and line
    size: tuple[int, int] | None  # width and height that the coordinates refer to; None: those of the stored image
    objects: tuple[tuple[str, list[float]], ...]


class Reader(Protocol):
    """One folder or file of annotations."""

    def find(self, split: str, class_name: str, stem: str) -> Annotation | None:
        """That of an image, which is noted as used."""
        ...

    def unused(self) -> int:
        """How many annotations no image has asked for."""
        ...

    def checksum(self) -> str:
        """SHA-256 of what was read."""
        ...


class XmlFolder:
    """<split>/<class>/<stem>.xml, <split>/<stem>.xml, <class>/<stem>.xml or <stem>.xml below a folder, the first there is.

    The checksum is the SHA-256 of the list "<SHA-256>  <path>" of the files read, sorted by path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.xml")}
        self.read: dict[str, str] = {}  # name -> SHA-256
        if not self.names:
            raise DataError(f"{folder}: holds no .xml files, but params.yaml names it under data.options.boxes")

    def find(self, split: str, class_name: str, stem: str) -> Annotation | None:
        for folder in (f"{split}/{class_name}/", f"{split}/", f"{class_name}/", ""):
            name = f"{folder}{stem}.xml"
            if name in self.names:
                content = read_bytes(self.folder / name)
                self.read[name] = hashlib.sha256(content).hexdigest()
                return parse(content, str(self.folder / name))
        return None

    def unused(self) -> int:
        return len(self.names) - len(self.read)

    def checksum(self) -> str:
        return hashlib.sha256(
            "".join(f"{sha}  {name}\n" for name, sha in sorted(self.read.items())).encode()
        ).hexdigest()


def parse(content: bytes, name: str) -> Annotation:
    """An annotation in the form of PASCAL VOC. Raises DataError with `name`.

    A document type or an entity of its own is refused, and what is not UTF-8, so that nothing is fetched or expanded.
    """
    if len(content) > LARGEST:
        raise DataError(f"{name}: found {len(content)} bytes, expected at most {LARGEST} of an annotation")
    try:
        text = content.decode("utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise DataError(
                f"{name}: declares a document type or an entity, expected a plain annotation; remove the declaration"
            )
        root = ElementTree.fromstring(text)  # noqa: S314  # what could expand or fetch is refused above
    except (UnicodeDecodeError, ElementTree.ParseError) as error:
        raise DataError(f"{name}: cannot be read as XML in UTF-8: {error}") from None
    size = None
    if root.find("size") is not None:
        width, height = (_number(root, f"size/{side}", name) for side in ("width", "height"))
        if not (width >= 1 and height >= 1 and width.is_integer() and height.is_integer()):
            raise DataError(f"{name}: found size {width} x {height}, expected whole numbers above 0")
        size = int(width), int(height)
    objects = [
        (item.findtext("name", "").strip(), [_number(item, f"bndbox/{corner}", name) for corner in CORNERS])
        for item in root.iter("object")
    ]
    return Annotation(name, size, tuple(objects))


def _number(element: ElementTree.Element, path: str, name: str) -> float:
    text = element.findtext(path)
    try:
        return float(text or "")
    except ValueError:
        raise DataError(f"{name}: {element.tag}/{path}: found {text!r}, expected a number") from None


class CsvFile:
    """Columns ImageId (the image's file name without its ending) and PredictionString ("<class> x1 y1 x2 y2" repeated)."""

    def __init__(self, path: Path) -> None:
        content = read_bytes(path)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.rows: dict[str, Annotation] = {}
        self.used: set[str] = set()
        try:
            reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise DataError(f"{path}: found columns {reader.fieldnames}, expected {' and '.join(COLUMNS)}")
            for row in reader:
                self._add(row["ImageId"], row["PredictionString"], f"{path}: line {reader.line_num}")
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: cannot be read as CSV in UTF-8: {error}") from None

    def _add(self, image: str, text: str | None, name: str) -> None:
        words = (text or "").split()
        if len(words) % 5:
            raise DataError(f"{name}: found {len(words)} words, expected <class> x1 y1 x2 y2, once for each box")
        if image in self.rows:
            raise DataError(f"{name}: found image {image} a second time")
        try:
            objects = [(words[i], [float(word) for word in words[i + 1 : i + 5]]) for i in range(0, len(words), 5)]
        except ValueError as error:
            raise DataError(f"{name}: {error}, expected <class> x1 y1 x2 y2, once for each box") from None
        self.rows[image] = Annotation(name, None, tuple(objects))

    def find(self, split: str, class_name: str, stem: str) -> Annotation | None:
        if stem in self.rows:
            self.used.add(stem)
        return self.rows.get(stem)

    def unused(self) -> int:
        return len(self.rows) - len(self.used)

    def checksum(self) -> str:
        return self.sha256


@dataclass
class Annotations:
    """Several readers, of which the first that knows an image counts, and what did not fit."""

    readers: dict[str, Reader]  # by their name in params.yaml
    class_names: Sequence[str]
    misfits: list[str] = field(default_factory=list)  # images of another shape than their annotation says

    def boxes(self, image: Path, split: str, label: int, frame: Frame) -> tuple[list[Box], Frame]:
        """The boxes of an image, and the frame in whose pixels they are. Raises DataError for boxes that cannot be.

        Where objects bear the name of the image's class, these count, else all but those that bear another class's name.
        """
        own = self.class_names[label]
        found = next(filter(None, (r.find(split, own, image.stem) for r in self.readers.values())), None)
        if found is None:
            return [], frame
        objects = [box for name, box in found.objects if name == own]
        objects = objects or [box for name, box in found.objects if name not in self.class_names]
        size = found.size or (frame.width, frame.height)
        boxes = [clip(box, size, found.name, extent=1) for box in objects]
        fitting = [f for f in (frame, frame.upright()) if _same_shape((f.width, f.height), size)]
        if not fitting:
            self.misfits.append(f"{split}/{own}/{image.name}")
            return [], frame
        x, y = fitting[0].width / size[0], fitting[0].height / size[1]
        return [(left * x, top * y, right * x, bottom * y) for left, top, right, bottom in boxes], fitting[0]

    def facts(self) -> dict[str, Any]:
        """Counts for the manifest."""
        return {
            "annotations_without_image": {name: reader.unused() for name, reader in self.readers.items()},
            "images_of_another_shape": {"images": len(self.misfits), "examples": self.misfits[:EXAMPLES]},
        }

    def checksums(self) -> dict[str, str]:
        """By the names of params.yaml."""
        return {name: reader.checksum() for name, reader in self.readers.items()}


def _same_shape(found: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether one is the other resized, to within one pixel."""
    (width, height), (w, h) = found, size
    return abs(width - height * w / h) <= 1 or abs(height - width * h / w) <= 1


def open_all(root: Path, paths: Sequence[str], class_names: Sequence[str]) -> Annotations:
    """A CSV file for each path that ends in .csv, else a folder of XML. Raises DataError if one is not there."""
    readers: dict[str, Reader] = {}
    for path in paths:
        found = root / path
        if found.suffix.lower() != ".csv" and not found.is_dir():
            raise DataError(
                f"{found}: no such folder; data.options.boxes in params.yaml names folders of XML annotations and .csv files"
            )
        readers[path] = CsvFile(found) if found.suffix.lower() == ".csv" else XmlFolder(found)
    return Annotations(readers, class_names)
