"""Check params.yaml as a whole, before any stage runs: every problem of every section is reported at once."""

from epsilens import attacks, attributions, config, data, metrics, models
from epsilens.attacks.config import AttackConfig, ThreatConfig
from epsilens.attributions.config import AttributeConfig
from epsilens.data.config import DataConfig
from epsilens.errors import ConfigError
from epsilens.metrics.config import ScoreConfig
from epsilens.models.config import ModelConfig
from epsilens.reporting.config import ReportConfig, StudyConfig, SweepConfig
from epsilens.training.config import TrainConfig
from stages.common import params, run


class Params(config.Section):
    """The whole of params.yaml."""

    study: StudyConfig
    sweep: SweepConfig
    threat: ThreatConfig
    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    attack: AttackConfig
    attribute: AttributeConfig
    score: ScoreConfig
    report: ReportConfig


def headlines(found: Params) -> None:
    """The report's headlines must be among what is computed."""
    wanted = [("report.attribution", found.report.attribution, found.attribute.methods)]
    wanted += [("report.metrics", name, found.score.metrics) for name in found.report.metrics]
    lines = [
        f"params.yaml: {key}: found {name!r}, computed are {', '.join(known)}"
        for key, name, known in wanted
        if name not in known
    ]
    if lines:
        raise ConfigError("\n".join(lines))


def main() -> None:
    found = config.parse(params(), Params)
    budgets = tuple(float(epsilon) for epsilon in found.sweep.epsilons)
    checks = (
        lambda: data.check(found.data),
        lambda: models.check(found.model),
        lambda: attacks.check(found.threat, found.attack, budgets),
        lambda: attributions.check(found.attribute),
        lambda: metrics.check(found.score),
        lambda: headlines(found),
    )
    lines = []
    for check in checks:
        try:
            check()
        except ConfigError as error:
            lines.append(str(error))
    if lines:
        raise ConfigError("\n".join(lines))
    print(f"params.yaml: study {found.study.name}, {len(found.sweep.grid())} networks")


if __name__ == "__main__":
    run(main)
