"""The tensors of any weight file or folder: names, shapes, types and bytes. No value is read, and no code of a file is run.

Files of safetensors, files of `torch.save`, and the index of a model in several files. Not here: what the tensors are for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tpo_lab.errors import UsageError
from tpo_lab.files.tensor_entry import TYPES, TensorEntry
from tpo_lab.files.torch_pickles import read_torch

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_INDEX = ".index.json"
_LARGEST_HEADER = 100_000_000
_DAMAGED = "The file is damaged."
_KINDS = "a .safetensors file, an index of several (.index.json), or a file of torch.save (.pt, .pth, .bin, .ckpt)"


def read_tensor_entries(path: Path) -> list[TensorEntry]:
    """What a file, or a folder of such files, says of its tensors.

    Raises:
        UsageError: there is no such file, it is of no kind that is known, it is damaged, or it holds more than tensors.
    """
    if path.is_dir():
        return [entry for file in weight_files(path) for entry in _named(path, file)]
    if not path.is_file():
        raise UsageError(str(path), expected=_KINDS, got="nothing of that name")
    if path.name.endswith(_INDEX):
        return list(_of_index(path))
    if path.suffix == ".safetensors":
        return list(_of_safetensors(path))
    if path.suffix in PICKLES:
        return list(read_torch(path))
    raise UsageError(str(path), expected=_KINDS, got=path.suffix or path.name)


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder and of those in it that hold its weights: safetensors, or pickles where there are none.

    Raises:
        UsageError: there is none, or an index names one that is missing.
    """
    files = sorted(file for pattern in ("*", "*/*") for file in folder.glob(pattern) if file.is_file())
    safe = [file for file in files if file.suffix == ".safetensors"]
    found = safe or [file for file in files if file.suffix in PICKLES]
    if not found:
        raise UsageError(str(folder), expected=f"a folder with {_KINDS}", got="none")
    for index in (file for file in files if file.name.endswith(_INDEX)):
        if Path(index.name.removesuffix(_INDEX)).suffix == found[0].suffix:
            # only to say which file is missing
            list(_of_index(index))
    return found


def _named(folder: Path, file: Path) -> Iterator[TensorEntry]:
    name = file.relative_to(folder).as_posix()
    return (replace(entry, file=name) for entry in read_tensor_entries(file))


def _of_index(path: Path) -> Iterator[TensorEntry]:
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files = dict.fromkeys(places.values())
        good = all(isinstance(file, str) and Path(file).name == file for file in files)
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise UsageError(str(path), expected='an object with a "weight_map" from tensors to files beside it', got="something else")
    for file in files:
        if not (path.parent / file).is_file():
            raise UsageError(str(path), expected=f"the file {file} beside it", got=None, hint="The model is not complete.")
        entries = {entry.name: entry for entry in read_tensor_entries(path.parent / file)}
        for name in (name for name, place in places.items() if place == file):
            if name not in entries:
                raise UsageError(f"{path}: {name}", expected=f"a tensor in {file}", got=None, hint="The index belongs to other files.")
            yield replace(entries[name], file=file)


def _of_safetensors(path: Path) -> Iterator[TensorEntry]:
    """The header says it all: its length in 8 bytes, then JSON."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LARGEST_HEADER):
            raise UsageError(str(path), expected="a safetensors file", got=f"{size} bytes, a header of {length}", hint=_DAMAGED)
        raw = file.read(length)
    try:
        header = json.loads(raw)
        entries = [(name, *_checked(entry)) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(str(path), expected="a safetensors file", got=f"a header with {error}"[:200], hint=_DAMAGED) from None
    for name, shape, dtype, start, end in entries:
        if end > size - 8 - length:
            raise UsageError(f"{path}: {name}", expected=f"{end:,} bytes of tensors", got=size - 8 - length, hint=_DAMAGED)
        yield TensorEntry(name, shape, dtype, end - start)


def _checked(entry: Any) -> tuple[tuple[int, ...], str, int, int]:
    shape, dtype, (start, end) = tuple(entry["shape"]), entry["dtype"], entry["data_offsets"]
    if not isinstance(dtype, str) or not all(isinstance(number, int) and number >= 0 for number in (*shape, start, end)):
        raise ValueError(f"an entry {entry}")
    if end < start or (dtype in TYPES and end - start != math.prod(shape) * TYPES[dtype]):
        raise ValueError(f"{end - start} bytes for {shape} of {dtype}")
    return shape, dtype, start, end
