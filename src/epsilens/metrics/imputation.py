"""Noisy linear imputation (Rong et al. 2022, arXiv:2202.00449): removed pixels become the weighted mean of their neighbours.

Every removed pixel equals the mean of its up to eight neighbours, direct ones with weight 1/6, diagonal ones with 1/12,
divided by the weights that lie inside the image: one linear system for each image, symmetric and positive definite. It is
solved directly, in float64, by one of two solvers. On a CPU, by Cholesky's factors of a band, image by image: the removed
pixels alone are numbered, row by row, so that the band is about a row wide. On other devices, where one image at a time is
too little work, by block elimination in the rows of the image, batched over images: H steps with W x W blocks.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solveh_banded
from torch import Tensor
from torch.nn import functional as F

DIRECT, DIAGONAL = 1 / 6, 1 / 12
STEPS = np.array([[[0, 1]], [[1, -1]], [[1, 0]], [[1, 1]]])  # down and right, to the neighbours that come later in rows
WEIGHTS = np.array([DIRECT, DIAGONAL, DIRECT, DIAGONAL])
FACTORS = 1 << 30  # bytes that block elimination may hold of factors: 11 images of 224 x 224 at a time, all at 32 x 32


def _neighbours(values: Tensor) -> Tensor:
    """Weighted sum over the eight neighbours, `[..., H, W]`; outside is zero."""
    padded = F.pad(values, (1, 1, 1, 1))
    across = padded[..., :, :-2] + padded[..., :, 2:]  # left and right neighbours, [..., H + 2, W]
    middle = padded[..., :, 1:-1]
    direct = across[..., 1:-1, :] + middle[..., :-2, :] + middle[..., 2:, :]
    return DIRECT * direct + DIAGONAL * (across[..., :-2, :] + across[..., 2:, :])


def impute(images: Tensor, removed: Tensor) -> Tensor:
    """Images `[N, C, H, W]` with the pixels of `removed` (bool `[N, H, W]`) imputed, all channels together, no noise.

    An image of which every pixel is removed becomes its own mean colour.
    """
    values = images.double()
    removed_all = removed.flatten(1).all(dim=1)
    gone = removed & ~removed_all[:, None, None]  # a system without a known pixel is singular
    known = values * ~gone[:, None]
    degree = _neighbours(torch.ones(removed.shape[1:], dtype=torch.float64, device=images.device))
    solve = by_band if images.device.type == "cpu" else by_elimination
    solved = solve(gone, degree, _neighbours(known))
    mean = values.mean(dim=(2, 3), keepdim=True).expand_as(values)
    filled = torch.where(gone[:, None], solved, values)
    return torch.where(removed_all[:, None, None, None], mean, filled).to(images.dtype)


def by_band(gone: Tensor, degree: Tensor, right: Tensor) -> Tensor:
    """Solve image by image, on the CPU. gone: `[N, H, W]`; degree: `[H, W]`; right and result: `[N, C, H, W]`, of which
    only the pixels of `gone` mean anything. Holds the band of one image, at most H * W * (W + 2) numbers."""
    solved = right.clone()
    border = 1, 1, 0, 1  # nothing wraps around
    bordered, ties, row = F.pad(gone, border).flatten(1), F.pad(degree, border).flatten(), degree.shape[1] + 2
    for pixels, flat, values in zip(gone.numpy(), bordered.numpy(), solved.numpy(), strict=True):
        places = flat.nonzero()[0]
        if len(places):
            band = _band(places, ties.numpy(), row)
            found = solveh_banded(
                band.T, values[:, pixels].T, lower=True, overwrite_ab=True, overwrite_b=True, check_finite=False
            )
            values[:, pixels] = found.T
    return solved


def _band(places: NDArray[np.int64], degree: NDArray[np.float64], row: int) -> NDArray[np.float64]:
    """The system of one image: in row i, what ties the i-th removed pixel to itself and to those that follow it.

    places: of the removed pixels in the bordered image, whose rows have `row` pixels; degree: of all its pixels.
    """
    number = np.full(len(degree), -1)
    number[places] = np.arange(len(places))
    follow = number[places + STEPS @ np.array([row, 1])]  # [4, removed pixels]
    which, first = (follow >= 0).nonzero()
    apart = follow[which, first] - first
    band = np.zeros((len(places), apart.max(initial=0) + 1))
    band[:, 0] = degree[places]
    band[first, apart] = -WEIGHTS[which]
    return band


def by_elimination(gone: Tensor, degree: Tensor, right: Tensor) -> Tensor:
    """Solve row by row, batched over images, on any device; arguments and result as of by_band. Holds at most `FACTORS`
    bytes of factors, but those of one image in any case."""
    height, width = degree.shape
    together = max(1, FACTORS // (8 * height * width * width))
    parts = zip(gone.split(together), right.split(together), strict=True)
    solved = [_eliminate(part, degree, values.permute(2, 0, 3, 1)).permute(1, 3, 0, 2) for part, values in parts]
    return torch.cat(solved)


def _eliminate(gone: Tensor, degree: Tensor, right: Tensor) -> Tensor:
    """Solve row by row. gone: [N, H, W]; degree: [H, W]; right and result: [H, N, W, C].

    Known pixels have an equation of their own, tied to no other and not looked at, so that all blocks have one size.
    Only the factors are kept, H of [N, W, W]; the blocks beside them cost less to make again than to hold.
    """
    height, width = degree.shape
    identity = torch.eye(width, dtype=torch.float64, device=gone.device)
    beside = torch.diag(identity.new_ones(width - 1), 1)
    beside = DIRECT * (beside + beside.T)
    below = DIRECT * identity + DIAGONAL / DIRECT * beside
    unknown = gone.double()

    def coupling(row: int, other: int, weights: Tensor) -> Tensor:
        return unknown[:, row, :, None] * unknown[:, other, None, :] * weights  # [N, W, W]

    factors: list[Tensor] = []
    rights: list[Tensor] = []
    for row in range(height):
        diagonal = torch.where(gone[:, row], degree[row], 1.0)
        block, value = torch.diag_embed(diagonal) - coupling(row, row, beside), right[row]
        if row:
            upper = coupling(row - 1, row, below)
            block = block - upper.mT @ torch.cholesky_solve(upper, factors[-1])
            value = value + upper.mT @ torch.cholesky_solve(rights[-1], factors[-1])
        factors.append(torch.linalg.cholesky(block))
        rights.append(value)
    solution = [torch.cholesky_solve(rights[-1], factors[-1])]
    for row in range(height - 2, -1, -1):
        rest = rights[row] + coupling(row, row + 1, below) @ solution[-1]
        solution.append(torch.cholesky_solve(rest, factors[row]))
    return torch.stack(solution[::-1])
