"""Networks that others have trained and published, read into the architectures of this project.

A checkpoint is a mapping of names to weights (a state dict), by itself or under one of NESTED, its names with or without
the `module.` of DataParallel. LAYOUTS says what else may be in it. The names are those of torchvision or of robustness'
CIFAR networks, which are the same networks under other names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from epsilens.errors import ConfigError, DataError
from epsilens.models import pickles
from epsilens.models.resnet import ResNet

NESTED = ("model", "state_dict", "net")
WRAPPED = "module."
SHOWN = 5  # names in a message; the others are counted

State = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """What the names of a state dict begin with: its network, its normalisation, and what repeats parts of them."""

    network: str
    mean: str
    std: str
    repeated: Mapping[str, str]
    source: str


LAYOUTS: dict[str, Layout] = {
    "robustness": Layout(
        network="model.",
        mean="normalizer.new_mean",
        std="normalizer.new_std",
        repeated={
            "attacker.model.": "model.",
            "attacker.normalize.": "normalizer.",
        },
        source="robustness.attacker.AttackerModel",
    ),
    "plain": Layout("", "", "", {}, "torchvision and others: weights only"),
}

# Torchvision's names for ours and for those of robustness' CIFAR networks.
STEM = {"features.0": "conv1", "features.1": "bn1"}
PARTS = {"head": "fc", "linear": "fc", "shortcut": "downsample"}


@dataclass(frozen=True)
class Published:
    """A published network: its weights under torchvision's names, its normalisation if it has one, where it is from."""

    path: Path
    state: State
    mean: list[float] | None
    std: list[float] | None
    facts: dict[str, Any]  # for the card


def read(path: Path) -> Published:
    """Raises DataError that names the file if it is missing, is no checkpoint, or holds NaN or infinity."""
    content = _content(path)
    try:
        tree = pickles.load(content)
    except Exception as error:  # torch, zipfile and pickle raise a dozen types for damaged files, some without a word
        words = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: is no checkpoint that can be read: {type(error).__name__}: {words}") from None
    under, state = _state(path, tree)
    name = next((n for n, layout in LAYOUTS.items() if layout.mean in state), "plain")
    weights, mean, std = _parts(path, state, LAYOUTS[name])
    facts = {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), "layout": name, "under": under}
    return Published(path, _with_torchvision_names(path, weights), mean, std, facts)


def normalisation(
    found: Published, mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[list[float], list[float]]:
    """The mean and deviation of each channel that the network was trained with: its own, or else those of params.yaml.

    Raises ConfigError if there are neither, or if both are there and differ; DataError if images have other channels.
    """
    for key, own, given in (("mean", found.mean, mean), ("std", found.std, std)):
        if own is None and given is None:
            raise ConfigError(
                f"params.yaml: train.{key}: found null, but {found.path} holds no normalisation of its own "
                f"(layout {found.facts['layout']}); write down the one that the network was trained with"
            )
        if own is not None and given is not None and not _same(own, given):
            shown = ", ".join(f"{value:.6g}" for value in own)
            raise ConfigError(
                f"params.yaml: train.{key}: found {list(given)}, but {found.path} was trained with {shown}; say null"
            )
    means, stds = list(found.mean or mean or ()), list(found.std or std or ())
    if len(means) != channels:
        raise DataError(f"{found.path}: is for {len(means)} channels, but the images of the data set have {channels}")
    return means, stds


def fill(network: nn.Sequential, found: Published, what: str) -> None:
    """Put the weights into a network of `models.build`, whose normalisation stays as it is.

    what: the name of its architecture, for messages. Raises DataError if weights are missing, left over or of another
    shape; what a network counts its batches with may be missing.
    """
    names = _torchvision_names(network[1])
    target = {names[key]: value for key, value in network[1].state_dict().items()}
    counters = {key: value for key, value in target.items() if key.endswith("num_batches_tracked")}
    state = counters | found.state
    _check_classes(found, target)
    misfits = _misfits(target, state)
    if misfits:
        raise DataError(f"{found.path}: is no {what} (names as torchvision has them): {'; '.join(misfits)}")
    network[1].load_state_dict({ours: state[theirs] for ours, theirs in names.items()})


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; train.checkpoints in params.yaml names it "
            "(relative paths start at the raw data folder, the environment variable EPSILENS_DATA)"
        ) from None
    if not content:
        raise DataError(f"{path}: is empty (0 bytes), expected a checkpoint")
    return content


