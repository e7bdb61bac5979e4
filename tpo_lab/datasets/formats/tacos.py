"""TACoS: a JSON object of cooking videos with timestamps in frames and their sentences; or JSONL rows in seconds.

Source: 2D-TAN (frames, 29.4 a second); lighthouse and CG-DETR for the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePath

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.moments import by_video, is_rows, moment, one_span, row_sample, sentences, write_moments
from tpo_lab.files import Record, Streamed, stream_jsonl
from tpo_lab.sample import Sample

NAME = "tacos"
VARIANTS = ("avi", "cam-002")


def rows(source: Source) -> Iterator[Streamed]:
    """One video, or one row."""
    return stream_jsonl(source.path) if is_rows(source) else by_video(source.path)


def parts(record: Record, source: Source) -> Iterable[Record]:
    """One sentence, one record."""
    return [record] if is_rows(source) else sentences(record, "fps", "num_frames")


def sample(record: Record, source: Source) -> Sample:
    """One sentence with its window: frame / fps is the second."""

    def media(video: str) -> str:
        stem = PurePath(video).stem if video.endswith(".avi") else video
        return f"{stem}-cam-002.mp4" if source.variant == "cam-002" else f"{stem}.avi"

    if is_rows(source):
        return row_sample(NAME, record, source, media)
    video, query, fps = record.words("vid"), record.words("query"), record.positive("fps")
    duration = Record(record.where, {"num_frames / fps": record.positive("num_frames") / fps}).seconds("num_frames / fps")
    windows_sec = one_span(record, "timestamp", source, duration, per_sec=fps)
    key = f"{PurePath(video).stem}-{record.integer('place')}"
    return moment(NAME, key, record, source, media={"path": media(video)}, query=query, windows_sec=windows_sec, duration_sec=duration)


TACOS = Format(
    name=NAME,
    title="TACoS",
    home="2D-TAN, data/TACoS (microsoft); as JSONL lighthouse (line) and CGDETR (wjun0830)",
    licence="not stated",
    layout=(
        "train.json, val.json or test.json, beside the videos s17-d69.avi (variant avi) or s17-d69-cam-002.mp4 (variant cam-002)\n"
        "or rows in QVHighlights' form, tacos_val_release.jsonl"
    ),
    rows=rows,
    parts=parts,
    sample=sample,
    variants=VARIANTS,
    write=write_moments,
    tasks=("temporal",),
)
