"""What the page shows of the long tables, in a reader's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from epsilens.reporting.gate import Row

Facts = Mapping[str, Any]


def recommendation(rows: Sequence[Row], facts: Facts) -> list[Row]:
    """One row a metric and training epsilon: what is gained for what, the front, its knee, the choice. One epsilon alone
    has no rows."""
    if len({row["epsilon"] for row in rows}) < 2:
        return []
    return [
        {
            "metric": _metric(row["metric"], facts),
            "training ε": row["epsilon"],
            "clean accuracy": row["accuracy"],
            "accuracy lost": row["loss"],
            "quality": row["quality"],
            "quality gained": row["gain"],
            "on the front": _share(row["front"], row["front_share"]),
            "knee": _share(row["knee"], row["knee_share"]),
            "recommended": "–" if row["recommended"] is None else _share(row["recommended"], row["recommended_share"]),
        }
        for row in rows
    ]


def plausible(rows: Sequence[Row], facts: Facts) -> list[Row]:
    """One row a method, measure, set of predictions and training epsilon."""
    return [
        {
            "attribution": str(facts["attributions"][row["attribution"]]["label"]),
            "measure": row["measure"],
            "predictions": row["set"],
            "training ε": row["epsilon"],
            "value": row["mean"],
            "interval": [row["low"], row["high"]],
            "maps": row["maps"],
        }
        for row in rows
    ]


def audit(rows: Sequence[Row], facts: Facts) -> list[Row]:
    """One row a metric, change and training epsilon: how much of the metric's change comes with it."""
    return [
        {
            "metric": _metric(row["metric"], facts),
            "change of the standard network": f"{row['kind']} by {row['amount']:g}",
            "training ε": row["epsilon"],
            "standard": row["standard"],
            "trained": row["mean"],
            "standard, changed": row["transformed"],
            "reproduced": row["reproduced"],
            "interval": [row["low"], row["high"]],
            "why not": row["reason"],
        }
        for row in rows
    ]


def _metric(name: str, facts: Facts) -> str:
    return str(facts["metrics"][name]["label"]) if name in facts["metrics"] else name


def _share(holds: bool, share: float) -> str:
    return f"{'yes' if holds else 'no'} ({100 * share:.0f} % of resamples)"
