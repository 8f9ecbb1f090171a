"""The gallery of one network as a single picture: a row an image, a column the input and each attribution."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from epsilens.artifacts import GALLERY_INDEX, read_json
from epsilens.errors import DataError

TILE = 112  # pixels: pictures are enlarged or reduced to this square
GAP, LABEL, TEXT = 6, 14, 11  # pixels between tiles, of a line of text, of its letters


def contact_sheet(folder: Path) -> bytes:
    """PNG of the pictures that a gallery folder holds, with the prediction below each input.

    Raises DataError if gallery.json or a picture that it names cannot be read.
    """
    index = read_json(folder / GALLERY_INDEX)
    columns = ["input", *index["methods"]]
    size = (GAP + len(columns) * (TILE + GAP), LABEL + len(index["images"]) * (TILE + 2 * LABEL + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    lefts = [GAP + at * (TILE + GAP) for at in range(len(columns))]
    for left, name in zip(lefts, columns, strict=True):
        draw.text((left, 0), _cut(name, font), "black", font)
    for at, image in enumerate(index["images"]):
        top = LABEL + GAP + at * (TILE + 2 * LABEL + GAP)
        for left, name in zip(lefts, columns, strict=True):
            sheet.paste(_tile(folder / f"{image['row']}-{name}.png"), (left, top))
        for line, text in enumerate(_caption(image)):
            draw.text((GAP, top + TILE + line * LABEL), _cut(text, font), "black", font)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def _tile(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB").resize((TILE, TILE), Image.Resampling.NEAREST)
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a picture: {error}. Run `dvc pull` first") from None


def _caption(image: dict[str, Any]) -> tuple[str, str]:
    return str(image["label"]), f"as {image['prediction']}, {100 * image['confidence']:.0f} %"


def _cut(text: str, font: Any) -> str:
    """As much of a text as is no wider than a tile."""
    while font.getlength(text) > TILE:
        text = text[:-1]
    return text
