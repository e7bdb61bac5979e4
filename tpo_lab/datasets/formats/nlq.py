"""Ego4D natural language queries: videos, their clips, the annotations of a clip, and their queries, all in one document; or JSONL rows.

Source: Ego4D episodic-memory, NLQ; CG-DETR for the rows.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.moments import is_rows, moment, row_sample, write_moments
from tpo_lab.datasets.formats.submission import ranked_windows, raw_of, write_text
from tpo_lab.datasets.formats.windows import span
from tpo_lab.errors import UsageError
from tpo_lab.files import BadRecord, Record, Streamed, stream_items, stream_jsonl
from tpo_lab.sample import Sample

NAME = "nlq"
VARIANTS = ("clips", "videos")


def rows(source: Source) -> Iterator[Streamed]:
    """One query; those that nobody wrote down are counted as left out, as the official preparation leaves them out."""
    if is_rows(source):
        if source.variant == "videos":
            raise UsageError("--variant", expected="clips, since rows do not say where in the video a clip is", got="videos")
        yield from stream_jsonl(source.path)
        return
    for query in _queries(source.path):
        if isinstance(query, Record) and query.fields.get("query") is None:
            source.adjusted["query that nobody wrote down left out"] += 1
        else:
            yield query


def _queries(path: Path) -> Iterator[Streamed]:
    for video in stream_items(path, ("videos",)):
        for clip in _within(video, "clips"):
            for annotation in _within(clip, "annotations"):
                for place, query in enumerate(_within(annotation, "language_queries")):
                    if isinstance(query, BadRecord):
                        yield query
                        continue
                    above = {name: _given(record, name) for record, name in ((video, "video_uid"), (clip, "clip_uid"))}
                    above |= {"annotation_uid": _given(annotation, "annotation_uid"), "query_idx": place}
                    yield Record(query.where, {**query.fields, **above, "clip": _bounds(clip)})


def _within(record: Streamed, field: str) -> Iterator[Streamed]:
    """The objects of a list in a record; a bad one, or a bad record above, stands for itself."""
    if isinstance(record, BadRecord):
        yield record
        return
    try:
        values = record.several(field)
    except BadRecord as bad:
        yield bad
        return
    for place, value in enumerate(values):
        where = f"{record.where}, {field}[{place}]"
        if isinstance(value, dict):
            yield Record(where, value)
        else:
            yield BadRecord(where, rule="object", expected="an object with fields", got=type(value).__name__)


def _given(record: Streamed, name: str) -> Any:
    return record.fields.get(name) if isinstance(record, Record) else None


def _bounds(clip: Streamed) -> dict[str, Any]:
    """Where the clip lies in its video, in seconds."""
    return {name: _given(clip, name) for name in ("video_start_sec", "video_end_sec") if _given(clip, name) is not None}


def sample(record: Record, source: Source) -> Sample:
    """One query with its window, in seconds of the clip; the media is the clip's file, or the clip's part of the video."""
    if is_rows(source):
        return row_sample(NAME, record, source, "{}.mp4".format)
    clip, annotation, query = record.words("clip_uid"), record.words("annotation_uid"), record.words("query")
    media: dict[str, Any] = {"path": f"{clip}.mp4"}
    duration, bounds = None, record.inner("clip")
    if bounds.fields or source.variant == "videos":
        start, end = bounds.number("video_start_sec"), bounds.number("video_end_sec")
        duration = Record(bounds.where, {"length": end - start}).seconds("length")
        if source.variant == "videos":
            media = {"path": f"{record.words('video_uid')}.mp4", "start_sec": start, "end_sec": end}
    windows_sec = None
    if "clip_start_sec" in record.fields:
        field = "clip_start_sec, clip_end_sec"
        windows_sec = span(record, field, record.number("clip_start_sec"), record.number("clip_end_sec"), source, duration)
    key = f"{clip}/{annotation}/{record.integer('query_idx')}"
    return moment(NAME, key, record, source, media=media, query=query, windows_sec=windows_sec, duration_sec=duration)


def write(samples: Iterable[Sample], path: Path) -> int:
    """The challenge's JSON; samples that were made of JSONL rows become such rows again."""
    rest = iter(samples)
    first = next(rest, None)
    every = rest if first is None else itertools.chain([first], rest)
    if first is not None and "qid" in raw_of(first):
        return write_moments(every, path)
    results = [_result(each) for each in every]
    write_text(path, json.dumps({"version": "1.0", "challenge": "ego4d_nlq_challenge", "results": results}))
    return len(results)


def _result(sample: Sample) -> dict[str, Any]:
    names = ("clip_uid", "annotation_uid", "query_idx")
    raw = raw_of(sample, *names)
    return {name: raw[name] for name in names} | {"predicted_times": [window[:2] for window in ranked_windows(sample)]}


NLQ = Format(
    name=NAME,
    title="Ego4D natural language queries (NLQ)",
    home="Ego4D, episodic-memory benchmark, annotations nlq; as JSONL CGDETR (wjun0830), data/nlq",
    licence="Ego4D licence agreement, non-commercial",
    layout=(
        "nlq_train.json, nlq_val.json or nlq_test_unannotated.json, beside the clips {clip_uid}.mp4 (variant clips) or the whole "
        "videos {video_uid}.mp4 (variant videos)\nor rows in QVHighlights' form, beside the clips {vid}.mp4"
    ),
    rows=rows,
    sample=sample,
    variants=VARIANTS,
    write=write,
    tasks=("temporal",),
)
