"""Traits: what distinguishes the maps and answers of a robust network before any metric is asked. No quality: neither
direction is better. The confound audit changes a standard network until it has a robust one's trait."""

from __future__ import annotations

import torch

from epsilens.metrics.weights import known
from epsilens.types import Attributions, Logits, Scores


def norm(attributions: Attributions) -> Scores:
    """Euclidean norm of the map, `[N]`; of the gradient of a logit in logits by unit of pixel value."""
    return torch.linalg.vector_norm(attributions.double().flatten(1), dim=1)


def frequency(attributions: Attributions) -> Scores:
    """Mean spatial frequency of the map, weighted by its power, in cycles a pixel, `[N]` in [0, sqrt(1/2)].

    Over the two-dimensional spectrum, the constant part included, all channels together: 0 for a constant map, about 0.38
    for white noise, 1/2 for stripes of one pixel. Free of scale and sign; NaN for an all-zero map.
    """
    maps = known(attributions.double())
    power = torch.fft.fft2(maps).abs().square().sum(dim=1)  # [N, H, W]
    down, across = (torch.fft.fftfreq(size, dtype=power.dtype, device=power.device) for size in maps.shape[2:])
    radius = torch.hypot(down[:, None], across)
    return (power * radius).sum(dim=(1, 2)) / power.sum(dim=(1, 2))


def confidence(logits: Logits) -> Scores:
    """Largest softmax probability, at temperature 1, `[N]` in [1 / classes, 1]."""
    return logits.double().softmax(dim=1).amax(dim=1)


def traits(attributions: Attributions, logits: Logits) -> dict[str, Scores]:
    """All of them, by name."""
    return {"norm": norm(attributions), "frequency": frequency(attributions), "confidence": confidence(logits)}
