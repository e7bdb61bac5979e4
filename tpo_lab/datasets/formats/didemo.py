"""DiDeMo: a query, and for each of four or more annotators the run of 5-second segments that they chose, the last one inclusive.

The official evaluation compares a ranking of all runs with every annotator; a sample has one set of windows, so it must be said how
several annotators become one (`VARIANTS`). Whichever is taken, `meta.raw` holds all annotators, and the evaluation reads the official
file. Source: LocalizingMoments; the mean as VideoMind takes it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.moments import moment
from tpo_lab.datasets.formats.submission import ranked_windows, raw_of, write_lines
from tpo_lab.datasets.formats.windows import within
from tpo_lab.files import Record, Streamed, stream_items
from tpo_lab.metrics.segments import AGREEING, segment_iou
from tpo_lab.sample import Sample

NAME = "didemo"
SEGMENT_SEC = 5.0
SEGMENTS = 6
Run = tuple[int, int]

VARIANTS = ("best", "all", "mean")
"""best: the one run that the official measure gives the highest IoU, so that the truth scores as high as any single answer can.
all: every run that an annotator chose, the most chosen first; they are several views of one moment, not several moments.
mean: from the mean of the first segments to the mean of the last ones, in whole seconds; it need not be a run.
"""


def rows(source: Source) -> Iterator[Streamed]:
    """One query."""
    return stream_items(source.path)


def sample(record: Record, source: Source) -> Sample:
    """One query with the window, or windows, of its annotators."""
    key, video, query = record.text("annotation_id"), record.words("video"), record.words("description")
    count = record.integer("num_segments")
    if not 1 <= count <= SEGMENTS:
        raise record.bad("num_segments", "segment_count", f"1 to {SEGMENTS} segments", count)
    windows_sec, duration = None, count * SEGMENT_SEC
    if "times" in record.fields:
        windows_sec = _windows(_chosen(record, count), source.variant or VARIANTS[0])
        windows_sec = within(record, "times", np.array(windows_sec), source, duration)
    return moment(NAME, key, record, source, media={"path": video}, query=query, windows_sec=windows_sec, duration_sec=duration)


def _chosen(record: Record, count: int) -> list[Run]:
    """The runs (first, last) that the annotators chose."""
    found = record.windows("times", some=True)
    if ((found != found.round()) | (found < 0) | (found >= count)).any():
        raise record.bad("times", "segment_in_video", f"segments 0 <= first <= last <= {count - 1}", found.tolist())
    return [(int(first), int(last)) for first, last in found]


def _windows(chosen: list[Run], variant: str) -> list[list[float]]:
    if variant == "mean":
        first, last = np.mean(chosen, axis=0)
        return [[float(round(SEGMENT_SEC * first)), float(round(SEGMENT_SEC * (last + 1)))]]
    often = Counter(chosen)
    if variant == "all":
        return [_seconds(run) for run in sorted(often, key=lambda run: (-often[run], run))]
    return [_seconds(min(_runs(), key=lambda run: (-_agreement(run, chosen), -often[run], run)))]


def _agreement(run: Run, chosen: list[Run]) -> float:
    """The official IoU, summed over the annotators that agree best."""
    # rounded, so that the order in which equal sums were taken decides nothing
    return round(sum(sorted(segment_iou(run, each) for each in chosen)[-AGREEING:]), 9)


def _runs() -> list[Run]:
    return [(first, last) for first in range(SEGMENTS) for last in range(first, SEGMENTS)]


def _seconds(run: Run) -> list[float]:
    return [SEGMENT_SEC * run[0], SEGMENT_SEC * (run[1] + 1)]


def write(samples: Iterable[Sample], path: Path) -> int:
    """JSONL rows with all 21 runs, best first: by their IoU with the best window, equal ones with the next, then by distance.

    A ranking cannot leave an answer out: without windows it begins with the last segment, which is right least often.
    """
    return write_lines(path, (json.dumps(_row(each)) for each in samples))


def _row(sample: Sample) -> dict[str, Any]:
    windows = [(start, end) for start, end, _ in ranked_windows(sample)]

    def badness(run: Run) -> tuple[float, ...]:
        start, end = _seconds(run)
        ious = [max(0.0, min(end, e) - max(start, s)) / (max(end, e) - min(start, s)) for s, e in windows]
        centre = sum(windows[0]) if windows else 0.0
        return (*(-iou for iou in ious), abs(start + end - centre) if windows else -start)

    return {"annotation_id": raw_of(sample, "annotation_id")["annotation_id"], "segments": sorted(_runs(), key=badness)}


DIDEMO = Format(
    name=NAME,
    title="DiDeMo",
    home="LocalizingMoments, data/ (LisaAnne)",
    licence="BSD-2-Clause; the videos Creative Commons",
    layout="train_data.json, val_data.json or test_data.json, beside the videos that `video` names, cut to their first 30 s",
    rows=rows,
    sample=sample,
    variants=VARIANTS,
    write=write,
    tasks=("temporal",),
)
