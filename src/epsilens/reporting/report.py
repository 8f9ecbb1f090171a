"""From the rows of all networks to the tables, figures and the page of a study."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from epsilens.errors import ConfigError, DataError
from epsilens.reporting import advice, digest, figures, forest, page, panels, rates, trust, verdicts, words
from epsilens.reporting.audit import audit_table
from epsilens.reporting.choice import choice_table
from epsilens.reporting.claims import claims_table
from epsilens.reporting.config import ReportConfig, StudyConfig
from epsilens.reporting.gallery import Gallery, arrange
from epsilens.reporting.gate import Gates, Row, Selection, breakage_table, gate_table, selection
from epsilens.reporting.plausible import misnamed, plausible_table
from epsilens.reporting.samples import samples
from epsilens.reporting.sheet import Sheet
from epsilens.reporting.style import unit
from epsilens.reporting.tables import (
    History,
    accuracy_table,
    curves_table,
    headline_table,
    network_accuracies,
    quality_table,
    select,
    summary,
)

METRIC = "metric-"  # figures that share one legend on the page


@dataclass(frozen=True)
class Inputs:
    """What the stage has read.

    `galleries` (by training epsilon, of the first seed), `histories`, `gates`, `audited` and `traits` may be empty.
    """

    study: StudyConfig
    norm: str  # of training epsilons and of the headline
    budget: float  # the headline attack budget
    attacks: pd.DataFrame
    scores: pd.DataFrame
    gates: Gates
    histories: Mapping[tuple[float, int], History]
    facts: Mapping[str, Any]
    manifest: Mapping[str, Any]
    galleries: Mapping[Any, Gallery]
    provenance: Mapping[str, str]
    params: Mapping[str, Any]
    audited: pd.DataFrame = field(default_factory=pd.DataFrame)  # scores of the changed standard networks
    traits: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Tables:
    """Lists of flat rows and the few headline scalars; NaN stands for what is undefined.

    networks, gate, broken and curves are of all networks; the others of those that passed the gate.
    """

    accuracy: list[Row]
    networks: list[Row]
    gate: list[Row]
    broken: list[Row]
    quality: list[Row]
    headline: list[Row]
    curves: list[Row]
    plausible: list[Row]
    audit: list[Row]
    claims: list[Row]
    choice: list[Row]
    summary: dict[str, Any]


def tabulate(inputs: Inputs, config: ReportConfig) -> Tables:
    """All tables. Raises ConfigError for a headline that was not scored, DataError for rows without facts or gate."""
    check(inputs, config)
    chosen, reached = selection(inputs.scores, inputs.gates), {"norm": inputs.norm, "budget": inputs.budget}
    attacks, scores = chosen.of(inputs.attacks), chosen.of(inputs.scores)
    accuracy, quality = accuracy_table(attacks, config), quality_table(scores, config)
    plausible = plausible_table(scores, inputs.facts, config)
    found = samples(attacks, scores, inputs.facts, config)
    return Tables(
        accuracy=accuracy,
        networks=network_accuracies(inputs.attacks, config, chosen),
        gate=gate_table(chosen),
        broken=breakage_table(inputs.attacks, chosen, **reached),
        quality=quality,
        headline=headline_table(quality, inputs.facts, config),
        curves=curves_table(inputs.histories),
        plausible=plausible,
        audit=audit_table(scores, chosen.of(inputs.audited), chosen.of(inputs.traits), config),
        claims=claims_table(found, plausible, config),
        choice=choice_table(found, config),
        summary=summary(accuracy, quality, config, **reached),
    )


def build(inputs: Inputs, tables: Tables, config: ReportConfig) -> dict[str, bytes]:
    """The files of the report by their path in its folder: index.html and figures/*.svg."""
    drawn = draw(inputs, tables, config)
    files = {f"figures/{file_name(name)}.svg": sheet.svg() for name, sheet in sorted(drawn.items())}
    shown = {name: sheet.panel() if name.startswith(METRIC) else files[f"figures/{file_name(name)}.svg"]
             for name, sheet in drawn.items()}  # fmt: skip
    return files | {"index.html": page.render(content(inputs, tables, config, shown))}


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
    lines += misnamed(inputs.scores, inputs.facts, config)
    attacked = inputs.attacks[inputs.attacks["attack"] != "clean"]
    budgets = sorted(set(attacked.loc[attacked["norm"] == inputs.norm, "budget"]) - {0.0})
    if len(attacked) and inputs.budget not in budgets:
        lines.append(f"params.yaml: attack.epsilon: found {inputs.budget:g}, attacked with {budgets} in {inputs.norm}")
    if lines:
        raise ConfigError("\n".join(lines))


def draw(inputs: Inputs, tables: Tables, config: ReportConfig) -> dict[str, Sheet]:
    """Every figure that the rows allow, by name."""
    norm, facts = inputs.norm, inputs.facts
    common = select(tables.quality, set="common")
    attacks = dict.fromkeys((row["attack"], row["norm"]) for row in tables.accuracy if row["attack"] != "clean")
    drawn: dict[str, Sheet | None] = {
        "accuracy": figures.accuracy(tables.accuracy, tables.networks, budget=inputs.budget, norm=norm),
        "training": figures.training(tables.curves),
    }
    for its in sorted({its for _, its in attacks}, key=lambda its: (its != norm, its)):  # the trained one first
        drawn[f"security-{its}"] = figures.security(tables.accuracy, norm=its, trained=norm)
        for attack in (attack for attack, under in attacks if under == its):
            drawn[f"matrix-{attack}-{its}"] = figures.matrix(tables.accuracy, attack=attack, norm=its, trained=norm)
    for name in dict.fromkeys(row["metric"] for row in common):
        drawn[f"metric-{name}"] = panels.metric(common, name, facts, norm=norm)
    for name in dict.fromkeys([*config.metrics, config.recommend.metric]):
        drawn[f"trade-off-{name}"] = panels.trade_off(
            tables.accuracy, common, name, config.attribution, facts, norm=norm, choice=tables.choice
        )
    drawn |= _evidence(tables, facts, config, norm)
    return {name: sheet for name, sheet in drawn.items() if sheet is not None}


def _evidence(tables: Tables, facts: Mapping[str, Any], config: ReportConfig, norm: str) -> dict[str, Sheet | None]:
    """The figures of the claims, of plausible maps and of the confounds."""
    decides, first = config.claims, min(row["epsilon"] for row in tables.quality)
    limits = {"margin": decides.auroc_margin, "rate": decides.misleading_rate}
    return {
        **forest.claims(tables.claims, facts, decides, first),
        **rates.plausible(tables.plausible, config.attribution, norm=norm, **limits),
        "audit": forest.audit(advice.headlined(tables.audit, config.metrics), facts),
    }


def content(inputs: Inputs, tables: Tables, config: ReportConfig, drawn: Mapping[str, bytes]) -> dict[str, Any]:
    """What the page's template is filled with."""
    metrics = {name: inputs.facts["metrics"][name] for name in dict.fromkeys(row["metric"] for row in tables.quality)}
    methods = dict.fromkeys(row["attribution"] for row in tables.quality)
    quality, headline = tables.quality, {"norm": inputs.norm, "budget": inputs.budget}
    chosen = selection(inputs.scores, inputs.gates)
    return {
        "study": inputs.study,
        "manifest": inputs.manifest,
        "unit": unit(inputs.norm),
        "budget": inputs.budget,
        "config": config,
        "epsilons": sorted({row["epsilon"] for row in quality}),
        "n_seeds": max(row["n_seeds"] for row in quality),
        **_networks(chosen),
        "sizes": words.sizes(quality),
        "headlines": words.headlines(tables.accuracy, quality, inputs.facts, config, **headline),
        "cautions": [
            *trust.cautions(chosen),
            *trust.collapses(tables.curves),
            *words.cautions(quality, inputs.facts, config),
        ],
        "figures": drawn,
        "legend": _legend(tables, inputs.facts),
        "gallery": arrange(inputs.galleries, inputs.facts),
        "metrics": metrics,
        "attributions": {name: inputs.facts["attributions"][name] for name in methods},
        "accuracy": tables.accuracy,
        "networks": tables.networks,
        "broken": tables.broken,
        "quality": quality,
        **_told(tables, inputs.facts, config),
        "provenance": inputs.provenance,
        "params": json.dumps(inputs.params, indent=2, ensure_ascii=False, default=str),
    }


def _told(tables: Tables, facts: Mapping[str, Any], config: ReportConfig) -> dict[str, Any]:
    """The sections that answer the questions of the study: sentences, and the tables behind them."""
    first, method = min(row["epsilon"] for row in tables.quality), config.attribution
    audited = advice.headlined(tables.audit, config.metrics)
    return {
        "claims": (cards := verdicts.cards(tables.claims, facts, config.claims, first)),
        "tally": verdicts.tally(cards),
        "claims_table": verdicts.table(tables.claims, facts),
        "choice": advice.choice(tables.choice, facts, config.recommend),
        "recommendation": digest.recommendation(tables.choice, facts),
        "looks": advice.plausible(tables.plausible, method, config.plausible, facts),
        "plausible": digest.plausible(tables.plausible, facts),
        "confounds": advice.audit(audited, facts),
        "audit": digest.audit(tables.audit, facts),
    }


def _legend(tables: Tables, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry an attribution, in the order of the lines: its label, the picture of its line, whether it is a control."""
    drawn = panels.styles(select(tables.quality, set="common"), facts)
    return [
        {"label": entry["label"], "control": entry["control"], "picture": panels.swatch(name, entry["style"]).svg()}
        for name, entry in drawn.items()
    ]


def _networks(chosen: Selection) -> dict[str, Any]:
    """What the page says of the grid and of its gate."""
    return {
        "grid": {"epsilons": sorted({e for e, _ in chosen.networks}), "seeds": len({s for _, s in chosen.networks})},
        "n_networks": len(chosen.networks),
        "gate": trust.table(chosen) if chosen.gates else None,
        "left_out": [trust.named(network) for network in chosen.left_out],
        "none_passed": chosen.none_passed,
    }


def file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_@.-]", "-", name)
