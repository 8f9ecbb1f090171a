"""Boxes to masks: a box goes through the geometry of its image, and the mask is the union of an image's boxes.

A box is turned, resized and cut with its image (decode.py). A pixel belongs to it when the pixel's centre lies in it, the
left and the upper edge included, the right and the lower one not: boxes that share an edge share no pixel. Along an axis on
which a box holds no centre, the pixel counts in which its middle lies, so that a small box does not vanish. An image whose
boxes are all cut off has no mask; one whose boxes cover it has a full mask, of which the corrected relevance is undefined.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from epsilens.data.decode import TURNED, Fit, Frame
from epsilens.errors import DataError
from epsilens.types import Samples

RULE = (
    "boxes in pixels of the stored image, cut off at its edges, turned, resized and cropped with it; a pixel belongs to the "
    "mask when its centre lies in a box, [left, right) x [top, bottom), or the middle of a box without any centre in it"
)
# EXIF orientations that, after width and height are exchanged where they are, mirror left and right, or top and bottom.
MIRRORED = (2, 3, 6, 7)
INVERTED = (3, 4, 7, 8)

Box = tuple[float, float, float, float]


def clip(box: Any, shape: tuple[float, float], name: str, *, extent: int = 0) -> Box:
    """[x1, y1, x2, y2] less what lies outside (width, height) `shape`, as edges.

    extent: 0 where x2 and y2 are edges, 1 where they are the last pixels inside. Raises DataError with `name` for what is
    no rectangle, has no area or lies outside altogether.
    """
    width, height = shape
    if not (isinstance(box, Sequence) and len(box) == 4 and all(v is not None and math.isfinite(v) for v in box)):
        raise DataError(f"{name}: found box {box}, expected [x1, y1, x2, y2], four finite numbers")
    left, top, right, bottom = box[0], box[1], box[2] + extent, box[3] + extent
    inside = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if not (inside[0] < inside[2] and inside[1] < inside[3]):
        less = "<=" if extent else "<"
        raise DataError(
            f"{name}: found box {list(box)}, expected x1 {less} x2 and y1 {less} y2 within {width} x {height} pixels"
        )
    return inside


def draw(boxes: Sequence[Any], frame: Frame, fit: Fit, name: str) -> Tensor:
    """bool [size, size], the union of boxes [x1, y1, x2, y2] in pixels of the stored image. Raises DataError as `clip`."""
    mask = torch.zeros(fit.size, fit.size, dtype=torch.bool)
    upright = frame.upright()
    wide, high, cut_left, cut_top = fit.place(upright.width, upright.height)
    for box in boxes:
        left, top, right, bottom = _turned(clip(box, (frame.width, frame.height), name), frame)
        columns = _covered(left * wide / upright.width - cut_left, right * wide / upright.width - cut_left)
        rows = _covered(top * high / upright.height - cut_top, bottom * high / upright.height - cut_top)
        mask[rows, columns] = True
    return mask


def _turned(box: Box, frame: Frame) -> Box:
    """The box in the upright picture."""
    left, top, right, bottom = box
    if frame.orientation in TURNED:
        left, top, right, bottom = top, left, bottom, right
    upright = frame.upright()
    if frame.orientation in MIRRORED:
        left, right = upright.width - right, upright.width - left
    if frame.orientation in INVERTED:
        top, bottom = upright.height - bottom, upright.height - top
    return left, top, right, bottom


def _covered(low: float, high: float) -> slice:
    """The pixels on an axis whose centres lie in [low, high), or the one that holds the middle; none below 0."""
    first, end = math.ceil(low - 0.5), math.ceil(high - 0.5)
    if first >= end:
        first = math.floor((low + high) / 2)
        end = first + 1
    return slice(max(first, 0), max(end, 0))


def facts(parts: Sequence[tuple[Samples | None, Tensor | None]]) -> dict[str, Any]:
    """For the manifest, of samples and bool [N] which have boxes: the rule and counts. Empty where boxes were not read."""
    known = [(part.masks.flatten(1), boxed) for part, boxed in parts if part is not None and boxed is not None]
    if not known:
        return {}
    masks, boxed = (torch.cat(tensors) for tensors in zip(*known, strict=True))
    return {
        "rule": RULE,
        "images_with_boxes": int(boxed.sum()),
        "of_these_cut_off": int((boxed & ~masks.any(dim=1)).sum()),
        "of_these_covered": int((boxed & masks.all(dim=1)).sum()),
    }
