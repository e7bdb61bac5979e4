"""HiREST: how-to videos by the prompt that they were searched with; the part of a video that shows it, and that part's steps.

The prompt is the query. Entries that are not relevant, or have no such part, hold no moment; in the test split the parts are withheld.
Steps come with the prompts (`steps`), or by video (`formatted-steps`), as the evaluation of moment segmentation and captioning has them.
Source: HiREST, data/splits and data/evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.moments import by_video, moment, one_span
from tpo_lab.datasets.formats.submission import ranked_windows, raw_of, write_text
from tpo_lab.files import BadRecord, Record, Streamed, stream_members
from tpo_lab.sample import Sample

NAME = "hirest"
VARIANTS = ("moments", "steps", "formatted-steps")
WITHHELD = [0, 1]
"""What every entry of the test split has for its bounds, and no step."""


def rows(source: Source) -> Iterator[Streamed]:
    """One video of one prompt, of which those without a moment are counted as left out; or one video with its steps."""
    if source.variant == VARIANTS[2]:
        yield from by_video(source.path, name="video")
        return
    for prompt, videos in stream_members(source.path):
        where = f"{source.path}, {prompt}"
        if not isinstance(videos, dict):
            yield BadRecord(where, rule="object", expected="an object of videos", got=type(videos).__name__)
            continue
        for video, entry in videos.items():
            inside = f"{where}, {video}"
            if not isinstance(entry, dict):
                yield BadRecord(inside, rule="object", expected="an object with fields", got=type(entry).__name__)
                continue
            record = Record(inside, {**entry, "prompt": prompt, "video": video})
            try:
                asked = _flag(record, "relevant") and _flag(record, "clip")
            except BadRecord as bad:
                yield bad
                continue
            if asked:
                yield record
            else:
                source.adjusted["entry without a moment left out"] += 1


def _flag(record: Record, field: str) -> bool:
    value = record.value(field)
    if not isinstance(value, bool):
        raise record.bad(field, "flag", "true or false", value)
    return value


def parts(record: Record, source: Source) -> Iterator[Record]:
    """The entry, or its steps, one record each."""
    if source.variant not in VARIANTS[1:]:
        yield record
        return
    if source.variant == VARIANTS[2]:
        yield from _captions(record)
        return
    shared = {name: record.value(name) for name in ("prompt", "video", "v_duration")}
    for place, step in enumerate(record.several("steps")):
        yield Record(f"{record.where}, steps[{place}]", {**shared, "place": place, "step": step})


def _captions(record: Record) -> Iterator[Record]:
    """The captions of a video, each with the bounds at its place.

    Raises:
        BadRecord: their numbers differ, so that no caption can be trusted to have its own bounds.
    """
    captions, bounds = record.several("captions"), record.several("bounds")
    if len(captions) != len(bounds):
        raise record.bad("captions", "lengths_equal", f"one per entry of bounds ({len(bounds)})", len(captions))
    for place, (caption, span) in enumerate(zip(captions, bounds, strict=True)):
        fields = {"video": record.value("video"), "place": place, "caption": caption, "bounds": span}
        yield Record(f"{record.where}, captions[{place}]", fields)


def sample(record: Record, source: Source) -> Sample:
    """When the video shows what the prompt asks for, or one step of it, in whole seconds."""
    if source.variant == VARIANTS[2]:
        return _captioned(record, source)
    prompt, video, duration = record.words("prompt"), record.words("video"), record.seconds("v_duration")
    key, query, inside, field = f"{PurePath(video).stem}-{prompt}", prompt, record, "bounds"
    if source.variant == "steps":
        inside, field = record.inner("step"), "absolute_bounds"
        key, query = f"{key}-{record.integer('place')}", inside.words("heading")
    withheld = inside.value(field) == WITHHELD and record.fields.get("steps") == []
    windows_sec = None if withheld else one_span(inside, field, source, duration)
    return moment(NAME, key, record, source, media={"path": video}, query=query, windows_sec=windows_sec, duration_sec=duration)


def _captioned(record: Record, source: Source) -> Sample:
    """When the video shows one step; the file does not say how long videos are."""
    video, caption = record.words("video"), record.inner("caption")
    windows_sec = one_span(record, "bounds", source, None)
    if [caption.number("start"), caption.number("end")] != windows_sec[0]:
        raise record.bad("bounds", "bounds_equal", "the start and end of the caption at the same place", record.fields["bounds"])
    key, query = f"{PurePath(video).stem}-{record.integer('place')}", caption.words("sentence")
    return moment(NAME, key, record, source, media={"path": video}, query=query, windows_sec=windows_sec)


def write(samples: Iterable[Sample], path: Path) -> int:
    """One JSON object by prompt and video, as the official evaluation takes it; [0, 0], which is never right, where there is no answer."""
    found: dict[str, dict[str, Any]] = {}
    for each in samples:
        raw = raw_of(each, "prompt", "video", "bounds")
        best = next(iter(ranked_windows(each)), [0.0, 0.0])
        found.setdefault(raw["prompt"], {})[raw["video"]] = {"bounds": best[:2]}
    write_text(path, json.dumps(found))
    return sum(len(videos) for videos in found.values())


HIREST = Format(
    name=NAME,
    title="HiREST",
    home="HiREST, data/splits and data/evaluation (j-min)",
    licence="MIT (the repository); the videos as their uploaders say",
    layout="all_data_train.json, all_data_val.json or all_data_test.json, beside the videos {id}.mp4\n"
    "with --variant formatted-steps: formatted_moment_evaluation_gt.json",
    rows=rows,
    parts=parts,
    sample=sample,
    variants=VARIANTS,
    write=write,
    tasks=("temporal",),
)
