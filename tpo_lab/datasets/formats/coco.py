"""Files of COCO instances: their tables by id, and the mask of an object, which is polygons or run lengths there.

Source: the COCO data format. Polygons are filled by pycocotools, as the official code does it (the extra `coco`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tpo_lab.datasets.formats.boxes import Size
from tpo_lab.errors import MissingExtraError, UsageError
from tpo_lab.files import BadRecord, Floats, Record, Streamed, numbers, stream_items
from tpo_lab.rle import decode_rle, encode_rle

Table = Mapping[int, Streamed]
_FEWEST_CORNERS = 3


def table(path: Path, under: str, fields: Collection[str], *, wanted: Collection[int] | None = None, key: str = "id") -> Table:
    """The rows of one list of the file by their number; one that comes twice leads to the error that says so.

    Args:
        path: the file, which is streamed.
        under: the list's name.
        fields: to keep: tables have hundreds of thousands of rows.
        wanted: numbers to keep; None for all.
        key: the field that holds the number. Rows without one are left out, since nothing can refer to them.

    Raises:
        UsageError: there is no such file or list, or it is broken.
    """
    found: dict[int, Streamed] = {}
    for row in stream_items(path, (under,)):
        number = None if isinstance(row, BadRecord) else row.fields.get(key)
        if isinstance(row, BadRecord) or type(number) is not int or (wanted is not None and number not in wanted):
            continue
        if number in found:
            found[number] = row.bad(key, "id_unique", "a number that no row before it has", number)
            continue
        found[number] = Record(row.where, {name: row.fields[name] for name in fields if name in row.fields})
    return found


def joined(record: Record, field: str, rows: Table, of: str) -> Record:
    """The row that a record's field refers to; errors about it name both.

    Raises:
        BadRecord: there is none (rule `id_known`), or the number comes twice there.
    """
    number = record.integer(field)
    row = rows.get(number)
    if row is None:
        raise record.bad(field, "id_known", f"the number of one of the {of}", number)
    if isinstance(row, BadRecord):
        raise row
    return Record(f"{record.where}, {field} {number} of the {of}", row.fields)


def object_rle(record: Record, field: str, size: Size) -> dict[str, Any]:
    """The mask of an object in a frame of that size, as COCO run lengths {"size": [h, w], "counts": text}.

    Raises:
        BadRecord: no mask (`polygon`, `mask_rle`), one of another size (`mask_size`), or one without a pixel (`mask_empty`).
        MissingExtraError: it is polygons, and pycocotools is not installed.
    """
    value = record.value(field)
    rle = _filled(record, field, value, size) if isinstance(value, list) else value
    if not isinstance(rle, Mapping) or rle.get("size") != [size[1], size[0]]:
        got = rle.get("size") if isinstance(rle, Mapping) else rle
        raise record.bad(field, "mask_size", f"polygons, or run lengths of [{size[1]}, {size[0]}] pixels, as the image has", got)
    try:
        mask = decode_rle(record.where, rle)
    except UsageError as error:
        raise record.bad(field, "mask_rle", error.expected, error.got) from None
    if not mask.any():
        raise record.bad(field, "mask_empty", "a mask with a pixel in it", value)
    return {"size": [size[1], size[0]], "counts": rle["counts"]} if isinstance(rle["counts"], str) else encode_rle(mask)


def _filled(record: Record, field: str, polygons: list[Any], size: Size) -> dict[str, Any]:
    """Polygons [[x0, y0, x1, y1, ...], ...] in pixels as the run lengths of all that they enclose together."""
    checked = [_corners(record, f"{field}[{place}]", each, size).reshape(-1).tolist() for place, each in enumerate(polygons)]
    if not checked:
        raise record.bad(field, "mask_empty", "a polygon or more", polygons)
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise MissingExtraError("pycocotools", "coco", "Filling polygons") from None
    merged = coco.merge(coco.frPyObjects(checked, size[1], size[0]))
    return {"size": [size[1], size[0]], "counts": merged["counts"].decode("ascii")}


def _corners(record: Record, field: str, polygon: Any, size: Size) -> Floats:
    """Corners [corner, 2]. Far outside the frame there are none: the official code draws every step of the way there."""
    if not isinstance(polygon, list) or len(polygon) < 2 * _FEWEST_CORNERS or len(polygon) % 2:
        raise record.bad(field, "polygon", f"x and y of {_FEWEST_CORNERS} corners or more", polygon)
    found = numbers(record.where, [[x, y] for x, y in zip(polygon[::2], polygon[1::2], strict=True)], 2, field=field)
    if (found < [-size[0], -size[1]]).any() or (found > [2 * size[0], 2 * size[1]]).any():
        raise record.bad(field, "polygon_in_frame", f"corners in or near the frame of {size[0]} x {size[1]} pixels", polygon)
    return found
