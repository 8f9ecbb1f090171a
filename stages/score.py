"""Metrics of the attribution maps of one network, as rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from epsilens import artifacts, config, metrics
from epsilens.attributions import ATTRIBUTIONS, explainer, explainers
from epsilens.attributions.config import AttributeConfig
from epsilens.attributions.randomise import randomised
from epsilens.data.manifest import read_split
from epsilens.metrics.config import ScoreConfig
from epsilens.metrics.confounds import Audited, own_traits
from epsilens.metrics.evidence import Evidence
from epsilens.models.checkpoints import load
from epsilens.models.tempered import Tempered
from epsilens.randomness import noise_seeds
from epsilens.registry import choose, labelled
from epsilens.types import Explainer, Scores
from stages.common import cell, device, params, run


def unlearned(network: nn.Module, score: ScoreConfig, attribute: AttributeConfig) -> Mapping[str, Explainer]:
    """The same methods on the network with random weights, where a metric asks for them."""
    if not any(name.partition("@")[0] == "randomisation" for name in score.metrics):
        return {}
    return explainers(randomised(network, score.seed), attribute, references)


def references() -> Tensor:
    """The images that some methods compare with."""
    return read_split(artifacts.PREPARED, "train").images


def audit(network: nn.Module, evidence: Evidence, score: ScoreConfig, attribute: AttributeConfig) -> list[Audited]:
    """The metrics of the audited method under each change that `score.audit` asks for."""
    name = score.audit.attribution

    def tempered(temperature: float) -> Explainer:
        hot = Tempered(network, temperature)
        return explainer(hot, name, attribute.methods[name], attribute.batch_size, references)

    return metrics.audit(evidence, score.metrics, score.audit, tempered)


def write_audit(
    folder: Path, shared: Mapping[str, Sequence[Any]], own: Mapping[str, Scores], found: list[Audited]
) -> None:
    """The traits of the network (`own`) and of each change of it; the scores of each change, if there is one.

    shared: the columns that all rows of an image have, one entry an image.
    """
    tables = [("none", 0.0, own), *((one.kind, one.amount, one.traits) for one in found)]
    artifacts.write_rows(folder / artifacts.TRAITS, long(shared, tables, "trait", "value"))
    if found:
        tables = [(one.kind, one.amount, one.scores) for one in found]
        artifacts.write_rows(folder / artifacts.AUDITED, long(shared, tables, "metric", "score"))


def long(
    shared: Mapping[str, Sequence[Any]],
    tables: Sequence[tuple[str, float, Mapping[str, Scores]]],
    name: str,
    value: str,
) -> dict[str, list[Any]]:
    """One row an image and number: `shared`, then kind and amount of the change, `name` and `value` of the number."""
    count, columns = len(shared["image"]), (*shared, "kind", "amount", name, value)
    rows: dict[str, list[Any]] = {column: [] for column in columns}
    for kind, amount, numbers in tables:
        for number, values in numbers.items():
            parts = (*shared.values(), [kind] * count, [amount] * count, [number] * count, values.tolist())
            for column, part in zip(columns, parts, strict=True):
                rows[column] += part
    return rows


def main() -> None:
    text, epsilon, seed = cell(__doc__)
    raw = params()
    settings = config.section(raw, "score", ScoreConfig)
    attribute = config.section(raw, "attribute", AttributeConfig)
    network = load(artifacts.cell(artifacts.MODELS, text, seed), device())
    samples = read_split(artifacts.PREPARED, "evaluation").to(device())
    folder = artifacts.cell(artifacts.ATTRIBUTIONS, text, seed)
    maps = artifacts.read_tensors(folder / artifacts.MAPS)
    targets = torch.tensor(artifacts.read_rows(folder / artifacts.INDEX)["target"].to_pylist()).to(device())
    images, seeds, drawn = samples.pixels(), *(noise_seeds(s.seed, samples.ids) for s in (settings, attribute))
    correct = (targets == samples.labels).tolist()
    rows: dict[str, list[Any]] = {n: [] for n in ("image", "correct", "attribution", "metric", "score")}

    unlearnt = unlearned(network, settings, attribute)
    for method, explain in explainers(network, attribute, references).items():
        given = maps[method].to(device())
        evidence = Evidence(images, targets, given, samples.masks, seeds, network, explain, settings.batch_size, drawn)
        evidence = replace(evidence, randomised=unlearnt.get(method))
        scores = metrics.score(evidence, settings.metrics)
        for metric, values in scores.items():
            columns = (samples.ids.tolist(), correct, [method] * len(samples), [metric] * len(samples), values.tolist())
            for name, column in zip(rows, columns, strict=True):
                rows[name] += column
        print(method, *(f"{metric} {values.nanmean():.3f}" for metric, values in scores.items()), sep="  ", flush=True)
        if method == settings.audit.attribution:
            found = audit(network, evidence, settings, attribute) if epsilon == settings.audit.epsilon else []
            same = {"epsilon": epsilon, "seed": seed, "attribution": method}
            shared = {name: [value] * len(samples) for name, value in same.items()}
            shared |= {"image": samples.ids.tolist(), "correct": correct}
            write_audit(artifacts.cell(artifacts.SCORES, text, seed), shared, own_traits(evidence), found)

    count = len(rows["image"])
    folder = artifacts.cell(artifacts.SCORES, text, seed)
    artifacts.write_rows(folder / artifacts.ROWS, {"epsilon": [epsilon] * count, "seed": [seed] * count, **rows})
    entries = {name: choose(ATTRIBUTIONS, name, "attribute.methods") for name in attribute.methods}
    described = {
        name: {"kind": e.kind, "label": e.label + labelled(name), "source": e.source} for name, e in entries.items()
    }
    facts = {"metrics": metrics.facts(settings.metrics), "attributions": described}
    artifacts.write_json(folder / artifacts.FACTS, facts)


if __name__ == "__main__":
    run(main)
