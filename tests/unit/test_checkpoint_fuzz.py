"""Damaged checkpoints and cards: the reader gives a network or a DataError that names the file, and nothing else ever."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epsilens import artifacts, models
from epsilens.errors import ConfigError, DataError
from epsilens.models import checkpoints, foreign

SIZES = {"width": 2, "stem_stride": 1}
CLASSES = ["a", "b", "c"]
CARD = {"architecture": "small_resnet", "options": SIZES, "class_names": CLASSES, "mean": [0.5] * 3, "std": [0.2] * 3}
RELAXED = settings(deadline=None, suppress_health_check=list(HealthCheck))


def network() -> torch.nn.Module:
    return models.build("small_resnet", SIZES, len(CLASSES), [0.5] * 3, [0.2] * 3, seed=0)


def saved(legacy: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": network().state_dict(), "epoch": 3}, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


WHOLE = [saved(legacy=False), saved(legacy=True)]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A checkpoint cut, spliced, overwritten and flipped, or any bytes at all."""
    content = bytearray(draw(st.sampled_from([*WHOLE, b"", b"PK\x03\x04", b"\x80\x02"])))
    if draw(st.booleans()) or not content:
        content += draw(st.binary(max_size=60))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        patch = draw(st.binary(min_size=1, max_size=8))
        content[at : at + len(patch)] = patch
    start, end = draw(st.integers(0, 20)), draw(st.integers(0, 400))
    if draw(st.booleans()):
        content = content[: len(content) - end]
    if draw(st.booleans()):
        content = content[start:]
    return bytes(content)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign") / "net.pt"


@given(content=damaged())
@RELAXED
def test_no_damage_gets_past_the_reader(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        found = foreign.read(path)
        foreign.fill(network(), found, "small_resnet")
    except DataError as error:
        assert "net.pt" in str(error)
        assert str(error).strip()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(key=st.sampled_from([*CARD, "sha256", ""]), value=JSON, drop=st.booleans())
@RELAXED
def test_no_card_gets_past_the_reader(path: Path, key: str, value: object, drop: bool) -> None:
    folder = path.parent / "own"
    checkpoints.save(folder, network().state_dict(), CARD)
    card = artifacts.read_json(folder / checkpoints.CARD)
    card = {name: part for name, part in card.items() if name != key} if drop else card | {key: value}
    text = json.dumps(card if key else value)
    (folder / checkpoints.CARD).write_text(text, encoding="utf-8")
    try:
        checkpoints.load(folder, "cpu")
    except (DataError, ConfigError) as error:
        assert str(error).strip()


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
@RELAXED
def test_no_flipped_bit_of_our_own_weights_gets_past_the_reader(path: Path, at: int, bit: int) -> None:
    folder = path.parent / "flipped"
    checkpoints.save(folder, network().state_dict(), CARD)
    weights = folder / checkpoints.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[at % len(content)] ^= 1 << bit
    weights.write_bytes(bytes(content))
    with pytest.raises(DataError, match="SHA-256"):
        checkpoints.load(folder, "cpu")
