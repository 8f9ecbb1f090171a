"""Trained networks on disk: safetensors, and a JSON card that says how to rebuild the network and what it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from epsilens import artifacts
from epsilens.errors import ConfigError, DataError
from epsilens.models import build

WEIGHTS = "model.safetensors"
CARD = "card.json"


class Card(BaseModel):
    """What `load` needs of a card; a card has more."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    architecture: str
    options: dict[str, Any]
    class_names: Annotated[list[str], Field(min_length=1)]
    mean: Annotated[list[float], Field(min_length=1)]
    std: list[Annotated[float, Field(gt=0)]]
    sha256: str


def save(folder: Path, state: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write model.safetensors and card.json; the card gets the SHA-256 of the weights.

    card: architecture, options, class_names, mean, std (what `load` needs), and whatever else a reader should know.
    Raises DataError if a weight is not finite.
    """
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise DataError(f"{folder / WEIGHTS}: {name} holds NaN or infinity; not written")
    artifacts.write_tensors(folder / WEIGHTS, state)
    artifacts.write_json(folder / CARD, {**card, "sha256": artifacts.sha256(folder / WEIGHTS)})


def load(folder: Path, device: str) -> nn.Module:
    """The network of a folder written by `save`: in eval mode, its parameters frozen, in channels_last layout.

    Raises DataError if a file is missing or damaged, or if weights and architecture do not fit each other.
    """
    card = _card(folder / CARD)
    state = artifacts.read_tensors(folder / WEIGHTS, card.sha256)
    try:
        network = build(card.architecture, card.options, len(card.class_names), card.mean, card.std, seed=0)
    except (ConfigError, RuntimeError) as error:
        reason = str(error).removeprefix("params.yaml: ")
        raise DataError(f"{folder / CARD}: describes no network that can be built: {reason}") from None
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(f"{folder / WEIGHTS}: is no {card.architecture} as its card says: {error}") from None
    network.eval().requires_grad_(False)
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it


def _card(path: Path) -> Card:
    try:
        card = Card.model_validate(artifacts.read_json(path))
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        key = ".".join(map(str, wrong["loc"])) or "the card"
        raise DataError(f"{path}: {key}: {wrong['msg']}") from None
    if len(card.mean) != len(card.std):
        raise DataError(f"{path}: found {len(card.mean)} means and {len(card.std)} deviations, expected one a channel")
    return card
