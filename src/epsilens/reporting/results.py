"""Tables of recorded studies for a page in Markdown, such as docs/results.md.

A table stands between `<!-- table: NAME STUDIES... -->` and `<!-- end -->`; NAME is one of `TABLES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from epsilens.errors import ConfigError
from epsilens.reporting.formats import short, spread, whole_percent
from epsilens.reporting.gate import ENSEMBLES, Row, is_masked
from epsilens.reporting.recorded import Record
from epsilens.reporting.style import attack_name
from epsilens.reporting.tables import at_headline, select

BLOCK = re.compile(
    r"(?P<start><!-- table: (?P<name>[\w-]+)(?P<studies>(?: [\w-]+)+) -->\n)(?:(?!<!-- ).)*(?P<end><!-- end -->)",
    re.DOTALL,
)
KINDS = ("scale", "blur", "temperature")  # of changes to the maps, in the confound audit
SCOPES = ("training", "these networks")
VERDICTS = ("supported", "contradicted", "undecided")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def cell(rows: Mapping[float, Row], key: str, epsilon: float) -> str:
    """The value of a column at an epsilon, with its interval."""
    row = rows.get(epsilon)
    return spread(row, key, short) if row else "–"


def by_epsilon(head: Sequence[str], columns: Sequence[Mapping[float, Row]], key: str) -> str:
    """A row a training epsilon, of columns that hold their rows by epsilon."""
    epsilons = sorted({epsilon for column in columns for epsilon in column})
    rows = ([f"{epsilon:g}", *(cell(column, key, epsilon) for column in columns)] for epsilon in epsilons)
    return table(["training ε", *head], rows)


def studies(records: Sequence[Record]) -> str:
    """What was run: networks, images, and on what."""
    counts = ("seeds", "left out by the gate", "PGD", "AutoAttack", "explained", "right for all")
    return table(("study", "training ε", *counts, "processor"), (_studied(record) for record in records))


def _studied(record: Record) -> list[str]:
    networks = record.rows("networks", attack="clean", split="test")
    epsilons = sorted({row["epsilon"] for row in networks})
    seeds = [str(len(select(networks, epsilon=epsilon))) for epsilon in epsilons]
    masked = [row for row in networks if is_masked(row)]
    left_out = len(masked) if len(masked) < len(networks) else 0  # where none passed, all are shown
    scored = record.rows("quality", attribution=record.headline, metric=record.metrics[0])
    return [
        f"[{record.study}](../metrics/{record.study})",
        f"{', '.join(f'{epsilon:g}' for epsilon in epsilons)} {'/255' if record.norm == 'linf' else '(L2)'}",
        ", ".join(seeds) if len(set(seeds)) > 1 else seeds[0],
        f"{left_out} of {len(networks)}",
        *(_most(record.rows("networks"), "n_images", attack) for attack in (("pgd",), ENSEMBLES)),
        *(_most(scored, "n", (name,), "set") for name in ("all", "common")),
        _processor(record.about),
    ]


def _most(rows: Sequence[Row], key: str, names: Sequence[str], column: str = "attack") -> str:
    found = [row[key] for row in rows if row[column] in names]
    return f"{max(found):g}" if found else "–"


def _processor(about: Mapping[str, Any]) -> str:
    machines = [part["machine"] for part in about["parts"].values()] if "parts" in about else [about["machine"]]
    return ", ".join(sorted({machine.get("instructions", machine["architecture"]) for machine in machines}))


def accuracy(records: Sequence[Record]) -> str:
    """Accuracy by training epsilon: clean, and under each attack at the headline budget."""
    (record,) = records
    rows = at_headline(record.rows("accuracy"), norm=record.norm, budget=record.params["attack"]["epsilon"])
    kinds = list(dict.fromkeys((row["attack"], row["split"]) for row in rows))
    columns = [{row["epsilon"]: row for row in select(rows, attack=kind, split=split)} for kind, split in kinds]
    return by_epsilon([_tried(record, kind, split) for kind, split in kinds], columns, "accuracy")


def _tried(record: Record, attack: str, split: str) -> str:
    names = {"clean": "clean", "pgd": f"PGD-{record.params['attack']['steps']}"}
    name = names.get(attack, attack_name(attack))
    return name if split == "test" else f"{name}, {split.replace('_', ' ')}"


def quality(records: Sequence[Record]) -> str:
    """The headline metrics of the headline method by training epsilon."""
    (record,) = records
    columns = [record.quality(record.headline, metric) for metric in record.metrics]
    return by_epsilon([record.labels[name] for name in record.metrics], columns, "mean")


def by_method(records: Sequence[Record], metric: str) -> str:
    """One metric of all methods by training epsilon."""
    (record,) = records
    found = {name: record.quality(name, metric) for name in record.params["attribute"]["methods"]}
    epsilons = sorted({epsilon for rows in found.values() for epsilon in rows})
    rows = ([name, *(cell(rows, "mean", epsilon) for epsilon in epsilons)] for name, rows in found.items() if rows)
    return table(["method or control", *(f"ε = {epsilon:g}" for epsilon in epsilons)], rows)


def ends(records: Sequence[Record]) -> str:
    """The headline metrics of all methods at the smallest and at the largest training epsilon, without intervals."""
    (record,) = records
    names = record.params["attribute"]["methods"]
    rows = (
        [
            name,
            *(_ends({e: row["mean"] for e, row in record.quality(name, metric).items()}) for metric in record.metrics),
        ]
        for name in names
    )
    return table(["method or control", *(record.labels[name] for name in record.metrics)], rows)


def _ends(means: Mapping[float, float]) -> str:
    found = dict.fromkeys((min(means), max(means))) if means else ()
    return " → ".join(short(means[epsilon]) for epsilon in found) or "–"


def changes(records: Sequence[Record]) -> str:
    """By study, the headline method at the smallest and at the largest training epsilon, by all networks and images."""
    metrics = records[0].metrics
    rows = ([record.study, *(_ends(record.means(record.headline, name)) for name in metrics)] for record in records)
    return table(["study", *(records[0].labels[name] for name in metrics)], rows)


def claims(records: Sequence[Record]) -> str:
    """Each claim of the headline method: estimate, interval, and the verdict of training / of these networks."""
    keys = dict.fromkeys(
        (row["claim"], _gain(record, row)) for record in records for row in record.claims(headline=True)
    )
    rows = ([": ".join(filter(None, key)), *(_verdict(record, *key) for record in records)] for key in keys)
    return table(["claim", *(record.study for record in records)], rows)


def _gain(record: Record, row: Row) -> str:
    """Which of the two gains a share is of; nothing for a claim that is judged once."""
    plausible = record.params["report"]["plausible"]
    roles = {plausible[name]: name for name in ("conciseness", "stability")}
    return roles.get(row["metric"], "") if row["claim"] == "modest training helps" else ""


def _verdict(record: Record, claim: str, gain: str) -> str:
    found = [row for row in record.claims(headline=True, claim=claim) if _gain(record, row) == gain]
    if not found:
        return "–"
    row = next((row for row in select(found, scope=SCOPES[0]) if row["interval"][0] is not None), found[-1])
    verdicts = [each["verdict"] for scope in SCOPES for each in select(found, scope=scope)]
    low, high = row["interval"]
    return f"{spread({**row, 'low': low, 'high': high}, 'estimate', short)}: {' / '.join(verdicts)}"


def methods(records: Sequence[Record]) -> str:
    """By claim, of how many methods (no controls) these networks support, contradict and leave open."""
    names = dict.fromkeys(row["claim"] for record in records for row in record.claims() if row["attribution"])
    rows = ([name, *(_counts(record, name) for record in records)] for name in names)
    return table(["claim", *(record.study for record in records)], rows)


def _counts(record: Record, claim: str) -> str:
    rows = sorted(record.claims(claim=claim), key=lambda row: SCOPES.index(row["scope"]))
    last = {(row["attribution"], row["metric"]): row["verdict"] for row in rows}  # of training where there is no other
    return " / ".join(str(list(last.values()).count(verdict)) for verdict in VERDICTS)


def audit(records: Sequence[Record]) -> str:
    """Of the change of each headline metric at the largest epsilon, the share that a mere change of the maps makes."""
    rows = (
        [record.study, record.labels[metric], *(_reproduced(record, metric, kind) for kind in KINDS)]
        for record in records
        for metric in record.metrics
    )
    return table(("study", "metric", *KINDS), rows)


def _reproduced(record: Record, metric: str, kind: str) -> str:
    found = record.rows("audit", attribution=record.headline, metric=metric, kind=kind)
    if not found:
        return "–"
    row = max(found, key=lambda row: row["epsilon"])
    return spread(row, "reproduced", whole_percent)


def plausible(records: Sequence[Record]) -> str:
    """By training epsilon, of the headline method: how many maps look plausible, how many mislead of these, and of all."""
    (record,) = records
    rows = record.rows("plausible", attribution=record.headline, set="all")
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    columns = [{row["epsilon"]: row for row in select(rows, measure=measure)} for measure in measures]
    return by_epsilon(measures, columns, "mean")


TABLES: dict[str, Callable[[Sequence[Record]], str]] = {
    "studies": studies,
    "accuracy": accuracy,
    "quality": quality,
    "ends": ends,
    "changes": changes,
    "claims": claims,
    "methods": methods,
    "audit": audit,
    "plausible": plausible,
    "gini-by-method": lambda records: by_method(records, "gini"),
}


def filled(text: str, labels: Mapping[str, str], root: Path = Path()) -> str:
    """A page with its tables written anew; labels: what a reader calls each metric.

    Raises ConfigError for a table that is not known, DataError without a record.
    """

    def block(match: re.Match[str]) -> str:
        if match["name"] not in TABLES:
            raise ConfigError(f"table: found {match['name']!r}, known are {', '.join(TABLES)}")
        records = [Record(root, study, labels) for study in match["studies"].split()]
        return match["start"] + TABLES[match["name"]](records) + match["end"]

    if len(BLOCK.findall(text)) != text.count("<!-- table:"):
        raise ConfigError(
            "table: expected `<!-- table: NAME STUDIES... -->`, a table, and `<!-- end -->`; one is not whole"
        )
    return BLOCK.sub(block, text)
