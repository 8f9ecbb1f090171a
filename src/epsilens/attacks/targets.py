"""Attacks towards other classes, the most likely ones first."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from epsilens.attacks.losses import margins
from epsilens.types import Images, Labels, Model

Targeted = Callable[[Tensor, Labels, int], tuple[Images, Tensor]]  # rows, their targets, rank -> images, margins


@torch.no_grad()
def in_turn(attack: Targeted, predict: Model, images: Images, labels: Labels, targets: int) -> tuple[Images, Tensor]:
    """`attack` towards the `targets` most likely other classes (at most all of them), each time on the images that are still
    correct: (images, margins [N]), for each image those of the smallest margin."""
    logits = predict(images)
    worst, lowest = images.clone(), margins(logits, labels)
    others = logits.scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True)[:, :-1]  # [N, K - 1]
    for rank in range(min(targets, others.shape[1])):
        rows = (lowest > 0).nonzero().flatten()
        if not len(rows):
            break
        found, margin = attack(rows, others[rows, rank], rank)
        lower = margin < lowest[rows]
        worst[rows[lower]], lowest[rows[lower]] = found[lower], margin[lower]
    return worst, lowest
