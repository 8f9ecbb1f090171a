"""The confound audit: the metrics of a network whose maps are merely rescaled, blurred, or taken at another temperature.

A robust network has smaller gradients, smoother maps and lower confidence. What a metric gains by these alone, without any
robustness, is no gain in explanation. Each change is made to the functions `explain` and `predict`, so that neighbours, maps
of other classes and mosaics are changed as the map itself is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from epsilens.metrics.config import AuditConfig
from epsilens.metrics.evidence import Evidence, Layers
from epsilens.metrics.traits import traits
from epsilens.progress import Done, untold
from epsilens.types import Attributions, Explainer, Scores

Tempered = Callable[[float], Explainer]  # the method on the network whose logits are divided by a temperature


@dataclass(frozen=True)
class Change:
    """One change of one amount: `made` gives the evidence of the changed network."""

    kind: str
    amount: float
    made: Callable[[Evidence], Evidence]


@dataclass(frozen=True)
class Audited:
    """Scores and traits of all images under one change."""

    kind: str
    amount: float
    scores: Mapping[str, Scores]
    traits: Mapping[str, Scores]


def changes(config: AuditConfig, tempered: Tempered) -> Iterator[Change]:
    """All that the section asks for: scale, blur, temperature."""
    for factor in config.scale:
        yield Change("scale", factor, partial(_with_maps, partial(torch.mul, other=factor)))
    for sigma in config.blur:
        yield Change("blur", sigma, partial(_with_maps, partial(blurred, sigma=sigma)))
    for temperature in config.temperature:
        yield Change("temperature", temperature, partial(_at_temperature, tempered(temperature), temperature))


def audited(
    evidence: Evidence,
    metrics: Mapping[str, Callable[[Evidence], Scores]],
    asked: Iterator[Change],
    done: Done = untold,
) -> list[Audited]:
    """Every metric and trait under every change. What changes have in common (the network's own maps and answers at the
    same images) is computed once for a part of the evidence. done: told of maps, one a change."""
    wanted = list(asked)

    def compute(part: Evidence) -> list[Audited]:
        shared = replace(part, explain=once(part.explain), predict=once(part.predict))
        return [_audited(change, change.made(shared), metrics) for change in wanted]

    parts = evidence.by_part(compute, lambda rows: done(rows * len(wanted)))
    return [_joined(list(of_change)) for of_change in zip(*parts, strict=True)]


def _audited(change: Change, made: Evidence, metrics: Mapping[str, Callable[[Evidence], Scores]]) -> Audited:
    scores = {name: compute(made) for name, compute in metrics.items()}
    return Audited(change.kind, change.amount, scores, traits(made.attributions, made.logits()))


def own_traits(evidence: Evidence) -> dict[str, Scores]:
    """The traits of all images as they are."""
    return _together(evidence.by_part(lambda part: traits(part.attributions, part.logits())))


def blurred(maps: Attributions, sigma: float) -> Attributions:
    """Each channel of the signed maps `[..., H, W]` under a Gaussian of `sigma` pixels, cut off at 4 sigma.

    Near the border the weights that are left are raised to sum to 1, so that a constant map stays what it is, and a map
    of any size can be blurred.
    """
    down, across = (_bell(size, sigma).to(maps.device) for size in maps.shape[-2:])
    return (down @ maps.double() @ across.T).to(maps.dtype)


def once(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function of tensors, computed once for arguments that are the same to the bit."""
    known: dict[str, Tensor] = {}

    def call(*given: Tensor) -> Tensor:
        key = _digest(given)
        if key not in known:
            known[key] = function(*given)
        return known[key]

    return call


def _with_maps(change: Callable[[Attributions], Attributions], evidence: Evidence) -> Evidence:
    inner, unlearned = evidence.explain, evidence.randomised

    def explain(*given: Tensor) -> Attributions:
        return change(inner(*given))

    def explain_random(layers: Layers) -> Explainer:
        assert unlearned is not None
        random = unlearned(layers)
        return lambda *given: change(random(*given))

    maps, other = change(evidence.attributions), None if unlearned is None else explain_random
    return replace(evidence, attributions=maps, explain=explain, randomised=other, _done={})


def _at_temperature(explain: Explainer, temperature: float, evidence: Evidence) -> Evidence:
    """The network with random weights stays as it is: its maps are compared by their order alone."""
    seeds = evidence.seeds if evidence.map_seeds is None else evidence.map_seeds
    maps, predict = explain(evidence.images, evidence.targets, seeds), evidence.predict
    return replace(
        evidence, attributions=maps, explain=explain, predict=lambda images: predict(images) / temperature, _done={}
    )


def _bell(size: int, sigma: float) -> Tensor:
    """Row i: the weights of all places for the place i, float64 `[size, size]`."""
    places = torch.arange(size, dtype=torch.float64)
    away = places[:, None] - places
    weights = torch.exp(-0.5 * (away / sigma) ** 2) * (away.abs() <= max(1.0, 4 * sigma))
    return weights / weights.sum(dim=1, keepdim=True)


def _digest(given: tuple[Tensor, ...]) -> str:
    found = hashlib.blake2b()
    for tensor in given:
        found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().data)
    return found.hexdigest()


def _joined(parts: list[Audited]) -> Audited:
    first = parts[0]
    scores, its_traits = [part.scores for part in parts], [part.traits for part in parts]
    return Audited(first.kind, first.amount, _together(scores), _together(its_traits))


def _together(tables: Sequence[Mapping[str, Scores]]) -> dict[str, Scores]:
    return {name: torch.cat([table[name] for table in tables]) for name in tables[0]}
