"""Completeness: attributions from a baseline should sum to what the logit gains on the way from it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from epsilens.attributions.modes import borrowed
from epsilens.batches import Batches
from epsilens.types import Attributions, Images, Labels, Scores

TOLERATED = 0.05  # relative error above which more steps are asked for


def completeness_error(
    network: nn.Module,
    images: Images,
    baseline: Callable[[Images], Images],
    targets: Labels,
    maps: Attributions,
    batch_size: int,
) -> Scores:
    """|Σ g - gain| / |gain| with gain = h(x) - h(baseline(x)) of the target's logit, one number an image.

    Where the logit does not move: infinite if the map does not sum to 0, else NaN. A logit that hardly moves makes it
    large, whatever the map is worth.
    """

    def compute(part: slice) -> Scores:
        gains = network(images[part]).double() - network(baseline(images[part])).double()
        gain = gains.gather(1, targets[part, None])[:, 0]
        return (maps[part].double().sum(dim=(1, 2, 3)) - gain).abs() / gain.abs()

    with borrowed(network), torch.no_grad():
        errors = [found for _, found in Batches(batch_size).of(compute, len(images))]
    return torch.cat([maps.new_empty(0, dtype=torch.float64), *errors])


def verdict(name: str, errors: Scores) -> str:
    """A line about one method's errors; a warning if an image's is above `TOLERATED`."""
    above = int((errors > TOLERATED).sum())
    measured = f"{name}: completeness error {float(errors.nanmedian()):.2%} in the median"
    if not above:
        return measured
    return f"warning: {measured}, above {TOLERATED:.0%} on {above} of {len(errors)} images; more steps lower it"
