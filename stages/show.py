"""The experiments in one narrow table: `dvc exp show` with the parameters that differ first, then a column a metric.

`standard -> robust` stand in one column: the networks trained at the smallest epsilon and at the largest.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Mapping, Sequence

from stages.common import run
from stages.forecast import dvc

KEPT_BACK = ".*/|models|Executor|Created"  # columns of files, and two that are wide
FACTS = ("Experiment", "rev", "typ", "parent", "State")  # DVC's own columns
ENDS = ("standard", "robust")
WIDEST = 24  # characters of a parameter's value

Row = Mapping[str, str]


def table(rows: Sequence[Row]) -> str:
    """rows: those of `dvc exp show --csv`, column name -> text. Lines of at most the table's own width."""
    columns = [name for name in rows[0] if name not in FACTS]
    metrics = list(dict.fromkeys(name.rpartition(".")[0] for name in columns if name.rpartition(".")[2] in ENDS))
    settings = [
        name
        for name in columns
        if name.rpartition(".")[2] not in ENDS and len({row[name] for row in rows if filled(row)}) > 1
    ]
    heads = [["experiment"], *(leaf(name, settings).split(".") for name in settings)]
    heads += [name.split("_") for name in sorted(metrics)]
    body = [
        [named(row), *(shortened(row[name]) for name in settings), *(pair(row, name) for name in sorted(metrics))]
        for row in rows
    ]
    height = max(map(len, heads))
    top = [[head[line] if line < len(head) else "" for head in heads] for line in range(height)]
    widths = [max(map(len, column)) for column in zip(*top, *body, strict=True)]
    rule = ["-" * width for width in widths]
    lines = [*top, rule, *body]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def filled(row: Row) -> bool:
    """Whether DVC knows anything of it: one that failed has neither parameters nor metrics."""
    return any(value for name, value in row.items() if name not in FACTS)


def leaf(name: str, others: Sequence[str]) -> str:
    """The last word of a parameter's path, or as many as set it off from the other parameters shown."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        short = ".".join(parts[-count:])
        if sum(f".{other}".endswith(f".{short}") for other in others) == 1:
            return short
    return name


def named(row: Row) -> str:
    """What it is called; experiments are set in under the commit from which they start."""
    name = row["Experiment"] or row["rev"]
    state = row.get("State", "").lower()
    text = name if row["typ"] == "baseline" else f"  {name}"
    return f"{text} ({state})" if state not in ("", "success") else text


def pair(row: Row, metric: str) -> str:
    """`.989 → .377`; a dash where there is none."""
    values = [row.get(f"{metric}.{end}", "") for end in ENDS]
    return " → ".join(map(number, values)) if any(values) else "–"


def number(text: str) -> str:
    """Three digits after the point, and none before it where that is 0."""
    return f"{float(text):.3f}".replace("0.", ".", 1) if text and abs(float(text)) < 1 else text[:6] or "–"


def shortened(text: str) -> str:
    """A parameter's value as far as there is room."""
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sort", metavar="COLUMN", help="such as clean.robust, or a parameter; the largest first")
    sort = parser.parse_args().sort
    order = f" --sort-by {sort} --sort-order desc" if sort else ""
    (answer,) = dvc(f"exp show --csv --drop {KEPT_BACK}{order}")
    print("networks at the smallest training ε → at the largest\n")
    print(table(list(csv.DictReader(io.StringIO(answer)))))


if __name__ == "__main__":
    run(main)
