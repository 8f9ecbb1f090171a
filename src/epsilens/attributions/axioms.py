"""Completeness: attributions from a baseline should sum to what the logit gains on the way from it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from epsilens.attributions.modes import borrowed
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
    errors = [maps.new_empty(0, dtype=torch.float64)]
    with borrowed(network), torch.no_grad():
        for x, target, part in zip(*(whole.split(batch_size) for whole in (images, targets, maps)), strict=True):
            gains = network(x).double() - network(baseline(x)).double()
            gain = gains.gather(1, target[:, None])[:, 0]
            errors.append((part.double().sum(dim=(1, 2, 3)) - gain).abs() / gain.abs())
    return torch.cat(errors)


def verdict(name: str, errors: Scores) -> str:
    """A line about one method's errors; a warning if an image's is above `TOLERATED`."""
    above = int((errors > TOLERATED).sum())
    measured = f"{name}: completeness error {float(errors.nanmedian()):.2%} in the median"
    if not above:
        return measured
    return f"warning: {measured}, above {TOLERATED:.0%} on {above} of {len(errors)} images; more steps lower it"
