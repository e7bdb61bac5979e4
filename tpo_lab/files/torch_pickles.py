"""What is in a file of `torch.save`, found without running any of it: names, shapes and types of tensors, and not their values.

Such a file holds a pickle, which is a program. Only the steps that build containers are run, and the few functions that rebuild tensors
are replaced by ones that write down a shape. Anything else that the file names is refused and never imported.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tpo_lab.errors import UsageError
from tpo_lab.files.tensor_entry import TYPES, TensorEntry

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_LARGEST_PICKLE = 1 << 29
"""Bytes of the part that names tensors: a few hundred for each, so this is a million of them."""
_DEEPEST = 50
_EXPECTED = "a file of tensors, containers, texts and numbers alone"
_HINT = "Nothing in the file was run."
_CODES = {code.name: ord(code.code) for code in pickletools.opcodes}
_NAMES = {code: name for name, code in _CODES.items()}
_STEPS = """
    PROTO FRAME STOP MARK POP POP_MARK DUP PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS EMPTY_SET ADDITEMS
    GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID
"""


@dataclass(frozen=True)
class _Storage:
    """Numbers in a row, as a file says that it has them.

    Attributes:
        dtype: "" where the tensor says it (untyped bytes).
    """

    dtype: str
    key: str
    numel: int


@dataclass(frozen=True)
class _Type:
    """A type of numbers, of a storage or a tensor."""

    name: str


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    storage: _Storage


@dataclass(frozen=True)
class _Value:
    """Something that is no tensor and is passed over."""


class _Call:
    """Stands for a function that the file names; only what is made here can be called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


def _rebuilt(storage: _Storage, offset: int, size: Any, stride: Any, *_: Any) -> _Tensor:
    return _tensor(storage, storage.dtype, offset, size, stride)


def _rebuilt_typed(storage: _Storage, offset: int, size: Any, stride: Any, grad: Any, hooks: Any, dtype: _Type, *_: Any) -> _Tensor:
    return _tensor(storage, dtype.name, offset, size, stride)


def _tensor(storage: _Storage, dtype: str, offset: int, size: Any, stride: Any) -> _Tensor:
    shape, steps = tuple(size), tuple(stride)
    whole = all(isinstance(number, int) and number >= 0 for number in (offset, *shape, *steps)) and len(shape) == len(steps)
    if not isinstance(storage, _Storage) or dtype not in TYPES or not whole:
        raise ValueError(f"a tensor of shape {shape} and type {dtype or 'unknown'}")
    last = offset + sum((length - 1) * step for length, step in zip(shape, steps, strict=True)) if all(shape) else -1
    held = storage.numel if storage.dtype else storage.numel // TYPES[dtype]
    if last >= held:
        raise ValueError(f"a tensor of shape {shape} in a storage of {held} numbers")
    return _Tensor(dtype, shape, storage)


def _same(first: Any, *_: Any) -> Any:
    return first


def _of_type(function: _Call, kind: Any, arguments: tuple[Any, ...], *_: Any) -> Any:
    return function.function(*arguments)


