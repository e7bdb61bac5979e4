"""DiDeMo: ranks of the 21 moments of 5-second segments, against the three annotators that agree best."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tpo_lab.errors import UsageError
from tpo_lab.files import Record, by_id, read_json, read_records, records
from tpo_lab.metrics.segments import segment_scores
from tpo_lab.scoring.report import Measure, Request, Scored, matched

MOMENTS = frozenset((first, last) for first in range(6) for last in range(first, 6))


def score_didemo(request: Request) -> Scored:
    """Scores per query the ranked moments (first, last), ends inclusive; every moment of an annotator must be among them.

    The predictions are a list in the order of the ground truth, as the official function takes it, an object by annotation_id, or
    JSONL rows with `annotation_id` and `segments`.
    """
    truth = by_id((row.text("annotation_id"), row) for row in read_records(request.gt))
    predicted = by_id(_predictions(request.pred, list(truth)))
    ids, counts = matched(list(predicted), truth, request, what="annotation_id")
    rows = [_scores(predicted[key], truth[key]) for key in ids]
    ranks, ious = np.array(rows).T
    measures = {"rank@1": Measure(ranks <= 1), "rank@5": Measure(ranks <= 5), "mIoU": Measure(ious)}
    return Scored(counts, measures, rules={"annotators": 3})


def _predictions(path: Path, truth: list[str]) -> Iterator[tuple[str, Record]]:
    if path.suffix == ".jsonl":
        yield from ((row.text("annotation_id"), row) for row in read_records(path))
        return
    document = read_json(path)
    if isinstance(document, dict):
        yield from ((key, Record(f"{path}, key {key}", {"segments": value})) for key, value in document.items())
    elif isinstance(document, list) and document and isinstance(document[0], dict):
        yield from ((row.text("annotation_id"), row) for row in records(path, document))
    elif isinstance(document, list) and len(document) == len(truth):
        for place, (key, value) in enumerate(zip(truth, document, strict=True)):
            yield key, Record(f"{path}, [{place}]", {"segments": value})
    else:
        count = len(document) if isinstance(document, list) else type(document).__name__
        raise UsageError(str(path), expected=f"one ranking per query of the ground truth ({len(truth)})", got=count)


def _scores(predicted: Record, true: Record) -> tuple[float, float]:
    ranked, moments = _moments(predicted, "segments"), _moments(true, "times")
    absent = next((moment for moment in moments if moment not in ranked), None)
    if absent is not None:
        expected = f"a ranking of all {len(MOMENTS)} moments, at least those of the annotators, as {list(absent)}"
        raise UsageError(f"{predicted.where}, segments", expected=expected, got=f"{len(ranked)} moments without it")
    return segment_scores(ranked, moments)


def _moments(row: Record, name: str) -> list[tuple[int, int]]:
    found = [(int(first), int(last)) for first, last in row.windows(name)]
    for place, moment in enumerate(found):
        if moment not in MOMENTS:
            raise UsageError(f"{row.where}, {name}[{place}]", expected="segments 0 <= first <= last <= 5", got=list(moment))
    return found
