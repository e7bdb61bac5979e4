"""What a model made of each sample, and how well each record meets its target: one value per record. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpo_lab.metrics.highlights import MINIMA, clip_scores, highlight_average_precisions, highlight_hits
from tpo_lab.metrics.moment_retrieval import average_precisions
from tpo_lab.metrics.qa import ABSENT_KINDS, qa_correct
from tpo_lab.metrics.region import rec_ious
from tpo_lab.metrics.routing import route_correct
from tpo_lab.metrics.temporal import moment_ious
from tpo_lab.sample.times import nearest_annotation

Values = NDArray[np.float64]
ROUTED, GIVEN, DIRECT = "routed", "forced", "direct"
"""Which of a record's answers to read: with the route emitted by the model, with the true route given, or with the user's box given to
SAM2 itself."""


@dataclass(frozen=True)
class Record:
    """One sample and what the model made of it, JSON-ready.

    Attributes:
        expected, emitted: the routes of the true answer and of the model's.
        routed: the structured answers that the model gave by itself, per head.
        forced: what each head reads where the true routes are given, per head.
        direct: the mask head's answer where the box that the user pointed at goes straight to SAM2; empty where nobody pointed.
        target: the sample's targets.
        task: the head that the sample is about, where its `meta` says so; for questions about what is not there no route does.
        route_probability: per head, as in `Answer`; empty in records of before it was kept.
    """

    id: str
    kind: str
    question: str
    expected_text: str
    text: str
    expected: tuple[str, ...]
    emitted: tuple[str, ...]
    routed: dict[str, Any]
    forced: dict[str, Any]
    target: dict[str, Any]
    media: str
    task: str = ""
    route_probability: dict[str, float] = field(default_factory=dict)
    direct: dict[str, Any] = field(default_factory=dict)


def is_plain(record: Record) -> bool:
    """Whether it is a question of conversation: no route is right, and what it asks for is there."""
    return not record.expected and record.kind not in ABSENT_KINDS


def is_absent(record: Record) -> bool:
    """Whether it is a question put like a task's, about what is not in the video."""
    return not record.expected and record.kind in ABSENT_KINDS


def has_box(record: Record) -> bool:
    """Whether exactly one box is true."""
    return len(record.target.get("region") or ()) == 1


def has_moment(record: Record) -> bool:
    """Whether a window is true."""
    return bool((record.target.get("temporal") or {}).get("windows_sec"))


def has_saliency(record: Record) -> bool:
    """Whether the clips' saliency is annotated."""
    return bool((record.target.get("temporal") or {}).get("saliency"))


