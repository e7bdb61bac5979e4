"""Referring image segmentation (RefCOCO/+/g, ReasonSeg): one mask per expression, as run lengths in records or as <id>.png."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tpo_lab.errors import MissingExtraError, UsageError
from tpo_lab.files import Record, by_id, read_records
from tpo_lab.metrics.masks import cumulative_iou, object_ious, overlap
from tpo_lab.rle import decode_rle
from tpo_lab.scoring.masks import VOID, Bools, frames, read_labels, read_mask, spread
from tpo_lab.scoring.report import Measure, Request, Scored, matched

_IDS = ("id", "question_id", "sent_id", "ref_id")
_TRUE = ("mask", "rle", "segmentation")
_PRED = ("pred_mask", "prediction", "pred", *_TRUE)
_EPS_NOTE = "pixels in any + 1e-5; two empty masks 1"


@dataclass(frozen=True)
class _Pair:
    pred: Record | Path
    true: Record | Path
    binary: bool


def score_refseg(request: Request) -> Scored:
    """gIoU and cIoU over objects.

    A record has an `id` and its mask as COCO run lengths, or as polygons with `height` and `width`; null is an empty mask, and counted as
    unparsable in a prediction. A record of the ground truth may have run lengths `ignore`. A predicted PNG is its pixels that are not
    black. A true PNG is its pixels of value 1, and 255 is void (`official`); or its pixels that are not black (`binary`).

    Source: LISA, validation: the mean of an image's objects weighs as many times as it has objects, so it is a mean over objects.
    """
    truth, predicted = _read(request.gt), _read(request.pred)
    ids, counts = matched(list(predicted), truth, request, what="expression")
    work = [_Pair(predicted[key], truth[key], request.variant == "binary") for key in ids]
    rows = np.array(spread(_overlap, work, request))
    measures = {"gIoU": Measure(object_ious(rows)), "cIoU": Measure(rows, statistic=cumulative_iou)}
    unparsable = sum(isinstance(each, Record) and _value(each, _PRED) is None for each in (predicted[key] for key in ids))
    rules = {"iou": _EPS_NOTE, "void": "none" if request.variant == "binary" else "ignored"}
    return Scored(replace(counts, unparsable=unparsable), measures, rules=rules)


def _read(path: Path) -> dict[str, Record] | dict[str, Path]:
    if path.is_dir():
        return {Path(name).stem: path / name for name in frames(path)}
    return by_id((row.text(*_IDS), row) for row in read_records(path))


def _overlap(pair: _Pair) -> tuple[int, int]:
    true: Bools | None
    void: Bools | None = None
    if isinstance(pair.true, Path):
        true, void = _true_image(pair.true, pair.binary)
    else:
        true = _mask(pair.true, _TRUE)
        if not pair.binary and pair.true.fields.get("ignore") is not None:
            void = decode_rle(f"{pair.true.where}, ignore", pair.true.fields["ignore"])
    pred = read_mask(pair.pred) if isinstance(pair.pred, Path) else _mask(pair.pred, _PRED)
    known = next((each for each in (true, pred, void) if each is not None), None)
    if known is None:
        return 0, 0
    pred, true = (np.zeros_like(known) if each is None else each for each in (pred, true))
    try:
        return overlap(pred, true, void)
    except UsageError as error:
        where = pair.pred if isinstance(pair.pred, Path) else pair.pred.where
        raise UsageError(f"{where}, {error.argument}", expected=error.expected, got=error.got) from None


def _true_image(path: Path, binary: bool) -> tuple[Bools, Bools | None]:
    if binary:
        return read_mask(path), None
    labels = read_labels(path)
    values = set(np.flatnonzero(np.bincount(labels.ravel())).tolist())
    if not values <= {0, 1, VOID} or (VOID in values and 1 not in values):
        hint = "--variant binary takes every pixel that is not black as the object."
        raise UsageError(str(path), expected="0, 1 for the object, and 255 for void beside it", got=sorted(values)[:10], hint=hint)
    return labels == 1, labels == VOID


def _value(row: Record, names: tuple[str, ...]) -> Any:
    value = row.value(row.named(*names))
    return None if value is None or value == [] else value


def _mask(row: Record, names: tuple[str, ...]) -> Bools | None:
    value = _value(row, names)
    if value is None:
        return None
    return _polygons(row, value) if isinstance(value, list) else decode_rle(row.where, value)


def _polygons(row: Record, value: list[Any]) -> Bools:
    """Polygons [[x0, y0, x1, y1, ...], ...] in pixels, filled as COCO fills them."""
    height, width = int(row.number("height")), int(row.number("width"))
    for place, polygon in enumerate(value):
        fits = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
        if not fits or not all(type(each) in (int, float) and np.isfinite(each) for each in polygon):
            raise UsageError(f"{row.where}, polygon [{place}]", expected="x and y of three points or more", got=polygon)
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise MissingExtraError("pycocotools", "coco", "Filling polygons") from None
    mask: Bools = coco.decode(coco.merge(coco.frPyObjects(value, height, width))) > 0
    return mask
