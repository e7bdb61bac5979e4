"""Ego4D natural language queries: recall of the first and the first five windows at IoU > t, and mean IoU of the first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tpo_lab.errors import UsageError
from tpo_lab.files import Record, by_id, read_json, read_jsonl, record, records, windows, without_scores
from tpo_lab.metrics.moment_retrieval import hits_at
from tpo_lab.metrics.temporal import moment_ious
from tpo_lab.scoring.report import Measure, Request, Scored, matched


def score_nlq(request: Request) -> Scored:
    """Scores the challenge's JSON, or rows in the QVHighlights form.

    A true window without length is never met, nor does a predicted one meet any that ends before it starts (counted as unparsable).

    Source: Ego4D episodic memory, NLQ evaluation.
    """
    predicted, truth = by_id(_predictions(request.pred)), by_id(_truth(request.gt))
    ids, counts = matched(list(predicted), truth, request, what="query")
    given = [_windows(predicted[key]) for key in ids]
    true = np.concatenate([truth[key].windows("relevant_windows", some=True)[:1] for key in ids])
    measures = {
        f"R{count}@{threshold}": Measure(hits_at(given, true, count=count, threshold=threshold))
        for threshold in (0.3, 0.5)
        for count in (1, 5)
    }
    measures["mIoU"] = Measure(moment_ious([each[:1] for each in given], list(true[:, None])))
    unparsable = int(sum(not len(each) or bool((each[:, 1] < each[:, 0]).any()) for each in given))
    return Scored(replace(counts, unparsable=unparsable), measures, rules={"iou": ">"})


def _windows(row: Record) -> Any:
    name = row.named("predicted_times", "pred_relevant_windows")
    return windows(f"{row.where}, {name}", without_scores(row.value(name)), ordered=False)


def _predictions(path: Path) -> Iterator[tuple[str, Record]]:
    if path.suffix == ".jsonl":
        yield from ((row.text("qid"), row) for row in read_jsonl(path))
        return
    document = read_json(path)
    rows = document.get("results") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise UsageError(str(path), expected="a list of predictions, alone or under 'results'", got=type(rows).__name__)
    for row in records(path, rows, "results"):
        yield f"{row.text('clip_uid')}/{row.text('annotation_uid')}/{row.text('query_idx')}", row


def _truth(path: Path) -> Iterator[tuple[str, Record]]:
    if path.suffix == ".jsonl":
        yield from ((row.text("qid"), row) for row in read_jsonl(path))
        return
    for video in records(path, record(str(path), read_json(path)).value("videos"), "videos"):
        for clip in records(video.where, video.value("clips"), "clips"):
            for annotation in records(clip.where, clip.value("annotations"), "annotations"):
                queries = records(annotation.where, annotation.value("language_queries"), "language_queries")
                for place, query in enumerate(queries):
                    # queries that nobody wrote down have no window; the official preparation leaves them out too
                    if query.fields.get("query") is None or "clip_start_sec" not in query.fields:
                        continue
                    window = [query.number("clip_start_sec"), query.number("clip_end_sec")]
                    key = f"{clip.text('clip_uid')}/{annotation.text('annotation_uid')}/{place}"
                    yield key, Record(query.where, {"relevant_windows": [window]})
