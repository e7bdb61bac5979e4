"""QVHighlights: moment retrieval and highlight detection, every number rounded to two decimals as the official tool prints it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError
from tpo_lab.files import Record, by_id, read_jsonl
from tpo_lab.metrics.highlights import MINIMA, highlight_average_precisions, highlight_hits
from tpo_lab.metrics.moment_retrieval import AP_THRESHOLDS, AP_WINDOWS, LENGTH_RANGES_SEC, average_precisions, in_length_range
from tpo_lab.metrics.temporal import moment_ious
from tpo_lab.scoring.report import Measure, Request, Scored, matched

Floats = NDArray[np.float64]

CLIP_SEC = 2
RECALL_THRESHOLDS = tuple(round(0.3 + 0.05 * step, 2) for step in range(14))

_BRIEF_MR = {
    "MR-full-R1@0.3": ("full", "MR-R1", "0.3"),
    "MR-full-R1@0.5": ("full", "MR-R1", "0.5"),
    "MR-full-R1@0.7": ("full", "MR-R1", "0.7"),
    "MR-full-mIoU": ("full", "MR-mIoU", ""),
    "MR-full-mAP": ("full", "MR-mAP", "average"),
    "MR-full-mAP@0.5": ("full", "MR-mAP", "0.5"),
    "MR-full-mAP@0.75": ("full", "MR-mAP", "0.75"),
    "MR-long-mAP": ("long", "MR-mAP", "average"),
    "MR-middle-mAP": ("middle", "MR-mAP", "average"),
    "MR-short-mAP": ("short", "MR-mAP", "average"),
}


def score_qvhighlights(request: Request) -> Scored:
    """Scores a submission of JSONL rows with `pred_relevant_windows`, `pred_saliency_scores`, or both.

    A predicted window that ends before it starts is counted as unparsable and scored as the official tool does: it meets nothing, but
    where its length and that of a true window add up to 0 it is a hit of mean average precision (`average_precisions`).

    Source: moment_detr, standalone_eval; CG-DETR's for R1@0.3 and mIoU.
    """
    truth = by_id((row.text("qid"), row) for row in read_jsonl(request.gt))
    predicted = by_id((row.text("qid"), row) for row in read_jsonl(request.pred))
    ids, counts = matched(list(predicted), truth, request, what="qid")
    rows, true = [predicted[key] for key in ids], [truth[key] for key in ids]
    measures: dict[str, Measure] = {}
    detail: dict[str, Any] = {}
    unparsable = 0
    if "pred_relevant_windows" in rows[0].fields:
        tables, unparsable = _moments(rows, true)
        detail |= {name: _percentages(table) for name, table in tables.items()}
        measures |= {name: tables[part][kind][key] for name, (part, kind, key) in _BRIEF_MR.items() if part in tables}
    if "pred_saliency_scores" in rows[0].fields:
        highlights = _highlights(rows, true)
        detail |= {name: {key: each.percent() for key, each in table.items()} for name, table in highlights.items()}
        measures |= {f"{name}-{key[3:]}": each for name, table in highlights.items() for key, each in table.items()}
    if not measures:
        got = sorted(rows[0].fields)
        raise UsageError(rows[0].where, expected="the field 'pred_relevant_windows' or 'pred_saliency_scores'", got=got)
    rules = {"iou": ">=", "windows_per_query": AP_WINDOWS, "clip_sec": CLIP_SEC}
    return Scored(replace(counts, unparsable=unparsable), measures, detail, rules)


def _moments(rows: list[Record], true: list[Record]) -> tuple[dict[str, dict[str, dict[str, Measure]]], int]:
    """Per length range the tables MR-mAP, MR-R1 and MR-mIoU (its key ""), and the number of windows that end before they start."""
    given = [row.windows("pred_relevant_windows", columns=3, ordered=False) for row in rows]
    reversed_ = sum(int((each[:, 1] < each[:, 0]).sum()) for each in given)
    windows = [row.windows("relevant_windows", lengths=True, some=True) for row in true]
    tables = {}
    for name, length_range in {**LENGTH_RANGES_SEC, "full": None}.items():
        kept = windows if length_range is None else [in_length_range(each, length_range) for each in windows]
        asked = [place for place, each in enumerate(kept) if len(each)]
        if asked:
            tables[name] = _table([given[place] for place in asked], [kept[place] for place in asked])
    return tables, reversed_


def _table(given: list[Floats], true: list[Floats]) -> dict[str, dict[str, Measure]]:
    precisions = average_precisions(given, true, undefined_iou=math.inf)
    ious = moment_ious([each[:1, :2] for each in given], true)
    by_threshold = {str(threshold): Measure(precisions[:, place], decimals=2) for place, threshold in enumerate(AP_THRESHOLDS)}
    return {
        "MR-mAP": {**by_threshold, "average": Measure(precisions.mean(1), decimals=2)},
        "MR-R1": {str(threshold): Measure(ious >= threshold, decimals=2) for threshold in RECALL_THRESHOLDS},
        "MR-mIoU": {"": Measure(ious, decimals=2)},
    }


def _percentages(table: dict[str, dict[str, Measure]]) -> dict[str, Any]:
    found: dict[str, Any] = {kind: {key: each.percent() for key, each in column.items()} for kind, column in table.items()}
    return {**found, "MR-mIoU": found["MR-mIoU"][""]}


def _highlights(rows: list[Record], true: list[Record]) -> dict[str, dict[str, Measure]]:
    scores = [_saliency(row) for row in rows]
    levels = [_annotated(row) for row in true]
    found = {}
    for name, least in MINIMA.items():
        positive = [each >= least for each in levels]
        found[f"HL-min-{name}"] = {
            "HL-mAP": Measure(highlight_average_precisions(scores, positive).mean(1), decimals=2),
            "HL-Hit1": Measure(highlight_hits(scores, positive), decimals=2),
        }
    return found


def _saliency(row: Record) -> Floats:
    value = row.value("pred_saliency_scores")
    wrong = not isinstance(value, list) or not value
    for place, each in enumerate([] if wrong else value):
        if isinstance(each, bool) or not isinstance(each, (int, float)) or not np.isfinite(each):
            raise UsageError(f"{row.where}, pred_saliency_scores[{place}]", expected="a finite number", got=each)
    if wrong:
        raise UsageError(f"{row.where}, pred_saliency_scores", expected="one number per clip", got=value)
    return np.array(value, dtype=np.float64)


def _annotated(row: Record) -> Floats:
    """Saliency 0 to 4 [clip, annotator] of the whole video, 0 outside the relevant clips."""
    duration = row.number("duration")
    scores, clips = row.rows("saliency_scores", 3), row.value("relevant_clip_ids")
    found = np.zeros((int(duration / CLIP_SEC), 3))
    if not isinstance(clips, list) or len(clips) != len(scores):
        raise UsageError(f"{row.where}, relevant_clip_ids", expected=f"one clip per row of saliency_scores ({len(scores)})", got=clips)
    for clip in clips:
        if isinstance(clip, bool) or not isinstance(clip, int) or not 0 <= clip < len(found):
            raise UsageError(f"{row.where}, relevant_clip_ids", expected=f"clips in 0 to {len(found) - 1}", got=clip)
    found[clips] = scores
    return found
