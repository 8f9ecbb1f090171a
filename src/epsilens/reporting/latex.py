"""Tables for LaTeX: booktabs rules, whatever comes from names escaped, values with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epsilens.reporting.formats import Form, number

# What LaTeX would take for a command, or pdfLaTeX's standard fonts lack.
SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": "$|$", "<": "$<$", ">": "$>$", "ε": r"$\varepsilon$",
    "σ": r"$\sigma$", "×": r"$\times$", "−": "$-$", "∞": r"$\infty$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
    "–": "--", "→": r"$\to$", "\N{NO-BREAK SPACE}": "~", "\n": " ",
}  # fmt: skip


class Tex(str):
    """Text that is LaTeX already."""

    __slots__ = ()


@dataclass(frozen=True)
class Table:
    """Groups of rows under one head, a rule between groups; `notes` become comments above the table."""

    head: Sequence[str]
    groups: Sequence[Sequence[Sequence[str]]]
    notes: Sequence[str] = ()


def escape(text: str) -> str:
    """Text as LaTeX prints it; Tex stays as it is."""
    return text if isinstance(text, Tex) else "".join(SPECIAL.get(character, character) for character in text)


def interval(row: Mapping[str, Any] | None, key: str, form: Form = number) -> Tex:
    """A value with its interval small behind it; a dash where there is no row or no value."""
    if row is None or math.isnan(row[key]):
        return Tex("--")
    value, low, high = (escape(form(row[name]).removesuffix(" %")) for name in (key, "low", "high"))
    return Tex(value if math.isnan(row["low"]) else rf"{value} {{\scriptsize ({low}, {high})}}")


def render(table: Table) -> bytes:
    """A tabular environment, to be read with `\\input`: the first column to the left, the others to the right."""
    groups = ["\n".join(_line(row) for row in group) for group in table.groups if group]
    comments = [f"% {' '.join(note.split())}" for note in (r"needs \usepackage{booktabs}", *table.notes)]
    parts = [
        *comments,
        rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}",
        r"\toprule",
        _line(table.head),
        r"\midrule",
        "\n\\midrule\n".join(groups),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return ("\n".join(parts) + "\n").encode()


def _line(cells: Sequence[str]) -> str:
    return " & ".join(map(escape, cells)) + r" \\"
