"""Maps and images as RGB pictures, uint8 [H, W, 3]."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from epsilens.errors import DataError
from epsilens.types import Attributions

# Diverging and colour-blind safe: negative blue, zero white, positive vermilion.
NEGATIVE, POSITIVE = np.array([0, 90, 181]), np.array([194, 52, 0])
CLIP = 99  # percentile of the absolute values that gets the full colour: one outlier must not hide the rest


def map_picture(attribution: Tensor) -> np.ndarray:
    """One map [C, H, W], channels summed with their signs; full colour at its own 99th percentile; all-zero is white."""
    total = attribution.detach().double().sum(dim=0).cpu().numpy()
    limit = np.percentile(np.abs(total), CLIP) or np.abs(total).max() or 1.0
    strength = np.clip(total / limit, -1, 1)[:, :, None]
    colour = np.where(strength < 0, NEGATIVE, POSITIVE)
    return np.round(255 + (colour - 255) * np.abs(strength)).astype(np.uint8)


def image_picture(image: Tensor) -> np.ndarray:
    """One image, uint8 [C, H, W]: grey or RGB. Raises DataError for any other number of channels."""
    if len(image) not in (1, 3):
        raise DataError(f"a picture of {len(image)} channels cannot be drawn, expected 1 (grey) or 3 (RGB)")
    pixels = image.cpu().permute(1, 2, 0).numpy()
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def png(picture: np.ndarray) -> bytes:
    """PNG bytes, the same for the same picture."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG")
    return buffer.getvalue()


def gallery(images: Tensor, maps: Mapping[str, Attributions], rows: Sequence[int]) -> Iterator[tuple[str, np.ndarray]]:
    """(`<row>-input`, picture) and (`<row>-<method>`, picture) for the chosen rows; images: uint8 [N, C, H, W]."""
    for row in rows:
        yield f"{row}-input", image_picture(images[row])
        for name, attributions in maps.items():
            yield f"{row}-{name}", map_picture(attributions[row])
