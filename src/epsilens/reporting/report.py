"""From the rows of all networks to the tables, figures and the page of a study."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from epsilens.errors import ConfigError, DataError
from epsilens.reporting import figures, page, words
from epsilens.reporting.config import ReportConfig, StudyConfig
from epsilens.reporting.gallery import Gallery, arrange
from epsilens.reporting.style import unit
from epsilens.reporting.tables import (
    History,
    Row,
    accuracy_table,
    curves_table,
    network_accuracies,
    quality_table,
    select,
    summary,
)


@dataclass(frozen=True)
class Inputs:
    """What the stage has read. `galleries` (by training epsilon, of the first seed) and `histories` may be empty."""

    study: StudyConfig
    norm: str
    budget: float  # the headline attack budget
    attacks: pd.DataFrame
    scores: pd.DataFrame
    histories: Mapping[tuple[float, int], History]
    facts: Mapping[str, Any]
    manifest: Mapping[str, Any]
    galleries: Mapping[Any, Gallery]
    provenance: Mapping[str, str]
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Tables:
    """Lists of flat rows and the few headline scalars; NaN stands for what is undefined."""

    accuracy: list[Row]
    networks: list[Row]
    quality: list[Row]
    curves: list[Row]
    summary: dict[str, Any]


def tabulate(inputs: Inputs, config: ReportConfig) -> Tables:
    """All tables. Raises ConfigError for a headline that was not scored, DataError for rows without facts."""
    check(inputs, config)
    accuracy = accuracy_table(inputs.attacks, config)
    quality = quality_table(inputs.scores, config)
    networks = network_accuracies(inputs.attacks)
    headline = summary(accuracy, quality, config, inputs.budget)
    return Tables(accuracy, networks, quality, curves_table(inputs.histories), headline)


def build(inputs: Inputs, tables: Tables, config: ReportConfig) -> dict[str, bytes]:
    """The files of the report by their path in its folder: index.html and figures/*.svg."""
    drawn = draw(inputs, tables, config)
    files = {f"figures/{_file_name(name)}.svg": svg for name, svg in sorted(drawn.items())}
    return files | {"index.html": page.render(content(inputs, tables, config, drawn))}


def check(inputs: Inputs, config: ReportConfig) -> None:
    """Headline names must be scored, scored names must have facts, and the headline attack must have run."""
    lines = []
    for kind, wanted in (("metric", config.metrics), ("attribution", (config.attribution,))):
        known = list(dict.fromkeys(inputs.scores[kind]))
        strange = [name for name in known if name not in inputs.facts[f"{kind}s"]]
        if strange:
            raise DataError(f"scores: no facts for the {kind}s {', '.join(strange)}; run `score` again")
        key = "report.metrics" if kind == "metric" else "report.attribution"
        lines += [
            f"params.yaml: {key}: found {name!r}, scored are {', '.join(known)}" for name in wanted if name not in known
        ]
    budgets = sorted(set(inputs.attacks.loc[inputs.attacks["attack"] != "clean", "budget"]))
    if budgets and inputs.budget not in budgets:
        lines.append(f"params.yaml: attack.epsilon: found {inputs.budget:g}, attacked with {budgets}")
    if lines:
        raise ConfigError("\n".join(lines))


def draw(inputs: Inputs, tables: Tables, config: ReportConfig) -> dict[str, bytes]:
    """Every figure that the rows allow, by name."""
    norm, facts = inputs.norm, inputs.facts
    common = select(tables.quality, set="common")
    attacks = [name for name in dict.fromkeys(row["attack"] for row in tables.accuracy) if name != "clean"]
    drawn: dict[str, bytes | None] = {
        "accuracy": figures.accuracy(tables.accuracy, tables.networks, budget=inputs.budget, norm=norm),
        "training": figures.training(tables.curves),
    }
    for attack in attacks:
        drawn[f"matrix-{attack}"] = figures.matrix(tables.accuracy, attack=attack, norm=norm)
    for name in dict.fromkeys(row["metric"] for row in common):
        drawn[f"metric-{name}"] = figures.metric(common, name, facts, norm=norm)
    for name in config.metrics:
        drawn[f"trade-off-{name}"] = figures.trade_off(
            tables.accuracy, common, name, config.attribution, facts, norm=norm
        )
    return {name: svg for name, svg in drawn.items() if svg is not None}


def content(inputs: Inputs, tables: Tables, config: ReportConfig, drawn: Mapping[str, bytes]) -> dict[str, Any]:
    """What the page's template is filled with."""
    metrics = {name: inputs.facts["metrics"][name] for name in dict.fromkeys(row["metric"] for row in tables.quality)}
    methods = dict.fromkeys(row["attribution"] for row in tables.quality)
    quality = tables.quality
    return {
        "study": inputs.study,
        "manifest": inputs.manifest,
        "unit": unit(inputs.norm),
        "budget": inputs.budget,
        "config": config,
        "epsilons": sorted({row["epsilon"] for row in quality}),
        "n_seeds": quality[0]["n_seeds"],
        "sizes": words.sizes(quality),
        "headlines": words.headlines(tables.accuracy, quality, inputs.facts, config, inputs.budget),
        "cautions": words.cautions(quality, inputs.facts, config),
        "figures": drawn,
        "gallery": arrange(inputs.galleries, inputs.facts),
        "metrics": metrics,
        "attributions": {name: inputs.facts["attributions"][name] for name in methods},
        "accuracy": tables.accuracy,
        "quality": quality,
        "provenance": inputs.provenance,
        "params": json.dumps(inputs.params, indent=2, ensure_ascii=False, default=str),
    }


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_@.-]", "-", name)
