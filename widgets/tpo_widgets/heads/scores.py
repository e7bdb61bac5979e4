"""How well masks, tracks and saliency meet the truth, frame by frame, for the timeline below the frames.

All numbers come from `tpo_lab.records` and `tpo_lab.metrics`; here they are only put onto frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tpo_lab import records as of
from tpo_lab.metrics.masks import region_similarity
from tpo_lab.metrics.region import rec_ious
from tpo_lab.records import Outline
from tpo_lab.rle import decode_rle
from tpo_widgets.film import Film
from tpo_widgets.heads.overlays import Moving, Source, moving_of

MOST_POINTS = 2000
"""Of a curve of saliency; longer ones are thinned out evenly."""


def scores_of(source: Source, film: Film) -> dict[str, Any]:
    """What is known of a source over time.

    Returns:
        "saliency": times and values, or None; "hidden": by object, the spans in seconds in which nothing is to be seen of it; "frames": by
        kind ("mask": J, "track": IoU of boxes) of the one object that has a truth, the frame of each value, its time, the value (None where
        nothing is to be seen and that does not count), and "whole", their mean as `tpo_lab.evaluate` takes it.

    Raises:
        UsageError: run lengths that cannot be read.
    """
    parts = moving_of(source, film)
    hidden: dict[str, list[list[float]]] = {}
    for part in parts:
        hidden.setdefault(str(part.object), hidden_spans(part, film.duration_sec))
    return {"saliency": saliency_of(source, film), "hidden": hidden, "frames": {} if source.record is None else _frames(source, film)}


def saliency_of(source: Source, film: Film) -> dict[str, list[float]] | None:
    """A curve: of a checkpoint as its head gives it, of the truth as steps."""
    said = (source.heads.get("temporal") or {}).get("saliency")
    if not said:
        return None
    if source.record is None:
        step, scores = said["step_sec"], said["scores"]
        edges = [(min(place * step, film.duration_sec), score) for place, score in enumerate(scores)]
        pairs = [(time, score) for start, score in edges for time in (start, min(start + step, film.duration_sec))]
    else:
        pairs = [(float(time), float(score)) for time, score in said if math.isfinite(time) and math.isfinite(score)]
    kept = pairs[:: max(1, math.ceil(len(pairs) / MOST_POINTS))]
    return {"times": [round(time, 4) for time, _ in kept], "values": [round(float(score), 5) for _, score in kept]}


def hidden_spans(part: Moving, duration_sec: float) -> list[list[float]]:
    """Spans [start, end] in seconds in which an object is said to be hidden: each from its first such time to the next one that is not."""
    ends = [*part.times_sec[1:], max(duration_sec, part.times_sec[-1])] if part.times_sec else []
    spans: list[list[float]] = []
    for place, (start, end) in enumerate(zip(part.times_sec, ends, strict=True)):
        if not part.hidden(place):
            continue
        if spans and spans[-1][1] == start:
            spans[-1][1] = end
        else:
            spans.append([start, end])
    return [[round(start, 4), round(end, 4)] for start, end in spans]


def _frames(source: Source, film: Film) -> dict[str, Any]:
    record = source.record
    found: dict[str, Any] = {}
    assert record is not None
    if of.has_mask(record):
        outlines = of.outlines(record, source.how, "mask")
        similar = [mask_similarity(outline) for outline in outlines]
        found["mask"] = _placed(outlines, similar, sum(similar) / len(similar) if similar else 0.0, film)
    if of.has_track(record):
        outlines = of.outlines(record, source.how, "track")
        seen = [outline for outline in outlines if outline.true is not None]
        ious = iter(rec_ious([each.predicted for each in seen], [each.true for each in seen]).tolist() if seen else [])
        values = [None if outline.true is None else next(ious) for outline in outlines]
        followed = of.track_ious(record, source.how)
        found["track"] = _placed(outlines, values, float(followed.mean()) if len(followed) else None, film)
    return found


def mask_similarity(outline: Outline) -> float:
    """J of one frame; where nothing is to be seen of the object, 1 if none is shown (as in `tpo_lab.records.mask_qualities`)."""
    if outline.predicted is None or outline.true is None:
        return float(outline.predicted is outline.true)
    return region_similarity(decode_rle("predicted", outline.predicted), decode_rle("true", outline.true))


def _placed(outlines: Sequence[Outline], values: Sequence[float | None], whole: float | None, film: Film) -> dict[str, Any]:
    return {
        "frames": [film.nearest(outline.time_sec) for outline in outlines],
        "times": [round(outline.time_sec, 4) for outline in outlines],
        "values": [None if value is None else round(value, 4) for value in values],
        "whole": None if whole is None else round(whole, 4),
    }
