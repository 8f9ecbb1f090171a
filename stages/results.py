"""Write the tables of docs/results.md and README.md anew, from what the studies have recorded under metrics/.

    python -m stages.results            # in seconds; a test holds the pages against it

A table stands between `<!-- table: NAME STUDIES... -->` and `<!-- end -->`; NAME is one of `TABLES`. No model is read.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from epsilens import artifacts, config
from epsilens.attributions import METHODS
from epsilens.errors import ConfigError, DataError
from epsilens.metrics import METRICS
from epsilens.reporting.formats import number
from epsilens.reporting.style import attack_name
from stages.common import run

PAGES = ("README.md", "docs/results.md")
BLOCK = re.compile(
    r"(?P<start><!-- table: (?P<name>[\w-]+)(?P<studies>(?: \w+)*) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)
KINDS = ("scale", "blur", "temperature")  # of changes to the maps, in the confound audit
SCOPES = ("training", "these networks")


class Record:
    """What `make record` or `make merge` has kept of one study."""

    def __init__(self, root: Path, study: str) -> None:
        self.study, self.folder = study, root / artifacts.METRICS / study
        if not (self.folder / "provenance.json").is_file():
            raise DataError(f"{self.folder}: holds no recorded study")
        self.params: dict[str, Any] = config.read(self.folder / config.PARAMS)
        self.about: dict[str, Any] = artifacts.read_json(self.folder / "provenance.json")

    def rows(self, table: str, **where: Any) -> pd.DataFrame:
        """Those rows of a table that have these values."""
        path = self.folder / f"{table}.csv"
        if not path.read_bytes().strip():  # a table of no rows has no columns either
            return pd.DataFrame(columns=list(where))
        found = pd.read_csv(path)
        for column, value in where.items():
            found = found[found[column] == value]
        return found

    def claims(self, **where: Any) -> list[dict[str, Any]]:
        """The verdicts, in the order of the record."""
        found = artifacts.read_json(self.folder / "claims.json")
        return [row for row in found if all(row[key] == value for key, value in where.items())]

    def quality(self, attribution: str, metric: str) -> pd.DataFrame:
        """Mean and interval of a metric by epsilon, on the images that all networks get right."""
        return self.rows("quality", set="common", attribution=attribution, metric=metric).set_index("epsilon")

    @property
    def headline(self) -> str:
        return self.params["report"]["attribution"]


def short(value: float) -> str:
    """Two decimals without the zero before the point, three where two would not show it."""
    text = f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3f}"
    return re.sub(r"^(-?)0\.", r"\1.", text).replace("-", "−")


def spread(value: float, low: float | None, high: float | None) -> str:
    """`.80 (.78 to .83)`; without an interval the value alone, a dash for what is undefined."""
    if pd.isna(value):
        return "–"
    return short(value) if low is None or pd.isna(low) else f"{short(value)} ({short(low)} to {short(high or 0.0)})"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def studies(records: Sequence[Record]) -> str:
    """What was run: networks, images, and on what."""
    head = (
        "study",
        "training ε",
        "seeds",
        "left out by the gate",
        "attacked",
        "explained",
        "of these all right",
        "processor",
    )
    return table(head, (_studied(record) for record in records))


def _studied(record: Record) -> list[str]:
    networks = record.rows("networks", attack="clean", split="test").drop_duplicates(["epsilon", "seed"])
    attacked = record.rows("networks", attack="pgd")["n_images"].max()
    quality = record.rows("quality", attribution=record.headline, metric=record.params["report"]["metrics"][0])
    sizes = quality.groupby("set")["n"].max()
    return [
        f"[{record.study}](../metrics/{record.study})",
        ", ".join(f"{value:g}" for value in sorted(networks["epsilon"].unique()))
        + (" /255" if record.params["threat"]["norm"] == "linf" else " (L2)"),
        str(networks["seed"].nunique()),
        f"{(networks['gate'] != 'sound').sum()} of {len(networks)}",
        f"{attacked:g}",
        f"{sizes['all']:g}",
        f"{sizes['common']:g}",
        _processor(record.about),
    ]


def _processor(about: dict[str, Any]) -> str:
    machines = [part["machine"] for part in about["parts"].values()] if "parts" in about else [about["machine"]]
    return ", ".join(sorted({machine.get("instructions", machine["architecture"]) for machine in machines}))


def accuracy(records: Sequence[Record]) -> str:
    """Accuracy by training epsilon: clean, and under each attack at the headline budget."""
    (record,) = records
    rows = record.rows("accuracy", norm=record.params["threat"]["norm"])
    kinds = [("clean", split, 0.0) for split in rows["split"].unique()]
    kinds += [(a, "test", float(record.params["attack"]["epsilon"])) for a in rows["attack"].unique() if a != "clean"]
    parts = [rows[(rows["attack"] == a) & (rows["split"] == s) & (rows["budget"] == b)] for a, s, b in kinds]
    columns = [part.set_index("epsilon") for part in parts]
    return table(
        ["training ε", *(_attack(attack) + _split(split) for attack, split, _ in kinds)],
        ([f"{e:g}", *(_cell(column, "accuracy", e) for column in columns)] for e in sorted(rows["epsilon"].unique())),
    )


def _attack(attack: str) -> str:
    return attack if attack == "clean" else attack_name(attack)


def _split(split: str) -> str:
    return "" if split == "test" else f", {split.replace('_', ' ')}"


def _cell(rows: pd.DataFrame, key: str, epsilon: float) -> str:
    if epsilon not in rows.index:
        return "–"
    row = rows.loc[epsilon]
    return spread(row[key], row["low"], row["high"])


def quality(records: Sequence[Record]) -> str:
    """The headline metrics of the headline method by training epsilon."""
    (record,) = records
    metrics = record.params["report"]["metrics"]
    columns = [record.quality(record.headline, metric) for metric in metrics]
    head = ["training ε", *(METRICS[name].facts.label for name in metrics)]
    return table(head, ([f"{e:g}", *(_cell(column, "mean", e) for column in columns)] for e in columns[0].index))


def by_method(records: Sequence[Record], metric: str) -> str:
    """One metric of all methods by training epsilon."""
    (record,) = records
    epsilons = sorted(record.rows("quality", metric=metric)["epsilon"].unique())
    names = [name for name in record.params["attribute"]["methods"] if len(record.quality(name, metric))]
    rows = ([name, *(_cell(record.quality(name, metric), "mean", e) for e in epsilons)] for name in names)
    return table(["method or control", *(f"ε = {e:g}" for e in epsilons)], rows)


def claims(records: Sequence[Record]) -> str:
    """Each claim of the headline method: estimate, interval, and the verdict of training / of these networks."""
    keys = list(
        dict.fromkeys((row["claim"], role(record, row)) for record in records for row in record.claims(headline=True))
    )
    rows = ([": ".join(filter(None, key)), *(_verdict(record, *key) for record in records)] for key in keys)
    return table(["claim", *(record.study for record in records)], rows)


def role(record: Record, row: dict[str, Any]) -> str:
    """Which of the two gains a share is of; nothing for a claim that is judged once."""
    plausible = record.params["report"]["plausible"]
    roles = {plausible[name]: name for name in ("conciseness", "stability")}
    return roles.get(row["metric"], "") if row["claim"] == "modest training helps" else ""


def _verdict(record: Record, claim: str, which: str) -> str:
    found = [row for row in record.claims(headline=True, claim=claim) if role(record, row) == which]
    if not found:
        return "–"
    row = next((row for row in found if row["scope"] == "training" and row["interval"][0] is not None), found[-1])
    verdicts = [each["verdict"] for scope in SCOPES for each in found if each["scope"] == scope]
    return f"{spread(_float(row['estimate']), *row['interval'])}: {' / '.join(verdicts)}"


def _float(value: float | None) -> float:
    return float("nan") if value is None else value


def methods(records: Sequence[Record]) -> str:
    """By claim, of how many methods (no controls) these networks support, contradict and leave open."""
    kinds = ("supported", "contradicted", "undecided")
    names = list(dict.fromkeys(row["claim"] for record in records for row in record.claims() if row["attribution"]))
    return table(
        ["claim", *(record.study for record in records)],
        ([name, *(_counts(record, name, kinds) for record in records)] for name in names),
    )


def _counts(record: Record, claim: str, kinds: Sequence[str]) -> str:
    rows = [row for row in record.claims(claim=claim) if row["attribution"] in METHODS]
    scope = "these networks" if any(row["scope"] == "these networks" for row in rows) else "training"
    found = [row["verdict"] for row in rows if row["scope"] == scope]
    return " / ".join(str(found.count(kind)) for kind in kinds)


def audit(records: Sequence[Record]) -> str:
    """Of the change of each headline metric at the largest epsilon, the share that a mere change of the maps makes."""
    rows = [
        [record.study, METRICS[metric].facts.label, *(_reproduced(record, metric, kind) for kind in KINDS)]
        for record in records
        for metric in record.params["report"]["metrics"]
    ]
    return table(("study", "metric", *KINDS), rows)


def _reproduced(record: Record, metric: str, kind: str) -> str:
    found = record.rows("audit", metric=metric, kind=kind)
    if found.empty:
        return "–"
    row = found.loc[found["epsilon"].idxmax()]
    if pd.isna(row["reproduced"]):
        return "–"
    return f"{percent(row['reproduced'])} ({percent(row['low'])} to {percent(row['high'])})"


def percent(value: float) -> str:
    return number(round(100 * value)).split(".")[0]


TABLES: dict[str, Callable[[Sequence[Record]], str]] = {
    "studies": studies,
    "accuracy": accuracy,
    "quality": quality,
    "claims": claims,
    "methods": methods,
    "audit": audit,
    "gini-by-method": lambda records: by_method(records, "gini"),
}


def filled(text: str, root: Path = Path()) -> str:
    """A page with its tables written anew. Raises ConfigError for a table that is not known, DataError without a record."""

    def block(match: re.Match[str]) -> str:
        if match["name"] not in TABLES:
            raise ConfigError(f"table: found {match['name']!r}, known are {', '.join(TABLES)}")
        records = [Record(root, study) for study in match["studies"].split()]
        return match["start"] + TABLES[match["name"]](records) + match["end"]

    return BLOCK.sub(block, text)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for page in PAGES:
        text = Path(page).read_text(encoding="utf-8")
        artifacts.write_bytes(Path(page), filled(text).encode())


if __name__ == "__main__":
    run(main)