def _state(path: Path, tree: Any) -> tuple[str, State]:
    """(the key that it is under, the state dict without `module.`)."""
    if not isinstance(tree, Mapping):
        raise DataError(f"{path}: holds {_kind(tree)}, expected a state dict (names and weights) or a mapping with one")
    under = next((key for key in NESTED if isinstance(tree.get(key), Mapping)), "")
    state = tree[under] if under else tree
    strange = [str(key) for key, value in state.items() if not (isinstance(key, str) and _is_plain(value))]
    if strange or not state:
        where = f"under {under!r}" if under else f"as such or under {', '.join(NESTED)}"
        raise DataError(f"{path}: holds no state dict {where}: no weights are {_some(strange) or 'there'}")
    if all(key.startswith(WRAPPED) for key in state):
        state = {key.removeprefix(WRAPPED): value for key, value in state.items()}
    wrong = [key for key, value in state.items() if value.is_floating_point() and not _finite(value)]
    if wrong:
        raise DataError(f"{path}: NaN, infinity or numbers beyond float32 in {_some(wrong)}")
    negative = [key for key, value in state.items() if key.endswith("running_var") and (value < 0).any()]
    if negative:
        raise DataError(f"{path}: variances below 0 in {_some(negative)}")
    return under, dict(state)


def _parts(path: Path, state: State, layout: Layout) -> tuple[State, list[float] | None, list[float] | None]:
    """Weights, mean and deviation of a state dict in a layout. Raises DataError for parts that contradict or lack."""
    for prefix, original in layout.repeated.items():
        for key in [key for key in state if key.startswith(prefix)]:
            first = state.get(original + key.removeprefix(prefix))
            if first is None or not torch.equal(first, state.pop(key)):
                raise DataError(f"{path}: {key} is not what it should repeat, {original}{key.removeprefix(prefix)}")
    if not layout.mean:
        return state, None, None
    mean, std = (state.pop(key, torch.zeros(0)).flatten().float() for key in (layout.mean, layout.std))
    unit = (mean >= 0).all() and (mean <= 1).all() and (std > 0).all() and (std <= 1).all()
    if not len(mean) == len(std) > 0 or not unit:
        found = f"found {mean.tolist()} and {std.tolist()}"
        raise DataError(
            f"{path}: {layout.mean}, {layout.std}: {found}, expected for each channel a number in [0, 1] and one above 0, "
            "for pixels in [0, 1]"
        )
    outside = [key for key in state if not key.startswith(layout.network)]
    if outside:
        raise DataError(f"{path}: {_some(outside)}: not known in this layout ({layout.source})")
    return {key.removeprefix(layout.network): value for key, value in state.items()}, mean.tolist(), std.tolist()


def _torchvision_names(network: nn.Module) -> dict[str, str]:
    """Torchvision's name of each weight of a ResNet, by ours."""
    if not isinstance(network, ResNet):
        raise DataError(f"{type(network).__name__}: published weights are known for residual networks only")
    places = [f"layer{stage}.{block}" for stage, count in enumerate(network.blocks, 1) for block in range(count)]
    modules = STEM | {f"features.{network.stem + i}": place for i, place in enumerate(places)}
    names = {}
    for key in network.state_dict():
        first, second, *rest = key.split(".")
        module = modules.get(f"{first}.{second}")
        names[key] = _renamed(".".join([module, *rest]) if module else key)
    return names


def _with_torchvision_names(path: Path, weights: State) -> State:
    renamed = {_renamed(key): value for key, value in weights.items()}
    if len(renamed) < len(weights):
        raise DataError(f"{path}: has weights under two names of the same, e.g. linear and fc")
    return renamed


def _renamed(key: str) -> str:
    return ".".join(PARTS.get(part, part) for part in key.split("."))


def _check_classes(found: Published, target: State) -> None:
    head, wanted = found.state.get("fc.bias"), len(target["fc.bias"])
    if head is not None and head.dim() == 1 and len(head) != wanted:
        raise DataError(f"{found.path}: is a network of {len(head)} classes, but the data set has {wanted}")


def _misfits(target: State, state: State) -> list[str]:
    """What does not fit, a phrase each for what is missing, left over and of another shape."""
    other = [
        f"{key} {_shape(state[key])} for {_shape(value)}"
        for key, value in target.items()
        if key in state and _shape(state[key]) != _shape(value)
    ]
    found = {
        "missing": [key for key in target if key not in state],
        "unexpected": [key for key in state if key not in target],
        "of another shape": other,
    }
    return [f"{kind}: {_some(keys)}" for kind, keys in found.items() if keys]


def _shape(value: Tensor) -> str:
    return f"{list(value.shape)}" + ("" if value.is_floating_point() else " of integers")


def _some(names: Collection[str]) -> str:
    """The first of them, and how many there are besides."""
    shown = ", ".join(list(names)[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _is_plain(value: object) -> bool:
    """Whether it is a tensor of real numbers, one after the other in memory."""
    if not isinstance(value, Tensor) or value.is_quantized or value.is_complex():
        return False
    dense = value.layout is torch.strided and value.device.type == "cpu"
    return (
        dense and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    )  # no number stands for many


def _finite(value: Tensor) -> bool:
    return bool(value.float().isfinite().all())


def _same(own: Sequence[float], given: Sequence[float]) -> bool:
    """Up to the rounding to float32 that a checkpoint has gone through."""
    return len(own) == len(given) and all(abs(a - b) <= 1e-6 * abs(a) for a, b in zip(own, given, strict=True))


def _kind(tree: Any) -> str:
    return "a pickled object" if tree is pickles.Inert else f"a {type(tree).__name__}"