def routes(record: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Expected and emitted routes; several of one head make one answer of that head."""
    return tuple(dict.fromkeys(record.expected)), tuple(dict.fromkeys(record.emitted))


def answered(records: Sequence[Record]) -> Values:
    """1 for each exact answer [record]."""
    return np.asarray(qa_correct([record.text for record in records], [record.expected_text for record in records]), dtype=float)


def well_routed(records: Sequence[Record]) -> Values:
    """1 for each record whose routes are right [record]."""
    pairs = [routes(record) for record in records]
    return np.asarray(route_correct([expected for expected, _ in pairs], [emitted for _, emitted in pairs]), dtype=float)


def boxes(record: Record, how: str) -> list[list[float]] | None:
    """The boxes of an answer, xyxy in pixels; None where the region head gave none."""
    return getattr(record, how).get("region", {}).get("boxes_xyxy")  # type: ignore[no-any-return]


def first_box(record: Record, how: str) -> list[float] | None:
    """The first of them."""
    found = boxes(record, how)
    return found[0] if found else None


def windows(record: Record, how: str) -> list[list[float]] | None:
    """The windows of an answer in seconds, best first; None where the temporal head gave none."""
    return getattr(record, how).get("temporal", {}).get("windows_sec")  # type: ignore[no-any-return]


def ranked_windows(record: Record, how: str) -> list[list[float]]:
    """Windows as (start, end, score); those of a head that gives no scores keep their order."""
    found = windows(record, how) or []
    scores = getattr(record, how).get("temporal", {}).get("scores") or [-rank for rank in range(len(found))]
    return [[start, end, score] for (start, end), score in zip(found, scores, strict=True)]


def true_windows(records: Sequence[Record]) -> list[list[list[float]]]:
    """The true windows of records that have some."""
    return [record.target["temporal"]["windows_sec"] for record in records]


def box_ious(records: Sequence[Record], how: str) -> Values:
    """IoU of the first box with the true one [record], of records with one true box."""
    return rec_ious([first_box(record, how) for record in records], [record.target["region"][0]["xyxy"] for record in records])


def window_ious(records: Sequence[Record], how: str) -> Values:
    """IoU of the first window with the nearest true one [record], of records that have true windows."""
    return moment_ious([windows(record, how) for record in records], true_windows(records))


def window_precisions(records: Sequence[Record], how: str) -> Values:
    """Average precision of all ranked windows, mean over QVHighlights' thresholds [record], of records that have true windows."""
    found: Values = average_precisions([ranked_windows(record, how) for record in records], true_windows(records)).mean(1)
    return found


def clip_saliency(records: Sequence[Record], how: str) -> tuple[list[ArrayLike | None], list[ArrayLike]]:
    """Score per clip, and which clips are positive for the one annotator [clip, 1], of records whose saliency is annotated.

    Officially three annotators grade each clip of 2 seconds from 0 to 4, a clip is positive for those that gave 4, and the model gives one
    score per clip. A sample's target is one annotator with clips of its own length. In the world a grade is the share of the clip that
    the event fills, times 4, so that a positive clip is one that lies inside the event as a whole. The head's curve of frames is
    brought to the clips by `clip_scores`. Grades on another scale than 0 to 4 would find no positive clip.
    """
    found: list[ArrayLike | None] = []
    positive: list[ArrayLike] = []
    for record in records:
        curve, target = getattr(record, how).get("temporal", {}).get("saliency"), record.target["temporal"]["saliency"]
        found.append(clip_scores(curve, step_sec=target["step_sec"], count=len(target["scores"])) if curve else None)
        positive.append([[grade >= MINIMA["VeryGood"]] for grade in target["scores"]])
    return found, positive


def saliency_hits(records: Sequence[Record], how: str) -> Values:
    """1 where the clip of the highest saliency is positive [record]; see `clip_saliency`."""
    return highlight_hits(*clip_saliency(records, how)).astype(float)


def saliency_precisions(records: Sequence[Record], how: str) -> Values:
    """Average precision of the clips ranked by saliency [record]; see `clip_saliency`."""
    found: Values = highlight_average_precisions(*clip_saliency(records, how)).mean(1)
    return found


@dataclass(frozen=True)
class Outline:
    """One frame of a mask or of a track, predicted and true; None where the object is not there.

    Attributes:
        time_sec: of the frame.
        predicted, true: run lengths, or boxes xyxy in pixels.
    """

    time_sec: float
    predicted: Any
    true: Any


def has_mask(record: Record) -> bool:
    """Whether masks are true."""
    return bool(record.target.get("mask"))


def has_track(record: Record) -> bool:
    """Whether boxes of a track are true."""
    return bool(record.target.get("track"))


def has_followed_track(record: Record) -> bool:
    """Whether boxes of a track are true, and more than the first frame shows the object."""
    return has_track(record) and any(box is not None for box in record.target["track"]["xyxy"][1:])


def outlines(record: Record, how: str, kind: str) -> list[Outline]:
    """The frames that the mask head answered for, with what is annotated nearest to them; those in a gap of the annotation are left out.

    Where the head gave no answer: all annotated frames, with nothing predicted.

    Args:
        record: with a target of the kind.
        how: `ROUTED` or `GIVEN`.
        kind: "mask" or "track".
    """
    target, found = record.target[kind], getattr(record, how).get("mask", {})
    times, true = target["times_sec"], target["rle" if kind == "mask" else "xyxy"]
    objects = found.get("masks" if kind == "mask" else "track_xyxy")
    if not objects:
        return [Outline(float(time), None, value) for time, value in zip(times, true, strict=True)]
    nearest, near = nearest_annotation(found["times_sec"], times)
    answered = zip(found["times_sec"], objects[0], nearest.tolist(), near.tolist(), strict=True)
    return [Outline(float(time), value, true[place]) for time, value, place, counts in answered if counts]


def mask_qualities(records: Sequence[Record], how: str) -> Values:
    """Region similarity J and contour accuracy F [record, 2], means over the frames that were answered for, of records with masks.

    A frame without the object in which none is shown counts 1, as in DAVIS.
    """
    from tpo_lab.metrics.masks import contour_accuracy, region_similarity
    from tpo_lab.rle import decode_rle

    found = []
    for record in records:
        qualities = []
        for frame in outlines(record, how, "mask"):
            if frame.predicted is None or frame.true is None:
                qualities.append([float(frame.predicted is frame.true)] * 2)
                continue
            pair = decode_rle("predicted", frame.predicted), decode_rle("true", frame.true)
            qualities.append([region_similarity(*pair), contour_accuracy(*pair)])
        found.append(np.mean(qualities, axis=0) if qualities else np.zeros(2))
    return np.asarray(found, dtype=float).reshape(-1, 2)


def track_ious(record: Record, how: str) -> Values:
    """IoU of the boxes in the frames after the first in which the object can be seen [frame]; 0 where none is given.

    Source: GOT-10k, whose average overlap leaves the first frame out and frames in which the object is hidden.
    """
    seen = [frame for frame in outlines(record, how, "track")[1:] if frame.true is not None]
    return rec_ious([frame.predicted for frame in seen], [frame.true for frame in seen]) if seen else np.zeros(0)


def track_overlaps(records: Sequence[Record], how: str) -> Values:
    """The mean of `track_ious` of each record [record], of those with `has_followed_track`."""
    ious = [track_ious(record, how) for record in records]
    return np.asarray([each.mean() if len(each) else 0.0 for each in ious])
