"""Random crop and flip of a whole batch, as one gather on the device where the images are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(images: Tensor, *, crop: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Each image `[N, C, H, W]` shifted by up to `crop` pixels (zeros come in), and mirrored with probability 1/2.

    The result is a new tensor of the same type, in channels_last layout. The draws depend on the generator alone (on the
    device of the images): the same number of them is made whatever is switched on.
    """
    count, _, height, width = images.shape
    device = images.device
    shift = torch.randint(0, 2 * crop + 1, (2, count, 1), generator=generator, device=device)
    mirror = (torch.rand(count, 1, generator=generator, device=device) < 0.5) & flip
    rows = torch.arange(height, device=device) + shift[0]  # [N, H]
    columns = torch.arange(width, device=device) + shift[1]  # [N, W]
    columns = torch.where(mirror, columns.flip(1), columns)
    padded = F.pad(images, (crop, crop, crop, crop)).permute(0, 2, 3, 1)  # [N, H, W, C]
    picked = padded[torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)
