"""Several tests at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values (1979, jstor:4615733), [K], in [0, 1], in the order given.

    Rejecting where they are at most alpha keeps the chance of any false rejection in the family at alpha, however the
    tests depend on each other. A NaN (no test could be made) stays NaN and does not count.
    """
    found = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(np.asarray(p)[known], kind="stable")]
    steps = np.asarray(p)[order] * np.arange(len(order), 0, -1)
    found[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return found


def reachable(smallest_p: Sequence[float], alpha: float) -> np.ndarray:
    """Whether any data at all could make each test of a family significant after Holm's correction, bool [K].

    Where it is False the answer is "cannot be concluded at this size".
    """
    return holm(smallest_p) <= alpha
