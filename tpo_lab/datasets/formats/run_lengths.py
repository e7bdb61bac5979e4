"""Masks of annotations as run lengths: checked without being decoded, united, and pointed at by a box. Not here: images, files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.datasets.formats.boxes import LARGEST_PX
from tpo_lab.errors import UsageError
from tpo_lab.files import Record
from tpo_lab.rle import decode_rle, encode_rle

Rle = dict[str, Any]
Masks = list[Rle | None]
Bools = NDArray[np.bool_]

_LETTERS = re.compile(r"[0-o]+")
_WHOLE = re.compile(r"[P-o]*[0-O]")
_BITS, _MORE, _SIGN, _FIRST = 5, 0x20, 0x10, 48


def checked(record: Record, field: str, value: Any) -> Rle | None:
    """COCO's compressed run lengths as they are, or None for a null and for a mask without a pixel.

    Only the first run is read: it fills the frame of an empty mask.

    Raises:
        BadRecord: no size, or a text that cannot be run lengths.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or not {"size", "counts"} <= value.keys():
        raise record.bad(field, "rle", "run lengths with 'size' and 'counts', or null", value)
    size, counts = value["size"], value["counts"]
    is_size = isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
    if not is_size or size[0] * size[1] > LARGEST_PX:
        raise record.bad(f"{field}.size", "rle", "a height and a width in pixels", size)
    # the last letter of a number lies below "P"
    if not isinstance(counts, str) or not _LETTERS.fullmatch(counts) or counts[-1] >= "P":
        raise record.bad(f"{field}.counts", "rle", "COCO's compressed run lengths", counts)
    background, pixels = _first_run(counts), size[0] * size[1]
    if not 0 <= background <= pixels:
        raise record.bad(f"{field}.counts", "rle", f"a first run of at most {pixels} pixels", background)
    return None if background == pixels else {"size": [*size], "counts": counts}


def decoded(record: Record, field: str, rle: Rle) -> Bools:
    """The mask [h, w].

    Raises:
        BadRecord: its runs do not fill it.
    """
    try:
        return decode_rle(field, rle)
    except UsageError as error:
        raise record.bad(error.argument, "rle", error.expected, error.got) from None


def encoded(mask: Bools) -> Rle | None:
    """The run lengths of a mask; None where it has no pixel."""
    return encode_rle(mask) if mask.any() else None


def united(record: Record, field: str, masks: Sequence[Rle | None]) -> Rle | None:
    """All pixels of several masks of one frame; a single mask is not decoded.

    Raises:
        BadRecord: their sizes differ, or one cannot be decoded.
    """
    seen = [mask for mask in masks if mask is not None]
    if len(seen) < 2:
        return seen[0] if seen else None
    if any(mask["size"] != seen[0]["size"] for mask in seen):
        raise record.bad(field, "mask_size", "one size for all masks of a frame", [mask["size"] for mask in seen])
    return encoded(np.logical_or.reduce([decoded(record, field, mask) for mask in seen]))


def first_seen(record: Record, field: str, masks: Sequence[Rle | None]) -> tuple[int, list[float]]:
    """The first frame with a pixel of the object, and the box around its mask there: xyxy, the ends behind the last pixel.

    Raises:
        BadRecord: the object is never seen.
    """
    for place, mask in enumerate(masks):
        pixels = None if mask is None else decoded(record, f"{field}[{place}]", mask)
        if pixels is not None and pixels.any():
            return place, box_around(pixels)
    raise record.bad(field, "object_seen", "an object with a pixel in some frame", f"{len(masks)} empty masks")


def box_around(mask: Bools) -> list[float]:
    """xyxy in pixels around a mask [h, w] that has a pixel; a single pixel at (x, y) gives (x, y, x + 1, y + 1)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


def frame_size(masks: Sequence[Rle | None]) -> list[int] | None:
    """Width and height of the frame in pixels; None where no mask tells."""
    known = next((mask["size"] for mask in masks if mask is not None), None)
    return None if known is None else [known[1], known[0]]


def _first_run(counts: str) -> int:
    found = _WHOLE.match(counts)
    numbers = [ord(letter) - _FIRST for letter in (found.group() if found else "0")]
    run = 0
    for number in reversed(numbers):
        run = (run << _BITS) + (number & (_MORE - 1))
    return run - (1 << (_BITS * len(numbers))) if numbers[-1] & _SIGN else run
