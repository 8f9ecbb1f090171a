"""Numbers as a reader sees them, in tables, sentences and on figures."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Form = Callable[[float | None], str]

ARROWS = {"higher": "↑", "lower": "↓", None: ""}
DIRECTIONS = {"higher": "↑ higher is better", "lower": "↓ lower is better", None: "no direction is better in itself"}


def number(value: float | None) -> str:
    """Three decimals, more digits where the value is small, a dash for what is undefined."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
    if 0 < abs(value) < 0.01:
        text = f"{value:.2g}"
    return text.replace("-", "−")


def percent(value: float | None) -> str:
    """A share of 1 as per cent with one decimal."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f} %".replace("-", "−")


def short(value: float | None) -> str:
    """Two decimals without the zero before the point, three where two would not show it: `.65`, `−.050`, `1.00`."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:z.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:z.3f}"
    return re.sub(r"^(-?)0\.", r"\1.", text).replace("-", "−")


def whole_percent(value: float | None) -> str:
    """A share of 1 in whole per cent, without the unit."""
    return "–" if value is None or math.isnan(value) else str(round(100 * value)).replace("-", "−")


def points(value: float | None) -> str:
    """A difference of shares in percentage points, without the unit."""
    return percent(value).removesuffix(" %")


def spread(row: Mapping[str, Any], key: str, form: Form = number) -> str:
    """A value with its interval: `0.801 (0.777 to 0.824)`, `12.3 % (11.0 to 13.5)`; one without an interval alone."""
    low, high = row.get("low"), row.get("high")
    if low is None or high is None or math.isnan(low):
        return form(row[key])
    return f"{form(row[key])} ({form(low).removesuffix(' %')} to {form(high).removesuffix(' %')})"


def counted(n: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def better(described: Mapping[str, Any]) -> str:
    """Which way is better, in words."""
    return DIRECTIONS[described.get("better") or None]
