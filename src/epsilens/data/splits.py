"""One source, split once: who is trained on, selected on, tested on, explained."""

from __future__ import annotations

import torch
from torch import Tensor

from epsilens.data.config import DataConfig
from epsilens.data.source import Known, Source
from epsilens.errors import ConfigError
from epsilens.randomness import generator
from epsilens.types import Labels, Samples


def check(config: DataConfig, known: Known) -> None:
    """Raises ConfigError, as `split` would, for what a source of a known size cannot give."""
    held = config.holdout if known.test == 0 or config.holdout_by == "masked" else 0
    if known.train is not None:
        _check_size("holdout", held, known.train - 2)
        _check_size("validation", config.validation, known.train - held - 1)
    if known.test is not None:
        _check_holdout(known.test or None, config)
        _check_size("evaluation", config.evaluation, known.test + held)


def split(source: Source, config: DataConfig) -> dict[str, Samples]:
    """train, validation, test, evaluation (a part of test), then the source's extras; each in the order of its ids.

    The draws depend on `data.seed` and the labels alone; with `data.evaluation_masked`, evaluation is drawn from the test
    images that have a mask as if there were no others. Raises ConfigError if a split is larger than what there is to draw
    from, if it would take every training image of a class, or if `data.holdout` contradicts the source.
    """
    _check_holdout(None if source.test is None else len(source.test), config)
    train, test = source.train, source.test
    if test is None or config.holdout_by == "masked":
        _check_size("holdout", config.holdout, len(train) - 2)  # one image each for training and validation
        train, held = _part(train, _holdout(train, config))
        test = held if test is None else _joined(test, held)
    _check_size("validation", config.validation, len(train) - 1)
    train, validation = _part(train, stratified(train.labels, config.validation, config.seed, "validation"))
    _check_classes(source, train)
    evaluation = _evaluation(test, config)
    return {"train": train, "validation": validation, "test": test, "evaluation": evaluation, **source.extras}


def _evaluation(test: Samples, config: DataConfig) -> Samples:
    _check_size("evaluation", config.evaluation, len(test))
    if config.evaluation_masked:
        masked = test.masks.flatten(1).any(dim=1)
        found = int(masked.sum())
        if config.evaluation > found:
            raise ConfigError(
                f"params.yaml: data.evaluation: found {config.evaluation}, expected at most {found}: so many of the "
                f"{len(test)} test images have a mask, and data.evaluation_masked is true; lower it, or say false"
            )
        test = test[masked]
    return _part(test, stratified(test.labels, config.evaluation, config.seed, "evaluation"))[1]


def stratified(labels: Labels, count: int, seed: int, key: str) -> Tensor:
    """bool [N]: `count` images drawn without replacement, from every class its proportional share.

    Which images of a class are drawn depends on the seed, the key and the class, not on the other classes.
    """
    shares = apportion(torch.bincount(labels).tolist(), count)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label, share in enumerate(shares):
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator(seed, key, label))
        chosen[members[order[:share]]] = True
    return chosen


def part_of(samples: Samples, count: int, seed: int, key: str) -> Samples:
    """A stratified part of `count` images, all of them if `count` is 0; the same for every network.

    `key` is the parameter that says how many. Raises ConfigError if there are fewer.
    """
    if count > len(samples):
        raise ConfigError(f"params.yaml: {key}: found {count}, expected at most {len(samples)} for this data set")
    return samples[stratified(samples.labels, count, seed, key)] if count else samples


def apportion(sizes: list[int], count: int) -> list[int]:
    """`count` seats for classes of these sizes, by largest remainders; of equal remainders the lower label's first.

    Never more seats than the class has members, if `count` <= sum(sizes).
    """
    total = sum(sizes)
    seats = [size * count // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda label: (-(sizes[label] * count % total), label))
    for label in by_remainder[: count - sum(seats)]:
        seats[label] += 1
    return seats


def _holdout(train: Samples, config: DataConfig) -> Tensor:
    """bool [N]: the training images that become test images."""
    if config.holdout_by == "last":
        return torch.arange(len(train)) >= len(train) - config.holdout
    eligible = torch.ones(len(train), dtype=torch.bool)
    if config.holdout_by == "masked":
        eligible = train.masks.flatten(1).any(dim=1)
        found = int(eligible.sum())
        if config.holdout > found:
            raise ConfigError(
                f"params.yaml: data.holdout: found {config.holdout}, expected at most {found}: so many of the "
                f"{len(train)} training images have a mask, and data.holdout_by is masked"
            )
    chosen = torch.zeros(len(train), dtype=torch.bool)
    chosen[eligible] = stratified(train.labels[eligible], config.holdout, config.seed, "holdout")
    return chosen


def _joined(own: Samples, held: Samples) -> Samples:
    """The source's own test images, then those held out of training, whose ids are counted on from the largest."""
    ids = torch.cat([own.ids, held.ids + int(own.ids.max()) + 1])
    images, labels, masks = (
        torch.cat([getattr(own, part), getattr(held, part)]) for part in ("images", "labels", "masks")
    )
    return Samples(images, labels, masks, ids)


def _part(samples: Samples, chosen: Tensor) -> tuple[Samples, Samples]:
    return samples[~chosen], samples[chosen]


def _check_holdout(test: int | None, config: DataConfig) -> None:
    """test: images of the source's own test split, None where it has none."""
    if test is None and config.holdout == 0:
        raise ConfigError(
            "params.yaml: data.holdout: found 0, expected 1 or more: the data set brings no test split, "
            "so some training images have to become one"
        )
    if config.holdout_by == "masked" and config.holdout == 0:
        raise ConfigError("params.yaml: data.holdout: found 0, expected 1 or more, because data.holdout_by is masked")
    if test is not None and config.holdout > 0 and config.holdout_by != "masked":
        raise ConfigError(
            f"params.yaml: data.holdout: found {config.holdout}, expected 0: the data set has a test split of its own "
            f"({test} images); where the loader has own_test, official_test keeps it beside a held-out one, and "
            "data.holdout_by: masked adds training images with masks to it"
        )


def _check_size(key: str, value: int, allowed: int) -> None:
    if value > allowed:
        raise ConfigError(f"params.yaml: data.{key}: found {value}, expected at most {allowed} for this data set")


def _check_classes(source: Source, train: Samples) -> None:
    """A class that was drawn away altogether would be tested on without ever having been trained."""
    lost = sorted(set(source.train.labels.tolist()) - set(train.labels.tolist()))
    if lost:
        names = ", ".join(source.class_names[label] for label in lost)
        raise ConfigError(
            f"params.yaml: data.holdout and data.validation: they leave no training image of {names}; "
            "lower them, or remove the class"
        )
