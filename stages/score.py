"""Metrics of the attribution maps of one network, as rows."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from epsilens import artifacts, config, metrics
from epsilens.attributions import ATTRIBUTIONS, References, explainer, explainers
from epsilens.attributions.config import AttributeConfig
from epsilens.attributions.randomise import randomised
from epsilens.data.manifest import read_manifest, read_split
from epsilens.metrics.config import ScoreConfig
from epsilens.metrics.confounds import Audited, own_traits
from epsilens.metrics.evidence import Evidence, Layers
from epsilens.metrics.recalled import Recalled
from epsilens.models.checkpoints import load
from epsilens.models.tempered import Tempered
from epsilens.progress import Done, progress, say
from epsilens.randomness import noise_seeds
from epsilens.registry import choose, labelled
from epsilens.types import Explainer, Scores
from stages.common import cell, device, params, run


def unlearned(
    network: nn.Module, seed: int, attribute: AttributeConfig, training: References
) -> Callable[[Layers], Mapping[str, Explainer]]:
    """The same methods on the network with that many random layers, made once, when a metric asks for them."""
    return cache(lambda layers: explainers(randomised(network, seed, layers), attribute, training))


def references() -> Tensor:
    """The images that some methods compare with."""
    return read_split(artifacts.PREPARED, "train").images


def audit(
    network: nn.Module,
    evidence: Evidence,
    score: ScoreConfig,
    attribute: AttributeConfig,
    training: References,
    done: Done,
) -> list[Audited]:
    """The metrics of the audited method under each change that `score.audit` asks for."""
    name = score.audit.attribution

    def tempered(temperature: float) -> Explainer:
        hot = Tempered(network, temperature)
        return explainer(hot, name, attribute.methods[name], attribute.batch_size, training)

    return metrics.audit(evidence, score.metrics, score.audit, tempered, done)


def write_audit(folder: Path, shared: Mapping[str, list[Any]], own: Mapping[str, Scores], found: list[Audited]) -> None:
    """The traits of the network (`own`) and of each change of it; the scores of each change, if there is one.

    shared: the columns that all rows of an image have, one entry an image.
    """
    traits, scores = dict[str, list[Any]](), dict[str, list[Any]]()
    for kind, amount, values in (("none", 0.0, own), *((one.kind, one.amount, one.traits) for one in found)):
        extend(traits, changed(shared, kind, amount), values, "trait", "value")
    for one in found:
        extend(scores, changed(shared, one.kind, one.amount), one.scores, "metric", "score")
    artifacts.write_rows(folder / artifacts.TRAITS, traits)
    if found:
        artifacts.write_rows(folder / artifacts.AUDITED, scores)


def changed(shared: Mapping[str, list[Any]], kind: str, amount: float) -> dict[str, list[Any]]:
    """The shared columns and those that name a change."""
    count = len(shared["image"])
    return {**shared, "kind": [kind] * count, "amount": [amount] * count}


def extend(
    rows: dict[str, list[Any]], shared: Mapping[str, list[Any]], numbers: Mapping[str, Scores], name: str, value: str
) -> None:
    """Add to the columns of `rows` one row an image and number: what is shared, its name, its value."""
    for number, values in numbers.items():
        columns = {**shared, name: [number] * len(values), value: values.tolist()}
        for column, part in columns.items():
            rows.setdefault(column, []).extend(part)


def facts(settings: ScoreConfig, attribute: AttributeConfig) -> dict[str, Any]:
    """What the report says of each metric and method."""
    entries = {name: choose(ATTRIBUTIONS, name, "attribute.methods") for name in attribute.methods}
    described = {
        name: {"kind": e.kind, "label": e.label + labelled(name), "source": e.source} for name, e in entries.items()
    }
    return {"metrics": metrics.facts(settings.metrics), "attributions": described}


def main() -> None:
    text, epsilon, seed = cell(__doc__)
    raw = params()
    settings = config.section(raw, "score", ScoreConfig)
    attribute = config.section(raw, "attribute", AttributeConfig)
    metrics.check_classes(settings, len(read_manifest(artifacts.PREPARED)["class_names"]))
    network = load(artifacts.sealed(artifacts.cell(artifacts.MODELS, text, seed)), device())
    samples = read_split(artifacts.PREPARED, "evaluation").to(device())
    folder = artifacts.sealed(artifacts.cell(artifacts.ATTRIBUTIONS, text, seed))
    maps = artifacts.read_tensors(folder / artifacts.MAPS)
    targets = torch.tensor(artifacts.read_rows(folder / artifacts.INDEX)["target"].to_pylist()).to(device())
    images, seeds, drawn = samples.pixels(), *(noise_seeds(s.seed, samples.ids) for s in (settings, attribute))
    shared = {"epsilon": [epsilon] * len(samples), "seed": [seed] * len(samples)}
    shared |= {"image": samples.ids.tolist(), "correct": (targets == samples.labels).tolist()}
    folder, rows = artifacts.cell(artifacts.SCORES, text, seed), dict[str, list[Any]]()

    training, predict = cache(references), Recalled(network)
    unlearnt = unlearned(network, settings.seed, attribute, training)
    asked = epsilon == settings.audit.epsilon
    count = len(samples) * (len(maps) + asked * settings.audit.count)
    with progress(f"score epsilon {text}, seed {seed}", count, "maps") as done:
        for method, explain in explainers(network, attribute, training).items():
            given, shared["attribution"] = maps[method].to(device()), [method] * len(samples)
            evidence = Evidence(
                images, targets, given, samples.masks, seeds, predict, explain, settings.batch_size, drawn
            )
            evidence = replace(evidence, randomised=lambda layers, method=method: unlearnt(layers)[method])
            scores = metrics.score(evidence, settings.metrics, done)
            extend(rows, shared, scores, "metric", "score")
            say("  ".join([method, *(f"{name} {values.nanmean():.3f}" for name, values in scores.items())]))
            if method == settings.audit.attribution:
                found = audit(network, evidence, settings, attribute, training, done) if asked else []
                write_audit(folder, shared, own_traits(evidence), found)

    artifacts.write_rows(folder / artifacts.ROWS, rows)
    artifacts.write_json(folder / artifacts.FACTS, facts(settings, attribute))
    artifacts.seal(folder)


if __name__ == "__main__":
    run(main)
