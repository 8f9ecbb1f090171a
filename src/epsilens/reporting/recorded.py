"""A study as it stands under metrics/<study>/: its tables as rows, its parameters, where it was run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pandas as pd

from epsilens import artifacts, config
from epsilens.errors import DataError
from epsilens.reporting.gate import Row
from epsilens.reporting.tables import select


class Record:
    """What `make record` or `make merge` has kept of one study. Raises DataError where there is nothing.

    labels: what a reader calls each metric.
    """

    def __init__(self, root: Path, study: str, labels: Mapping[str, str]) -> None:
        self.study, self.folder, self.labels = study, root / artifacts.METRICS / study, labels
        if not (self.folder / "provenance.json").is_file():
            raise DataError(f"{self.folder}: holds no recorded study")
        self.params: Mapping[str, Any] = config.read(self.folder / config.PARAMS)
        self.about: dict[str, Any] = artifacts.read_json(self.folder / "provenance.json")
        self._tables: dict[str, list[Row]] = {}

    def rows(self, table: str, **where: Any) -> list[Row]:
        """Those rows of a table that have these values; what is empty in it is NaN."""
        path = self.folder / f"{table}.csv"
        if not path.is_file():
            raise DataError(f"{path}: is missing; record the study anew (`make record` or `make merge`)")
        if not path.read_bytes().strip():  # a table of no rows has no columns either
            return []
        if table not in self._tables:
            self._tables[table] = cast("list[Row]", pd.read_csv(path).to_dict("records"))
        return select(self._tables[table], **where)

    def claims(self, **where: Any) -> list[Row]:
        """The verdicts, in the order of the record."""
        return select(artifacts.read_json(self.folder / "claims.json"), **where)

    def quality(self, attribution: str, metric: str) -> dict[float, Row]:
        """Mean and interval of a metric by epsilon, on the images that all networks get right."""
        found = self.rows("quality", set="common", attribution=attribution, metric=metric)
        return {row["epsilon"]: row for row in found}

    def means(self, attribution: str, metric: str) -> dict[float, float]:
        """Mean of a metric by epsilon, of all networks and all images: right or wrong, past the gate or not."""
        rows = artifacts.read_rows(self.folder / artifacts.NETWORK_MEANS).to_pandas()
        found = rows[(rows["attribution"] == attribution) & (rows["metric"] == metric)]
        return {float(epsilon): float(mean) for epsilon, mean in found.groupby("epsilon")["mean"].mean().items()}

    @property
    def headline(self) -> str:
        """The method that the study is headed with."""
        return self.params["report"]["attribution"]

    @property
    def norm(self) -> str:
        """That of training and of the headline budget."""
        return self.params["threat"]["norm"]

    @property
    def metrics(self) -> list[str]:
        """The metrics that the study is headed with."""
        return self.params["report"]["metrics"]
