"""Noise that depends on the study's seed and the image alone: never on device, batch size, order or batch mates."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from epsilens.types import NoiseSeeds


def derive(seed: int, *key: object) -> int:
    """A 63-bit seed from a seed and a key: a different key gives an unrelated stream."""
    digest = hashlib.sha256(repr((seed, *key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *key: object) -> torch.Generator:
    """A CPU generator for `derive(seed, *key)`."""
    return torch.Generator().manual_seed(derive(seed, *key))


def noise_seeds(seed: int, ids: Tensor) -> NoiseSeeds:
    """One noise seed for each image id."""
    return torch.tensor([derive(seed, int(i)) for i in ids], dtype=torch.int64)


def per_image(draw: Callable[..., Tensor], shape: tuple[int, ...], seeds: NoiseSeeds, *key: object) -> Tensor:
    """Noise `[N, *shape]` (float32, CPU), row n drawn by `draw` (torch.rand, torch.randn) from `seeds[n]` and the key."""
    if not len(seeds):
        return torch.empty(0, *shape)
    return torch.stack([draw(shape, generator=generator(int(seed), *key)) for seed in seeds])
