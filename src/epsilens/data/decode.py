"""Encoded pictures to bytes, by one rule.

The first frame; turned upright by its EXIF orientation; grey, palette, CMYK and the like converted to RGB by Pillow;
transparency laid over black; of 16-bit values the high byte (32-bit values have no known range: an error). Then it is made
square as a `Fit` says, bilinear with antialiasing; what has the right size already is not resized.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from epsilens.errors import DataError

BATCH = 1024  # encoded pictures in memory at a time
CHUNK = 32  # pictures that a thread takes at once; one by one, the queue costs as much as a small picture
# Below this many encoded bytes a picture, Pillow has less to do than the Python around it, and threads queue for the
# interpreter. Measured on two free cores: 4,000 WebP of 2 kB took 0.5 s without threads and 0.7 s with them, 1,000 JPEG
# of 5 kB 0.25 s and 0.17 s. On cores that are busy otherwise threads gained nothing, with 42-kB JPEG neither.
THREADS_PAY = 4096


OnBad = Literal["refuse", "skip"]
"""What becomes of a picture that cannot be read: an error with its name, or it is left out and its name written down."""

TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclass(frozen=True)
class Fit:
    """How a picture becomes size x size: squashed, or with the shorter side resized to `resize` >= size and the centre cut
    out, by the arithmetic of torchvision's Resize and CenterCrop."""

    size: int
    resize: int | None = None

    def place(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Of a picture's resized copy: its width, its height, and how much of it is cut off on the left and at the top."""
        if self.resize is None:
            return self.size, self.size, 0, 0
        shorter = min(width, height)
        wide, high = (int(self.resize * side / shorter) for side in (width, height))
        return wide, high, round((wide - self.size) / 2), round((high - self.size) / 2)


@dataclass(frozen=True)
class Frame:
    """Width and height of a picture as it is stored, in pixels, and its EXIF orientation, 1 (upright) to 8."""

    width: int
    height: int
    orientation: int = 1

    def upright(self) -> Frame:
        """The frame of the picture turned upright."""
        sides = (self.width, self.height)
        width, height = sides[::-1] if self.orientation in TURNED else sides
        return Frame(width, height)


def picture(content: bytes, name: str) -> Image.Image:
    """An encoded picture as RGB. Raises DataError with `name` if it is empty, truncated or no picture."""
    return _open(content, name)[0]


def _open(content: bytes, name: str) -> tuple[Image.Image, Frame]:
    if not content:
        raise DataError(f"{name}: is empty (0 bytes), expected an image")
    try:
        with Image.open(io.BytesIO(content)) as opened:
            orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
            image = _rgb(ImageOps.exif_transpose(opened))
        if orientation not in range(1, 9):
            orientation = 1  # as Pillow takes it
        width, height = (
            image.size[::-1] if orientation in TURNED else image.size
        )  # of a TIFF Pillow tells only the upright
        return image, Frame(width, height, orientation)
    except Exception as error:  # Pillow and its plugins raise a dozen types for damaged files
        raise DataError(f"{name}: cannot be read as an image: {error}") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError(f"32-bit pixels (mode {image.mode}), expected 8 or 16 bits")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", coloured.size, (0, 0, 0, 255)), coloured).convert("RGB")
    return image.convert("RGB")


def pixels(image: Image.Image, fit: Fit) -> Tensor:
    """uint8 [3, size, size] of an RGB picture."""
    wide, high, left, top = fit.place(*image.size)
    if image.size != (wide, high):
        image = image.resize((wide, high), Image.Resampling.BILINEAR)  # Pillow antialiases where it shrinks
    cut = np.array(image)[top : top + fit.size, left : left + fit.size]
    return torch.from_numpy(np.ascontiguousarray(cut)).permute(2, 0, 1)


def decode(content: bytes, name: str, fit: Fit) -> tuple[Tensor, Frame]:
    """An encoded picture as uint8 [3, size, size], and how it was stored. Raises DataError."""
    image, frame = _open(content, name)
    return pixels(image, fit), frame


@dataclass(frozen=True)
class Decoded:
    """Those of several pictures that could be read: uint8 [N, 3, size, size], N frames, and which ones they are.

    kept: N places among all, rising; bad: the places of the others.
    """

    images: Tensor
    frames: list[Frame]
    kept: list[int]
    bad: list[int]


def decode_all(contents: Sequence[bytes], names: Sequence[str], fit: Fit, on_bad: OnBad = "refuse") -> Decoded:
    """`decode` of several, in the given order. Raises DataError, unless bad ones are skipped."""

    def one(content: bytes, name: str) -> tuple[Tensor, Frame] | None:
        try:
            return decode(content, name, fit)
        except DataError:
            if on_bad == "refuse":
                raise
            return None

    def chunk(first: int) -> list[tuple[Tensor, Frame] | None]:
        part = slice(first, first + CHUNK)
        return [one(content, name) for content, name in zip(contents[part], names[part], strict=True)]

    firsts = range(0, len(contents), CHUNK)
    if sum(map(len, contents)) < THREADS_PAY * len(contents):
        chunks = [chunk(first) for first in firsts]
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            chunks = list(pool.map(chunk, firsts))
    decoded = dict(enumerate(item for items in chunks for item in items))
    good = {place: item for place, item in decoded.items() if item is not None}
    images = (
        torch.stack([image for image, _ in good.values()]) if good else torch.empty(0, 3, fit.size, fit.size).byte()
    )
    return Decoded(images, [frame for _, frame in good.values()], list(good), sorted(decoded.keys() - good))