_STORAGES = {
    "Double": "F64",
    "Float": "F32",
    "Half": "F16",
    "BFloat16": "BF16",
    "Long": "I64",
    "Int": "I32",
    "Short": "I16",
    "Char": "I8",
    "Byte": "U8",
    "Bool": "BOOL",
    "ComplexDouble": "C128",
    "ComplexFloat": "C64",
    "Untyped": "",
}
_STORED_IN = ("torch", "torch.cuda", "torch.storage")
_DTYPES = {
    "float64": "F64",
    "double": "F64",
    "float32": "F32",
    "float": "F32",
    "float16": "F16",
    "half": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "long": "I64",
    "int32": "I32",
    "int": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "bool": "BOOL",
    "complex64": "C64",
    "complex128": "C128",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
_KNOWN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Call(dict),
    ("collections", "defaultdict"): _Call(lambda *_: {}),
    ("builtins", "set"): _Call(lambda *_: _Value()),
    ("__builtin__", "set"): _Call(lambda *_: _Value()),
    ("torch._utils", "_rebuild_tensor"): _Call(_rebuilt),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_rebuilt),
    ("torch._utils", "_rebuild_tensor_v3"): _Call(_rebuilt_typed),
    ("torch._utils", "_rebuild_parameter"): _Call(_same),
    ("torch._utils", "_rebuild_parameter_with_state"): _Call(_same),
    ("torch._tensor", "_rebuild_from_type_v2"): _Call(_of_type),
    ("torch.nn.parameter", "Parameter"): _Value(),
    ("torch", "Tensor"): _Value(),
    ("torch", "Size"): _Call(lambda sizes=(): tuple(sizes)),
    ("torch", "device"): _Call(lambda *_: _Value()),
    ("torch.serialization", "_get_layout"): _Call(lambda *_: _Value()),
    ("_codecs", "encode"): _Call(lambda *_: _Value()),
    ("numpy", "dtype"): _Call(lambda *_: _Value()),
    **{("numpy.core.multiarray", name): _Call(lambda *_: _Value()) for name in ("scalar", "_reconstruct")},
    **{("numpy._core.multiarray", name): _Call(lambda *_: _Value()) for name in ("scalar", "_reconstruct")},
    ("numpy", "ndarray"): _Value(),
    **{("torch", name): _Type(dtype) for name, dtype in _DTYPES.items()},
    **{
        (module, f"{name}Storage"): _Type(dtype) for name, dtype in _STORAGES.items() for module in ("torch", "torch.cuda", "torch.storage")
    },
}
"""What a file may name; every name stands for something of this module, and nothing is imported."""


class _Tensors(pickle._Unpickler):
    """The standard library's own machine, with fewer steps. Its twin in C cannot be given fewer."""

    def __init__(self, path: Path, file: io.BufferedIOBase) -> None:
        self.path, self.source = path, file
        super().__init__(file, encoding="utf-8")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _refusal(self.path, f"{module}.{name}")
        return _KNOWN[module, name]

    def persistent_load(self, identity: Any) -> _Storage:
        """A storage; the files of old had a view of it as a sixth entry."""
        if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
            raise _refusal(self.path, f"a reference to {str(identity)[:80]}")
        kind, key, _, numel = identity[1:5]
        if not isinstance(kind, _Type) or not isinstance(numel, int) or numel < 0 or (len(identity) == 6 and identity[5] is not None):
            raise _refusal(self.path, f"a storage {str(identity)[:80]}")
        return _Storage(kind.name, str(key), numel)

    def load_reduce(self) -> None:
        """Call what a name stands for; nothing that the file brings itself is called."""
        arguments = self.stack.pop()  # type: ignore[attr-defined]
        function = self.stack[-1]  # type: ignore[attr-defined]
        if not isinstance(function, _Call) or not isinstance(arguments, tuple):
            raise _refusal(self.path, f"a call of {str(function)[:80]}")
        self.stack[-1] = function.function(*arguments)  # type: ignore[attr-defined]

    def load_build(self) -> None:
        """The state of an object, such as the versions of a state's modules, is passed over."""
        self.stack.pop()  # type: ignore[attr-defined]


def _refusing(code: int) -> Any:
    def refuse(machine: _Tensors) -> NoReturn:
        raise _refusal(machine.path, f"the step {_NAMES.get(code, code)}")

    return refuse


def _refusal(path: Path, got: str) -> UsageError:
    return UsageError(str(path), expected=_EXPECTED, got=got, hint=_HINT)


_allowed = {_CODES[name] for name in _STEPS.split()}
_steps: dict[int, Any] = {code: pickle._Unpickler.dispatch[code] if code in _allowed else _refusing(code) for code in range(256)}
_steps |= {_CODES["REDUCE"]: _Tensors.load_reduce, _CODES["BUILD"]: _Tensors.load_build}
_Tensors.dispatch = _steps


