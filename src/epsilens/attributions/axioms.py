"""Completeness: attributions from a baseline should sum to what the logit gains on the way from it."""

from __future__ import annotations

import torch
from torch import nn

from epsilens.attributions.modes import borrowed
from epsilens.types import Attributions, Images, Labels, Scores

TOLERATED = 0.05  # relative error above which more steps are asked for


@torch.no_grad()
def completeness_error(
    network: nn.Module, images: Images, baselines: Images, targets: Labels, maps: Attributions, batch_size: int
) -> Scores:
    """|Σ g - gain| / |gain| with gain = h(x) - h(baseline) of the target's logit, one number an image.

    Where the logit does not move: infinite if the map does not sum to 0, else NaN. A logit that hardly moves makes it
    large, whatever the map is worth.
    """
    gains = []
    with borrowed(network), torch.no_grad():
        for x, start, target in zip(*(part.split(batch_size) for part in (images, baselines, targets)), strict=True):
            gains.append((network(x).double() - network(start).double()).gather(1, target[:, None])[:, 0])
    gain = torch.cat(gains) if gains else maps.new_zeros(0).double()
    return (maps.double().sum(dim=(1, 2, 3)) - gain).abs() / gain.abs()


def verdict(name: str, errors: Scores) -> str:
    """A line about one method's errors; a warning if an image's is above `TOLERATED`."""
    above = int((errors > TOLERATED).sum())
    measured = f"{name}: completeness error {float(errors.nanmedian()):.2%} in the median"
    if not above:
        return measured
    return f"warning: {measured}, above {TOLERATED:.0%} on {above} of {len(errors)} images; more steps lower it"
