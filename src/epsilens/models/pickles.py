"""Files of `torch.save` that a stranger has written, read without running anything that is in them.

A pickle is a program: it may name any function of any module and have it called. `torch.load(weights_only=True)` allows a
list of harmless names and refuses the file otherwise; checkpoints that were pickled with dill, as those of MadryLab's
robustness may be, need more for what lies beside their weights (schedules, arguments). For these there is a reader here that
imports and calls nothing: five names mean a tensor, a parameter, a mapping or a type of numbers, every other name means
`Inert`, which does nothing whatever the pickle does with it. Tensors are cut from the bytes of the file afterwards.
"""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

ZIP = b"PK\x03\x04"
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of torch.save before its zip files (torch < 1.6)


def load(content: bytes) -> Any:
    """What torch.save has written, with tensors on the CPU; unknown objects are `Inert`.

    Raises whatever is raised by the readers of torch, zipfile and pickle for damaged and strange files. A flipped bit is
    found in zip files, which have checksums; older files have none.
    """
    if content.startswith(ZIP):
        _check_zip(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats; what cannot be read is an error
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return load_inert(content)


def load_inert(content: bytes) -> Any:
    """As `load`, by the reader of this module alone."""
    storages: dict[str, bytes] = {}
    tree = (_read_zip if content.startswith(ZIP) else _read_legacy)(content, storages)
    return _with_tensors(tree, storages)


class _Sealed(type):
    """A class that a pickle cannot change: the BUILD instruction would set attributes of it."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise TypeError(f"{cls.__name__}.{name} cannot be set")


class _InertType(_Sealed):
    def __call__(cls, *_: object, **__: object) -> Any:
        return cls

    def __setitem__(cls, key: object, value: object) -> None:
        return None


class Inert(metaclass=_InertType):
    """Stands for everything that is not known. Called, made, filled or restored, it is itself and does nothing."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return cls

    @staticmethod
    def _nothing(*_: object) -> None:
        return None

    __setstate__ = append = extend = add = _nothing


class _Dict(dict, metaclass=_Sealed):  # type: ignore[type-arg]  # of whatever the pickle holds
    """An OrderedDict, without the attributes (metadata of versions) that torch gives it."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        return None


class _Slice(NamedTuple):
    """A tensor, as a pickle describes it."""

    storage: tuple[str, torch.dtype]
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Tensor(metaclass=_Sealed):
    def __new__(cls, storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> Any:
        return _Slice(storage, offset, size, stride)


class _Parameter(metaclass=_Sealed):
    def __new__(cls, data: object, *_: object) -> Any:
        return data


KNOWN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_tensor"): _Tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "BFloat16Storage"): torch.bfloat16,
    ("torch", "LongStorage"): torch.int64,
    ("torch", "IntStorage"): torch.int32,
    ("torch", "ShortStorage"): torch.int16,
    ("torch", "CharStorage"): torch.int8,
    ("torch", "ByteStorage"): torch.uint8,
    ("torch", "BoolStorage"): torch.bool,
}


class _Unpickler(pickle.Unpickler):
    """Knows the names of KNOWN and no other, and takes down which storages are asked for."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self.dtypes: dict[str, torch.dtype] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return KNOWN.get((module_name, global_name), Inert)

    def persistent_load(self, pid: Any, /) -> Any:
        kind, dtype, key, _, _, *view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or any(view):
            return Inert  # a module with its source, a storage without a type, a view of a storage
        return str(key), self.dtypes.setdefault(str(key), dtype)


def _check_zip(content: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("compressed members, which torch.save does not write")
        damaged = archive.testzip()  # torch.load itself does not look at the checksums
        if damaged:
            raise ValueError(f"{damaged} does not have its checksum: the file is damaged")


def _read_zip(content: bytes, storages: dict[str, bytes]) -> Any:
    """torch >= 1.6: an archive of <name>/data.pkl and <name>/data/<key>, nothing of it compressed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
            raise ValueError("big-endian numbers")
        reader = _Unpickler(io.BytesIO(archive.read(members["data.pkl"])))
        tree = reader.load()
        storages.update({key: archive.read(members[f"data/{key}"]) for key in reader.dtypes})
    return tree


def _read_legacy(content: bytes, storages: dict[str, bytes]) -> Any:
    """torch < 1.6: five pickles one after the other, then each storage with the number of its elements before it."""
    file = io.BytesIO(content)
    if [_Unpickler(file).load() for _ in range(2)] != [MAGIC, PROTOCOL]:
        raise ValueError("not a file of torch.save")
    if _Unpickler(file).load().get("little_endian") is not True:
        raise ValueError("big-endian numbers")
    reader = _Unpickler(file)
    tree = reader.load()
    for key in _Unpickler(file).load():
        size = int.from_bytes(file.read(8), "little") * reader.dtypes[key].itemsize
        storages[key] = file.read(size)
        if len(storages[key]) < size:
            raise EOFError(f"storage {key} ends too early")
    return tree


def _with_tensors(tree: Any, storages: Mapping[str, bytes]) -> Any:
    """The mappings of the first two levels, where weights are, with tensors for their slices."""
    numbers: dict[str, Tensor] = {}

    def cut(part: _Slice) -> Tensor:
        if not isinstance(part.storage, tuple):
            raise ValueError("a tensor of a kind that is not known")
        key, dtype = part.storage
        if key not in numbers:  # tensors of one storage share it: nothing is copied for each
            held = storages[key]
            numbers[key] = torch.frombuffer(bytearray(held), dtype=dtype) if held else torch.empty(0, dtype=dtype)
        return numbers[key].as_strided(part.size, part.stride, part.offset)  # raises if it is not within its storage

    def plain(value: Any, levels: int) -> Any:
        if isinstance(value, _Slice):
            return cut(value)
        if isinstance(value, dict):
            return {key: plain(item, levels - 1) for key, item in value.items()} if levels else Inert
        return value

    return plain(tree, levels=2)
