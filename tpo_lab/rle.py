"""Run lengths of COCO masks, read and written with NumPy alone: column by column, the first run is background, in letters or as a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpo_lab.errors import UsageError

_BITS, _MORE, _SIGN, _FIRST = 5, 0x20, 0x10, 48
_LONGEST = 12  # letters of one number, which then fit into 64 bits
_HUGE = 1 << 62


def decode_rle(where: str, value: Any) -> NDArray[np.bool_]:
    """The mask [h, w] of {"size": [h, w], "counts": ...}.

    Args:
        where: file and key, as an error names them.
        value: the object; `counts` is COCO's text (as text or bytes) or a list of runs.

    Raises:
        UsageError: a field is missing or of another type, or the runs do not fill the size.

    Source: the COCO mask format.
    Differs in: runs that do not add up to h * w are refused, where the official code reads or writes past their end.
    """
    if not isinstance(value, Mapping) or not {"size", "counts"} <= value.keys():
        raise UsageError(where, expected="run lengths with 'size' and 'counts'", got=sorted(value) if isinstance(value, Mapping) else value)
    size, counts = value["size"], value["counts"]
    fits = isinstance(size, Sequence) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
    if not fits:
        raise UsageError(f"{where}, size", expected="a height and a width in pixels", got=size)
    height, width = size
    runs = _runs(where, counts)
    # run by run first: a sum of huge runs wraps around
    if (runs < 0).any() or (runs > height * width).any() or runs.sum() != height * width:
        raise UsageError(f"{where}, counts", expected=f"runs that fill {height} x {width} = {height * width} pixels", got=int(runs.sum()))
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height)
    return np.ascontiguousarray(columns.T)


def encode_rle(mask: ArrayLike) -> dict[str, Any]:
    """A mask, booleans [h, w], as {"size": [h, w], "counts": text}; what `decode_rle` reads.

    Raises:
        UsageError: no pixel, or not two axes.

    Source: the COCO mask format.
    """
    inside = np.asarray(mask, dtype=bool)
    if inside.ndim != 2 or not inside.size:
        raise UsageError("mask", expected="booleans [h, w]", got=inside.shape)
    line = inside.T.reshape(-1)
    edges = np.flatnonzero(line[1:] != line[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [line.size]])).tolist()
    runs = [0, *runs] if line[0] else runs
    # from the fourth run on, the difference to the run before the last is written
    numbers = [run - runs[place - 2] if place > 2 else run for place, run in enumerate(runs)]
    return {"size": [int(side) for side in inside.shape], "counts": "".join(map(_letters, numbers))}


def _letters(number: int) -> str:
    """Five bits a letter, the lowest first; the last letter's highest bit is the sign."""
    letters = []
    while True:
        bits, number = number & (_MORE - 1), number >> _BITS
        more = number != (-1 if bits & _SIGN else 0)
        letters.append(chr(_FIRST + bits + (_MORE if more else 0)))
        if not more:
            return "".join(letters)


def _runs(where: str, counts: Any) -> NDArray[np.int64]:
    if isinstance(counts, list) and all(type(run) is int and abs(run) < _HUGE for run in counts):
        return np.array(counts, dtype=np.int64)
    if isinstance(counts, str):
        counts = counts.encode("utf-8")
    if not isinstance(counts, bytes):
        raise UsageError(f"{where}, counts", expected="a text or a list of whole numbers", got=counts)
    letters = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - _FIRST
    is_last = (letters & _MORE) == 0
    if not len(letters) or not is_last[-1] or ((letters < 0) | (letters >= 2 * _MORE)).any():
        raise UsageError(f"{where}, counts", expected="COCO's run lengths", got=counts[:40])
    last = np.flatnonzero(is_last)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _LONGEST:
        raise UsageError(f"{where}, counts", expected="COCO's run lengths", got=counts[:40])
    place = np.arange(len(letters)) - np.repeat(first, lengths)
    numbers = np.add.reduceat((letters & (_MORE - 1)) << (_BITS * place), first)
    numbers -= np.where(letters[last] & _SIGN, 1 << (_BITS * lengths), 0)
    # from the fourth on, a number is the difference to the one two places before
    for start in (1, 2):
        numbers[start::2] = np.cumsum(numbers[start::2])
    return numbers
