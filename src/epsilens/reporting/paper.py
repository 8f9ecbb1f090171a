"""What a paper takes from a study: the figures as PDF, the headline tables for LaTeX. From the rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from epsilens.reporting import latex
from epsilens.reporting.config import ReportConfig
from epsilens.reporting.formats import ARROWS, percent
from epsilens.reporting.gate import Row, selection
from epsilens.reporting.report import Inputs, Tables, draw, file_name
from epsilens.reporting.style import attack_name, unit
from epsilens.reporting.tables import at_headline, select
from epsilens.reporting.trust import named


def build(inputs: Inputs, tables: Tables, config: ReportConfig) -> dict[str, bytes]:
    """The files by their path: figures/*.pdf and tables/*.tex."""
    found = {f"figures/{file_name(name)}.pdf": sheet.pdf() for name, sheet in draw(inputs, tables, config).items()}
    typeset = {"accuracy": accuracy(inputs, tables.accuracy), "explanations": explanations(inputs, tables, config)}
    for metric in config.metrics:
        typeset[f"methods-{metric}"] = methods(inputs, tables.quality, metric)
    shared = (_intervals(tables, config), *_left_out(inputs))
    return found | {
        f"tables/{file_name(name)}.tex": latex.render(replace(table, notes=(*table.notes, *shared)))
        for name, table in typeset.items()
    }


def accuracy(inputs: Inputs, rows: Sequence[Row]) -> latex.Table:
    """A row a training epsilon; a column clean, each attack at the headline budget, each extra split."""
    reached = at_headline(rows, norm=inputs.norm, budget=inputs.budget)
    kinds = list(dict.fromkeys((row["split"], row["attack"]) for row in reached))
    columns = [select(reached, split=split, attack=attack) for split, attack in kinds]
    head = [_training(inputs), *(_accuracy_head(column[0]) for column in columns)]
    body = [
        [f"{epsilon:g}", *(latex.interval(_at(column, epsilon), "accuracy", percent) for column in columns)]
        for epsilon in _epsilons(reached)
    ]
    images = "; ".join(
        f"{name}: {column[0]['n_images']} images" for name, column in zip(head[1:], columns, strict=True)
    )
    return latex.Table(head, [body], ["accuracy in per cent", images])


def explanations(inputs: Inputs, tables: Tables, config: ReportConfig) -> latex.Table:
    """A row a training epsilon, a column a headline metric, of the headline attribution on the common images."""
    columns = [select(tables.headline, metric=metric) for metric in config.metrics]
    head = [_training(inputs), *(_metric_head(inputs, metric) for metric in config.metrics)]
    body = [
        [f"{epsilon:g}", *(latex.interval(_at(column, epsilon), "mean") for column in columns)]
        for epsilon in _epsilons(tables.headline)
    ]
    label = inputs.facts["attributions"][config.attribution]["label"]
    return latex.Table(head, [body], [f"{label}; {_images(tables.headline)}"])


def methods(inputs: Inputs, quality: Sequence[Row], metric: str) -> latex.Table:
    """One metric: a row an attribution, controls below a rule, a column a training epsilon; the common images."""
    rows = select(quality, set="common", metric=metric)
    epsilons, facts = _epsilons(rows), inputs.facts["attributions"]
    groups: dict[str, list[list[str]]] = {"method": [], "control": []}
    for name in dict.fromkeys(row["attribution"] for row in rows):
        line = select(rows, attribution=name)
        cells = [latex.interval(_at(line, epsilon), "mean") for epsilon in epsilons]
        groups[facts[name]["kind"]].append([facts[name]["label"], *cells])
    head = [_metric_head(inputs, metric), *(f"ε = {epsilon:g}" for epsilon in epsilons)]
    notes = [f"training ε in {unit(inputs.norm)}; {_images(rows)}", "below the second rule: controls"]
    return latex.Table(head, list(groups.values()), notes)


def _intervals(tables: Tables, config: ReportConfig) -> str:
    seeds = max(row["n_seeds"] for row in tables.quality)
    of = f"over {seeds} seeds and images" if seeds > 1 else "over images, of these very networks: one seed"
    return f"in brackets: {100 * config.confidence:g} % intervals {of}"


def _left_out(inputs: Inputs) -> list[str]:
    """What the gate kept out of the tables, as a reader of the paper must know."""
    chosen = selection(inputs.scores, inputs.gates)
    if chosen.none_passed:
        return ["no network passed the gate against masked gradients: no accuracy under attack is safe"]
    return [f"left out, not sound: {'; '.join(map(named, chosen.left_out))}"] if chosen.left_out else []


def _training(inputs: Inputs) -> str:
    return f"training ε ({unit(inputs.norm)})"


def _accuracy_head(row: Row) -> str:
    name = "clean" if row["attack"] == "clean" else f"{attack_name(row['attack'])}, ε = {row['budget']:g}"
    return name if row["split"] == "test" else f"{name}, {row['split'].replace('_', ' ')}"


def _metric_head(inputs: Inputs, metric: str) -> str:
    described = inputs.facts["metrics"][metric]
    return f"{described['label']} {ARROWS[described.get('better') or None]}".strip()


def _images(rows: Sequence[Row]) -> str:
    return f"up to {max(row['n'] for row in rows)} images that every network classifies correctly"


def _epsilons(rows: Sequence[Row]) -> list[float]:
    return sorted({row["epsilon"] for row in rows})


def _at(rows: Sequence[Row], epsilon: float) -> Row | None:
    return next(iter(select(rows, epsilon=epsilon)), None)
