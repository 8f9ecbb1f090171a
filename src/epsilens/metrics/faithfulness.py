"""Faithfulness: whether the pixels that an explanation ranks high carry the prediction."""

from __future__ import annotations

from torch import Tensor

from epsilens.types import Scores


def road_gap(least_first: Tensor, most_first: Tensor) -> Scores:
    """ROAD (Rong et al. 2022, arXiv:2202.00449) as one number, `[N]` in [-1, 1].

    least_first, most_first: `[Q, N]`, 1 where the prediction is still the clean one after the least (most) relevant share q
    of the pixels was imputed, 0 where not, NaN where that is undefined. The score is the mean over q of the difference: 1
    when the least relevant pixels never matter and the most relevant always do, 0 for a ranking without information. The
    reference is the network's own clean prediction, so that the score means the same on wrongly classified images.
    """
    return (least_first - most_first).mean(dim=0)
