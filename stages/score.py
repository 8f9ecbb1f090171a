"""Metrics of the attribution maps of one network, as rows."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from epsilens import artifacts, config, metrics
from epsilens.attributions import ATTRIBUTIONS, explainers
from epsilens.attributions.config import AttributeConfig
from epsilens.attributions.randomise import randomised
from epsilens.data.manifest import read_split
from epsilens.metrics.config import ScoreConfig
from epsilens.metrics.evidence import Evidence
from epsilens.metrics.recalled import Recalled
from epsilens.models.checkpoints import load
from epsilens.randomness import noise_seeds
from epsilens.registry import choose, labelled
from epsilens.types import Explainer
from stages.common import cell, device, params, run


def unlearned(network: nn.Module, score: ScoreConfig, attribute: AttributeConfig) -> Mapping[str, Explainer]:
    """The same methods on the network with random weights, where a metric asks for them."""
    if not any(name.partition("@")[0] == "randomisation" for name in score.metrics):
        return {}
    return explainers(randomised(network, score.seed), attribute, references)


def references() -> Tensor:
    """The images that some methods compare with."""
    return read_split(artifacts.PREPARED, "train").images


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
    methods, predict = explainers(network, attribute, references), Recalled(network)
    for method, explain in methods.items():
        given = maps[method].to(device())
        evidence = Evidence(images, targets, given, samples.masks, seeds, predict, explain, settings.batch_size, drawn)
        evidence = replace(evidence, randomised=unlearnt.get(method))
        scores = metrics.score(evidence, settings.metrics)
        for metric, values in scores.items():
            columns = (samples.ids.tolist(), correct, [method] * len(samples), [metric] * len(samples), values.tolist())
            for name, column in zip(rows, columns, strict=True):
                rows[name] += column
        print(method, *(f"{metric} {values.nanmean():.3f}" for metric, values in scores.items()), sep="  ", flush=True)

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
