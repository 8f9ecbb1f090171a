"""Reading what a stranger has pickled: all tensors of the usual kinds, and nothing that runs."""

from __future__ import annotations

import builtins
import collections
import contextlib
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dill
import pytest
import torch

from epsilens.models import pickles
from epsilens.models.pickles import KNOWN, Inert, load, load_inert

FORMATS = {"zip": True, "legacy": False}


def saved(content: Any, zipped: bool, module: Any = pickle) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped, pickle_module=module)
    return file.getvalue()


def archive(program: bytes, **members: bytes) -> bytes:
    """A file of torch.save with a pickle written by hand."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("archive/data.pkl", program)
        opened.writestr("archive/version", "3\n")
        for name, content in members.items():
            opened.writestr(f"archive/data/{name}", content)
    return file.getvalue()


class Call:
    """Pickled, it calls a function when it is read by the book."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.pair = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.pair


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("read", [load, load_inert])
def test_tensors_come_back_as_they_were(read: Callable[[bytes], Any], zipped: bool) -> None:
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
             torch.int8, torch.uint8, torch.bool]  # fmt: skip
    whole = torch.arange(24.0).view(4, 6)
    state = OrderedDict({str(kind): torch.arange(3).to(kind) for kind in kinds})
    state |= {"part": whole[1:3, ::2], "turned": whole.t(), "scalar": torch.tensor(7.5), "empty": torch.zeros(0, 3)}
    state["parameter"] = torch.nn.Parameter(torch.rand(2))
    state._metadata = OrderedDict(version=1)  # type: ignore[attr-defined]  # as nn.Module.state_dict does
    found = read(saved({"model": state, "epoch": 3}, zipped))
    assert found["epoch"] == 3
    assert list(found["model"]) == list(state)
    for name, value in state.items():
        assert found["model"][name].dtype == value.dtype
        assert torch.equal(found["model"][name], value), name


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("module", [pickle, dill], ids=lambda module: module.__name__)
def test_a_bomb_does_not_go_off(zipped: bool, module: Any, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    bombs = [
        Call(os.system, f"touch {mark}"),
        Call(builtins.eval, f"open({str(mark)!r}, 'w')"),
        Call(builtins.exec, f"open({str(mark)!r}, 'w')"),
        Call(builtins.getattr, Call(__import__, "os"), "system"),
        Call(os.mkdir, str(mark)),
    ]
    weights = torch.rand(3)
    nested = {"deep": [{"deeper": (bomb,)} for bomb in bombs]}
    content = {"model": {"w": weights, "bomb": bombs[0]}, "a": bombs, "b": nested, bombs[1]: 1}
    found = load(saved(content, zipped, module))
    assert not mark.exists()
    assert torch.equal(found["model"]["w"], weights)
    assert found["model"]["bomb"] is Inert
    assert found["a"] == [Inert] * len(bombs)
    pickle.loads(pickle.dumps(bombs[0]))  # read by the book it does go off
    assert mark.exists()


PROGRAMS = {  # every instruction that makes, calls or changes an object
    "GLOBAL REDUCE": b"cos\nsystem\n(V%s\ntR.",
    "STACK_GLOBAL REDUCE": b"\x80\x04\x8c\x02os\x8c\x06system\x93(V%s\ntR.",
    "a name with dots": b"\x80\x04\x8c\x08builtins\x8c\x0deval.__call__\x93(V%s\ntR.",
    "INST": b"(V%s\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nV%s\no.",
    "NEWOBJ": b"\x80\x02csubprocess\nPopen\n(V%s\nt\x81.",
    "NEWOBJ_EX": b"\x80\x04csubprocess\nPopen\n(V%s\nt}\x92.",
    "BUILD": b"cos\nsystem\n(V%s\ntR}(V__class__\ncos\nsystem\nub.",
    "SETITEMS": b"cos\nenviron\n(VEPSILENS_BOMB\nV%s\nu.",
    "APPENDS": b"csys\npath\n(V%s\ne.",
    "ADDITEMS": b"\x80\x04csys\nmodules\n(V%s\n\x90.",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_instruction_reaches_anything_real(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    program = PROGRAMS[name] % f"touch {mark}".encode()
    assert load_inert(archive(program)) is Inert
    assert load(archive(program)) is Inert
    assert not mark.exists()
    assert "EPSILENS_BOMB" not in os.environ


@pytest.mark.parametrize("name", [*KNOWN, ("os", "system")], ids=".".join)
def test_nothing_that_a_name_means_can_be_changed(name: tuple[str, str]) -> None:
    """BUILD with a pair sets attributes: of a class or a function it would change what the next file is read with."""
    module, attribute = name
    program = f"c{module}\n{attribute}\n".encode() + b"(N}Vepsilens_mark\nI1\nstb."
    with contextlib.suppress(TypeError, AttributeError):  # it may be refused
        load_inert(archive(program))
    assert not hasattr(KNOWN.get(name, Inert), "epsilens_mark")
    assert not hasattr(collections.OrderedDict, "epsilens_mark")


def piece(
    size: str = "(I2\nt", offset: str = "I0\n", key: str = "V0\n", stride: str = "(I1\nt", view: str = ""
) -> bytes:
    """A tensor of float32, by hand."""
    storage = f"(Vstorage\nctorch\nFloatStorage\n{key}Vcpu\nI2\n{view}tQ"
    return f"ctorch._utils\n_rebuild_tensor_v2\n({storage}{offset}{size}{stride}I00\nNtR.".encode()


def test_a_tensor_lies_within_its_storage() -> None:
    numbers = torch.tensor([1.5, 2.5])
    content = numbers.numpy().tobytes()
    assert torch.equal(load_inert(archive(piece(), **{"0": content})), numbers)
    for wrong in (
        {"size": "(I3\nt"},
        {"offset": "I1\n"},
        {"stride": "(I7\nt"},
        {"offset": "I-1\n"},
        {"size": "(I-2\nt"},
    ):
        with pytest.raises(RuntimeError):
            load_inert(archive(piece(**wrong), **{"0": content}))
    for short in ({}, {"0": content[:-1]}, {"0": content[:4]}):
        with pytest.raises((RuntimeError, ValueError, KeyError)):
            load_inert(archive(piece(), **short))
    assert torch.equal(load_inert(archive(piece(view="N"), **{"0": content})), numbers)
    with pytest.raises(ValueError, match="not known"):  # a view of a part of a storage, as very old files have them
        load_inert(archive(piece(view="(V0\nI1\nI1\nt"), **{"0": content}))
    with pytest.raises(ValueError, match="not known"):
        load_inert(archive(piece().replace(b"FloatStorage", b"StrangeStorage"), **{"0": content}))


def test_what_torch_save_does_not_write_is_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("archive/data.pkl", b"N.")
    with pytest.raises(ValueError, match="compressed"):
        load(file.getvalue())
    swapped = saved(torch.rand(2), True).replace(b"little", b"big\0\0\0")
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        load_inert(swapped)
    with pytest.raises(ValueError, match=r"not a file of torch\.save"):
        load_inert(pickle.dumps(1) + pickle.dumps(2))


def test_a_flipped_bit_in_a_zip_is_found() -> None:
    numbers = torch.rand(1000)
    content = bytearray(saved({"w": numbers}, True))
    place = bytes(content).index(numbers.numpy().tobytes()) + 2000
    content[place] ^= 1
    assert not torch.equal(torch.load(io.BytesIO(content), weights_only=True)["w"], numbers)  # silently
    with pytest.raises(ValueError, match="damaged"):
        load(bytes(content))


def test_a_legacy_file_that_ends_in_a_storage_is_refused() -> None:
    whole = saved({"a": torch.rand(5), "b": Call(os.getcwd)}, False)
    assert load(whole)["b"] is Inert
    for cut in (1, 4, 19, 21):
        with pytest.raises(EOFError, match="too early"):
            load_inert(whole[:-cut])


def test_what_refers_to_itself_ends() -> None:
    endless: dict[str, Any] = {"w": torch.rand(1), "bomb": Call(os.getcwd)}
    endless["again"] = endless
    assert set(pickles.load(saved(endless, True))) == set(endless)
