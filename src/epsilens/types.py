"""The words for tensors. Pixels are in [0, 1] and epsilon is in pixel units, everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

Images = Annotated[Tensor, "float [N, C, H, W] in [0, 1]"]
Labels = Annotated[Tensor, "int64 [N]"]
Logits = Annotated[Tensor, "float [N, K]"]
Masks = Annotated[Tensor, "bool [N, H, W]; all False where an image has no mask"]
Attributions = Annotated[Tensor, "float [N, C, H, W], signed"]
PixelWeights = Annotated[Tensor, "float [N, H, W], >= 0"]
Scores = Annotated[Tensor, "float64 [N]; NaN where a score is undefined"]
NoiseSeeds = Annotated[Tensor, "int64 [N], one noise seed an image"]

Model = Callable[[Images], Logits]
Explainer = Callable[[Images, Labels, NoiseSeeds], Attributions]


@dataclass(frozen=True)
class Samples:
    """Labelled images as they are stored: bytes, so that a data set stays small."""

    images: Tensor  # uint8 [N, C, H, W]
    labels: Labels  # [N]
    masks: Masks  # [N, H, W]
    ids: Tensor  # int64 [N], unique and stable: the position in the source

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> Samples:
        return Samples(self.images[index], self.labels[index], self.masks[index], self.ids[index])

    def to(self, device: str) -> Samples:
        """The same samples on another device."""
        return Samples(*(tensor.to(device) for tensor in (self.images, self.labels, self.masks, self.ids)))

    def pixels(self) -> Images:
        """All images as float32 in [0, 1]."""
        return self.images.to(torch.float32) / 255
