"""Noisy linear imputation (Rong et al. 2022, arXiv:2202.00449): removed pixels become the weighted mean of their neighbours.

Every removed pixel equals the mean of its up to eight neighbours, direct ones with weight 1/6, diagonal ones with 1/12,
divided by the weights that lie inside the image: one linear system for each image. It is symmetric and block tridiagonal
in the rows of the image, and is solved directly by block elimination, batched over images: H steps with W x W blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

DIRECT, DIAGONAL = 1 / 6, 1 / 12


def _neighbours(values: Tensor) -> Tensor:
    """Weighted sum over the eight neighbours, `[..., H, W]`; outside is zero."""
    padded = F.pad(values, (1, 1, 1, 1))
    across = padded[..., :, :-2] + padded[..., :, 2:]  # left and right neighbours, [..., H + 2, W]
    middle = padded[..., :, 1:-1]
    direct = across[..., 1:-1, :] + middle[..., :-2, :] + middle[..., 2:, :]
    return DIRECT * direct + DIAGONAL * (across[..., :-2, :] + across[..., 2:, :])


def impute(images: Tensor, removed: Tensor) -> Tensor:
    """Images `[N, C, H, W]` with the pixels of `removed` (bool `[N, H, W]`) imputed, all channels together, no noise.

    Solved in float64. An image of which every pixel is removed becomes its own mean colour.
    """
    values = images.double()
    removed_all = removed.flatten(1).all(dim=1)
    gone = removed & ~removed_all[:, None, None]  # a system without a known pixel is singular
    known = values * ~gone[:, None]
    degree = _neighbours(torch.ones(removed.shape[1:], dtype=torch.float64, device=images.device))
    solved = _eliminate(gone, degree, _neighbours(known).permute(2, 0, 3, 1)).permute(1, 3, 0, 2)
    mean = values.mean(dim=(2, 3), keepdim=True).expand_as(values)
    filled = torch.where(gone[:, None], solved, values)
    return torch.where(removed_all[:, None, None, None], mean, filled).to(images.dtype)


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