def read_torch(path: Path) -> Iterator[TensorEntry]:
    """The tensors of a file of `torch.save`, of any version, under dotted names.

    Raises:
        UsageError: no such file, it is damaged, or it names anything but tensors, containers, texts and numbers; the message says what.
    """
    try:
        content, sizes, length = _zipped(path) if zipfile.is_zipfile(path) else _legacy(path)
    except UsageError:
        raise
    # a program that makes no sense fails in as many ways as there are steps; none of them has done anything
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"[:200]
        raise UsageError(str(path), expected="a whole file of torch.save", got=detail, hint=_HINT) from None
    for name, tensor in _walk(path, content, most=length):
        _require_stored(path, name, tensor, sizes)
        yield TensorEntry(name, tensor.shape, tensor.dtype, math.prod(tensor.shape) * TYPES[tensor.dtype])


def _zipped(path: Path) -> tuple[Any, Mapping[str, int], int]:
    """The container in a file, the bytes of each storage, and the bytes that name them."""
    with zipfile.ZipFile(path) as archive:
        records = {entry.filename: entry for entry in archive.infolist()}
        found = [name for name in records if name.rpartition("/")[2] == "data.pkl"]
        if len(found) != 1:
            raise UsageError(str(path), expected="one data.pkl, as torch.save writes it", got=sorted(records)[:5], hint=_HINT)
        if records[found[0]].file_size > _LARGEST_PICKLE:
            raise _refusal(path, f"a data.pkl of {records[found[0]].file_size:,} bytes")
        raw = archive.read(found[0])
    content = _Tensors(path, io.BytesIO(raw)).load()
    prefix = f"{found[0].removesuffix('data.pkl')}data/"
    sizes = {name.removeprefix(prefix): entry.file_size for name, entry in records.items() if name.startswith(prefix)}
    return content, sizes, len(raw)


def _legacy(path: Path) -> tuple[Any, None, int]:
    """Files from before torch 1.6: pickles one after the other, then the numbers."""
    with path.open("rb") as file:
        if file.peek(1)[:1] not in (b"\x80", b"(", b"c"):
            raise UsageError(str(path), expected="a file of torch.save", got=f"bytes that begin with {file.read(8)!r}")
        head = _Tensors(path, file).load()
        if head != _MAGIC:
            raise UsageError(str(path), expected="a file of torch.save", got="a pickle of something else", hint=_HINT)
        if _Tensors(path, file).load() != _PROTOCOL:
            raise UsageError(str(path), expected=f"protocol {_PROTOCOL} of torch.save", got="another one", hint=_HINT)
        _Tensors(path, file).load()
        return _Tensors(path, file).load(), None, file.tell()


def _walk(path: Path, content: Any, *, most: int) -> Iterator[tuple[str, _Tensor]]:
    """The tensors in containers within each other, by dotted names.

    Every value takes a byte of the file at least, so there are at most `most`: a container may be put into several others, or into itself.
    """
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        most -= 1
        if depth > _DEEPEST or most < 0:
            raise _refusal(path, f"containers more than {_DEEPEST} inside each other, or one that holds itself")
        if isinstance(value, _Tensor):
            yield name or "tensor", value
            continue
        inside: list[tuple[Any, Any]] = []
        if isinstance(value, Mapping):
            inside = list(value.items())
        elif isinstance(value, (list, tuple)):
            inside = list(enumerate(value))
        if len(inside) > most:
            raise _refusal(path, "containers that hold each other")
        waiting += [(f"{name}.{key}" if name else str(key), each, depth + 1) for key, each in reversed(inside)]


def _require_stored(path: Path, name: str, tensor: _Tensor, sizes: Mapping[str, int] | None) -> None:
    if sizes is None:
        return
    wanted = tensor.storage.numel * (TYPES[tensor.storage.dtype] if tensor.storage.dtype else 1)
    found = sizes.get(tensor.storage.key)
    if found != wanted:
        raise UsageError(f"{path}: {name}", expected=f"{wanted:,} bytes", got=found, hint="The file is damaged.")
