"""RefCOCO, RefCOCO+ and RefCOCOg: one box per sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError
from tpo_lab.files import Record, by_id, numbered, numbers, read_records
from tpo_lab.metrics.region import rec_ious
from tpo_lab.scoring.report import Measure, Request, Scored, matched

_ID_FIELDS = ("id", "question_id", "sent_id")
_PRED_FIELDS = ("pred_bbox", "pred_box", "prediction", "pred", "bbox")


def score_refcoco(request: Request) -> Scored:
    """Acc@0.5 and mean IoU of boxes xyxy in pixels. `official` counts IoU >= 0.5, `strict` IoU > 0.5 (Shikra, ASMv2).

    Rows have an `id`, or `img_path` and `expression`. The prediction is `pred_bbox`; null, or four numbers that are no box, are a miss.
    """
    truth, predicted = (by_id(_keyed(path)) for path in (request.gt, request.pred))
    ids, counts = matched(list(predicted), truth, request, what="expression")
    boxes = [_prediction(predicted[key]) for key in ids]
    ious = rec_ious(boxes, [_true(truth[key]) for key in ids])
    strict = request.variant == "strict"
    unparsable = int(sum(box is None or box[2] < box[0] or box[3] < box[1] for box in boxes))
    hits = ious > 0.5 if strict else ious >= 0.5
    measures = {"Acc@0.5": Measure(hits), "mIoU": Measure(ious)}
    return Scored(replace(counts, unparsable=unparsable), measures, _by_set(ids, truth, hits), {"iou": ">" if strict else ">="})


def _by_set(ids: list[str], truth: dict[str, Record], hits: NDArray[np.bool_]) -> dict[str, Any]:
    """Acc@0.5 per value of `dataset_name`, where the rows have it; the paper averages over sets."""
    names = np.array([str(truth[key].fields.get("dataset_name", "")) for key in ids])
    return {"Acc@0.5": {name: 100 * float(hits[names == name].mean()) for name in sorted(set(names) - {""})}}


def _keyed(path: Path) -> list[tuple[str, Record]]:
    rows = read_records(path)
    if not any(name in rows[0].fields for name in _ID_FIELDS):
        keys = numbered(f"{row.text('img_path')}: {row.text('expression')}" for row in rows)
        return list(zip(keys, rows, strict=True))
    return [(row.text(*_ID_FIELDS), row) for row in rows]


def _prediction(row: Record) -> Any:
    name = row.named(*_PRED_FIELDS)
    value = row.value(name)
    return None if value is None or value == [] else numbers(f"{row.where}, {name}", [value], 4)[0]


def _true(row: Record) -> Any:
    box = numbers(f"{row.where}, bbox", [row.value("bbox")], 4)[0]
    if box[2] <= box[0] or box[3] <= box[1]:
        raise UsageError(f"{row.where}, bbox", expected="a box x1 < x2, y1 < y2", got=box.tolist())
    return box
