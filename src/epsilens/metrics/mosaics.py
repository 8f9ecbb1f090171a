"""Mosaics of 2 x 2 images of four classes, for mosaic_focus: where does an explanation of one class look for it?"""

from __future__ import annotations

import torch
from torch import Tensor

from epsilens.randomness import generator
from epsilens.types import Images, Labels, NoiseSeeds

CELLS = 4


def partners(targets: Labels, seeds: NoiseSeeds) -> Tensor:
    """Three other images for each, so that all four are of different classes, `[N, 3]` on the CPU; -1 without such three.

    Drawn from each image's seed among all images, in the order of their seeds: the same whatever order they come in.
    """
    found = torch.full((len(targets), CELLS - 1), -1)
    ordered = seeds.argsort()
    classes = targets.cpu()[ordered]
    if classes.unique().numel() < CELLS:
        return found
    for row, (target, seed) in enumerate(zip(targets.tolist(), seeds.tolist(), strict=True)):
        drawn = torch.randperm(len(ordered), generator=generator(seed, "mosaic"))
        free = classes[drawn] != target
        for place in range(CELLS - 1):
            first = drawn[free.byte().argmax()]
            found[row, place] = ordered[first]
            free &= classes[drawn] != classes[first]
    return found


def cells(seeds: NoiseSeeds) -> Tensor:
    """The cell of the image that is explained, int64 `[N]` on the CPU: drawn, so that no corner is preferred."""
    return torch.tensor(
        [int(torch.randint(CELLS, (), generator=generator(int(seed), "cell"))) for seed in seeds], dtype=torch.int64
    )


def tiled(images: Images, others: Tensor, places: Tensor) -> Images:
    """Mosaics `[N, C, 2H, 2W]` with the image in its cell and the others `[N, 3, C, H, W]` after it, around the corner."""
    count, channels, height, width = images.shape
    four = torch.cat([images[:, None], others], dim=1)
    turned = (torch.arange(CELLS, device=images.device) - places[:, None]) % CELLS
    placed = four[torch.arange(count, device=images.device)[:, None], turned].view(count, 2, 2, channels, height, width)
    return placed.permute(0, 3, 1, 4, 2, 5).reshape(count, channels, 2 * height, 2 * width)
