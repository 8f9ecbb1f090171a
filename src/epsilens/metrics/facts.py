"""What an entry of the registry says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from epsilens.types import Scores

Family = Literal["conciseness", "stability", "relevance", "faithfulness", "sanity", "alignment"]
Change = Literal["own scale", "common scale", "sign", "logit scale", "logit shift", "other images"]


@dataclass(frozen=True)
class Facts:
    """What a reader of the number must know.

    better: None where neither direction is. chance: the score of a map that knows nothing, where there is one.
    """

    label: str
    family: Family
    better: Literal["higher", "lower"] | None
    low: float
    high: float
    chance: float | None
    source: str


@dataclass(frozen=True)
class Metric:
    """needs: the adapter that hands `compute` its tensors.

    varies: the changes that the score does not survive. All others it survives (tests/contract holds both): a factor for
    each map of its own, one factor for all maps of a method, the sign of the map, scale and shift of the logits, other
    images in the evaluation set. Batch size and order never matter.
    classes: how many the data must have at least, or no image has a score.
    """

    compute: Callable[..., Scores]
    needs: Callable[..., Scores]
    facts: Facts
    varies: frozenset[Change] = frozenset()
    classes: int = 1
