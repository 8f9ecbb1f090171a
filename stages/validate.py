"""Check params.yaml as a whole, before any stage runs: every problem of every section is reported at once."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from epsilens import attacks, attributions, config, data, metrics, models, training
from epsilens.attacks.config import AttackConfig, ThreatConfig
from epsilens.attributions.config import AttributeConfig
from epsilens.data.config import DataConfig
from epsilens.errors import ConfigError
from epsilens.metrics.config import ScoreConfig
from epsilens.models.config import ModelConfig
from epsilens.reporting.config import ReportConfig, StudyConfig, SweepConfig
from epsilens.training.config import PublishedConfig, TrainConfig
from stages.common import params, run

SECTIONS: dict[str, type[config.Section]] = {
    "study": StudyConfig,
    "sweep": SweepConfig,
    "threat": ThreatConfig,
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,  # or PublishedConfig, see `problems`
    "attack": AttackConfig,
    "attribute": AttributeConfig,
    "score": ScoreConfig,
    "report": ReportConfig,
}

TOLD = ("conciseness", "stability", "relevance")  # of report.plausible: metrics


def budgets(threat: ThreatConfig, attack: AttackConfig, sweep: SweepConfig) -> None:
    """Every budget must be one of the threat model."""
    attacks.check(threat, attack, tuple(float(epsilon) for epsilon in sweep.epsilons))


def named(wanted: Iterable[tuple[str, str, Collection[str]]], word: str) -> None:
    """wanted: (key, name, known names). Raises one ConfigError for all names that are not known, which are `word`."""
    lines = [
        f"params.yaml: {key}: found {name!r}, {word} are {', '.join(known) or 'none'}"
        for key, name, known in wanted
        if name not in known
    ]
    if lines:
        raise ConfigError("\n".join(lines))


def headlines(report: ReportConfig, attribute: AttributeConfig, score: ScoreConfig) -> None:
    """The report's headlines must be among what is computed."""
    wanted = [("report.attribution", report.attribution, attribute.methods)]
    wanted += [("report.metrics", name, score.metrics) for name in report.metrics]
    named(wanted, "computed")


def evidence(report: ReportConfig, attribute: AttributeConfig, score: ScoreConfig) -> None:
    """What is misleading but plausible must be told by metrics that have a good direction, against a control that is
    computed; and the audit must be of a method that is."""
    entries = {name: attributions.ATTRIBUTIONS.get(name.partition("@")[0]) for name in attribute.methods}
    methods, controls = ([n for n, e in entries.items() if e and e.kind == kind] for kind in ("method", "control"))
    scored = {name: metrics.METRICS.get(name.partition("@")[0]) for name in score.metrics}
    directed = [name for name, metric in scored.items() if metric and metric.facts.better]
    wanted = [(f"report.plausible.{key}", getattr(report.plausible, key), directed) for key in TOLD]
    wanted += [("report.recommend.metric", report.recommend.metric, directed)]
    wanted += [("report.plausible.control", report.plausible.control, controls)]
    wanted += [("score.audit.attribution", score.audit.attribution, methods)]
    named(wanted, "possible")


def trained(train: TrainConfig | PublishedConfig) -> None:
    """Networks that are trained need a known recipe and schedule."""
    if isinstance(train, TrainConfig):
        training.check(train)


def published(train: TrainConfig | PublishedConfig, sweep: SweepConfig) -> None:
    """Networks that are read need a file for each training epsilon."""
    if isinstance(train, PublishedConfig):
        training.check_published(train, tuple(float(epsilon) for epsilon in sweep.epsilons), sweep.seeds)


# What no section can say of itself: the names it reads from registries, and whether sections agree. Each check runs if
# the sections that it takes are well formed.
CHECKS: tuple[tuple[Callable[..., Any], tuple[str, ...]], ...] = (
    (data.check, ("data",)),
    (models.check, ("model",)),
    (trained, ("train",)),
    (published, ("train", "sweep")),
    (attributions.check, ("attribute",)),
    (metrics.check, ("score",)),
    (budgets, ("threat", "attack", "sweep")),
    (headlines, ("report", "attribute", "score")),
    (evidence, ("report", "attribute", "score")),
)


def problems(raw: Mapping[str, Any]) -> list[str]:
    """Every problem of params.yaml, a line each."""
    lines = [f"params.yaml: {name}: unknown section" for name in raw if name not in SECTIONS]
    found: dict[str, config.Section] = {}
    for name, schema in (SECTIONS | {"train": training.form(raw)}).items():
        try:
            found[name] = config.section(raw, name, schema)
        except ConfigError as error:
            lines.append(str(error))
    for check, names in CHECKS:
        try:
            if found.keys() >= set(names):
                check(*(found[name] for name in names))
        except ConfigError as error:
            lines.append(str(error))
    return lines


def main() -> None:
    raw = params()
    lines = problems(raw)
    if lines:
        raise ConfigError("\n".join(lines))
    print(
        f"params.yaml: study {raw['study']['name']}, {len(config.section(raw, 'sweep', SweepConfig).grid())} networks"
    )


if __name__ == "__main__":
    run(main)
