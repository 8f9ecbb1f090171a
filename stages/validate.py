"""Check params.yaml as a whole, before any stage runs: every problem of every section is reported at once."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from epsilens import attacks, attributions, config, metrics, models, training
from epsilens import data as datasets
from epsilens.attacks.config import AttackConfig, ThreatConfig
from epsilens.attributions.config import AttributeConfig
from epsilens.data.config import DataConfig
from epsilens.errors import ConfigError
from epsilens.metrics.config import ScoreConfig
from epsilens.models.config import ModelConfig
from epsilens.reporting.config import ReportConfig, StudyConfig, SweepConfig
from epsilens.training.config import PublishedConfig, TrainConfig
from stages.common import run

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


def refuse(lines: Iterable[str]) -> None:
    """Raises one ConfigError for all lines, if there is one."""
    found = [f"params.yaml: {line}" for line in lines]
    if found:
        raise ConfigError("\n".join(found))


def named(wanted: Iterable[tuple[str, str, Collection[str]]], word: str) -> None:
    """wanted: (key, name, known names). Raises one ConfigError for all names that are not known, which are `word`."""
    refuse(
        f"{key}: found {config.shown(name)}, {word} are {', '.join(known) or 'none'}"
        for key, name, known in wanted
        if name not in known
    )


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


def attacked(data: DataConfig, attack: AttackConfig) -> None:
    """No more test images can be attacked than there are, where that is known."""
    there = datasets.known(data).test
    wanted = {"attack.images": attack.images, "attack.ensemble.images": attack.ensemble.images}
    refuse(
        f"{key}: found {count}, expected at most {there}, the test images of this data set"
        for key, count in wanted.items()
        if there is not None and count > there
    )


def classes(data: DataConfig, attack: AttackConfig, score: ScoreConfig) -> None:
    """Some attacks and metrics need more classes than there are, where that is known."""
    there = datasets.known(data).classes
    if there is not None:
        attacks.check_classes([member.name for member in attack.ensemble.attacks], there)
        metrics.check_classes(score, there)


def sides(data: DataConfig, train: TrainConfig | PublishedConfig, score: ScoreConfig) -> None:
    """A crop or a block must be smaller than the image, where its size is known."""
    there = datasets.known(data).side
    wanted = {f"score.metrics.{name}.block": given.get("block") for name, given in score.metrics.items()}
    wanted["train.crop"] = getattr(train, "crop", None)
    refuse(
        f"{key}: found {size}, expected less than {there}, the pixels along a side of an image"
        for key, size in wanted.items()
        if there is not None and isinstance(size, int) and size >= there
    )


def diagonals(data: DataConfig, threat: ThreatConfig, attack: AttackConfig, sweep: SweepConfig) -> None:
    """No L2 budget may be longer than any two images are apart, where their size is known: one in 1/255 would be."""
    side = datasets.known(data).side
    longest = math.inf if side is None else math.sqrt(3) * side
    wanted = [("attack.epsilons.l2", budget) for budget in attack.epsilons.get("l2", ())]
    wanted += [("sweep.epsilons", budget) for budget in sweep.epsilons if threat.norm == "l2"]
    refuse(
        f"{key}: found budget {budget:g}, allowed for l2 is 0 to {longest:.1f}, from a black to a white image"
        for key, budget in wanted
        if budget > longest
    )


def depths(model: ModelConfig, score: ScoreConfig) -> None:
    """No more layers can have random weights than there are."""
    wanted = {f"score.metrics.{name}.layers": given.get("layers") for name, given in score.metrics.items()}
    numbers = {key: found for key, found in wanted.items() if isinstance(found, int)}
    there = models.layers(model) if numbers else 0
    refuse(
        f"{key}: found {found}, expected all, or 1 to {there}, the convolutions and linear layers of the network"
        for key, found in numbers.items()
        if found > there
    )


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
    (datasets.check, ("data",)),
    (models.check, ("model",)),
    (trained, ("train",)),
    (published, ("train", "sweep")),
    (attributions.check, ("attribute",)),
    (metrics.check, ("score",)),
    (budgets, ("threat", "attack", "sweep")),
    (attacked, ("data", "attack")),
    (classes, ("data", "attack", "score")),
    (sides, ("data", "train", "score")),
    (diagonals, ("data", "threat", "attack", "sweep")),
    (depths, ("model", "score")),
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
    return list(dict.fromkeys(lines))  # two checks may find the same


def main() -> None:
    raw = config.read()
    lines = problems(raw)
    if lines:
        raise ConfigError("\n".join(lines))
    print(
        f"params.yaml: study {raw['study']['name']}, {len(config.section(raw, 'sweep', SweepConfig).grid())} networks"
    )


if __name__ == "__main__":
    run(main)
