"""Random crop and flip of a whole batch, as one gather."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(images: Tensor, *, crop: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Each image `[N, C, H, W]` shifted by up to `crop` pixels (zeros come in), and mirrored with probability 1/2.

    The result is a new tensor of the same type, in channels_last layout. The draws depend on the generator alone: the
    same number of them is made whatever is switched on.
    """
    count, _, height, width = images.shape
    shift = torch.randint(0, 2 * crop + 1, (2, count, 1), generator=generator).to(images.device)
    mirror = (torch.rand(count, 1, generator=generator) < 0.5).to(images.device) & flip
    rows = torch.arange(height, device=images.device) + shift[0]  # [N, H]
    columns = torch.arange(width, device=images.device) + shift[1]  # [N, W]
    columns = torch.where(mirror, columns.flip(1), columns)
    padded = F.pad(images, (crop, crop, crop, crop)).permute(0, 2, 3, 1)  # [N, H, W, C]
    picked = padded[torch.arange(count, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)
