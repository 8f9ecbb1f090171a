"""Metrics of the attribution maps of one network, as rows."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from epsilens import artifacts, config, metrics
from epsilens.attributions import ATTRIBUTIONS, References, explainers
from epsilens.attributions.config import AttributeConfig
from epsilens.attributions.randomise import randomised
from epsilens.data.manifest import read_manifest, read_split
from epsilens.metrics.config import ScoreConfig
from epsilens.metrics.evidence import Evidence, Layers
from epsilens.models.checkpoints import load
from epsilens.randomness import noise_seeds
from epsilens.registry import choose, labelled
from epsilens.types import Explainer
from stages.common import cell, device, params, run


def unlearned(
    network: nn.Module, seed: int, attribute: AttributeConfig, training: References
) -> Callable[[Layers], Mapping[str, Explainer]]:
    """The same methods on the network with that many random layers, made once, when a metric asks for them."""
    return cache(lambda layers: explainers(randomised(network, seed, layers), attribute, training))


def references() -> Tensor:
    """The images that some methods compare with."""
    return read_split(artifacts.PREPARED, "train").images


def main() -> None:
    text, epsilon, seed = cell(__doc__)
    raw = params()
    settings = config.section(raw, "score", ScoreConfig)
    attribute = config.section(raw, "attribute", AttributeConfig)
    metrics.check_classes(settings, len(read_manifest(artifacts.PREPARED)["class_names"]))
    network = load(artifacts.cell(artifacts.MODELS, text, seed), device())
    samples = read_split(artifacts.PREPARED, "evaluation").to(device())
    folder = artifacts.cell(artifacts.ATTRIBUTIONS, text, seed)
    maps = artifacts.read_tensors(folder / artifacts.MAPS)
    targets = torch.tensor(artifacts.read_rows(folder / artifacts.INDEX)["target"].to_pylist()).to(device())
    images, seeds, drawn = samples.pixels(), *(noise_seeds(s.seed, samples.ids) for s in (settings, attribute))
    correct = (targets == samples.labels).tolist()
    rows: dict[str, list[Any]] = {n: [] for n in ("image", "correct", "attribution", "metric", "score")}

    training = cache(references)
    unlearnt = unlearned(network, settings.seed, attribute, training)
    for method, explain in explainers(network, attribute, training).items():
        given = maps[method].to(device())
        evidence = Evidence(images, targets, given, samples.masks, seeds, network, explain, settings.batch_size, drawn)
        evidence = replace(evidence, randomised=lambda layers, method=method: unlearnt(layers)[method])
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
