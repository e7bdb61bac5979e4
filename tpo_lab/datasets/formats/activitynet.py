"""ActivityNet Captions: a JSON object of videos with timestamps in seconds and their sentences; or JSONL rows.

Source: 2D-TAN (train.json, val.json, test.json: the last two are ActivityNet's val_1 and val_2); lighthouse and CG-DETR for the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.moments import by_video, is_rows, moment, one_span, row_sample, sentences, write_moments
from tpo_lab.files import Record, Streamed, stream_jsonl
from tpo_lab.sample import Sample

NAME = "activitynet"


def rows(source: Source) -> Iterator[Streamed]:
    """One video, or one row."""
    return stream_jsonl(source.path) if is_rows(source) else by_video(source.path)


def parts(record: Record, source: Source) -> Iterable[Record]:
    """One sentence, one record."""
    return [record] if is_rows(source) else sentences(record, "duration")


def sample(record: Record, source: Source) -> Sample:
    """One sentence with its window; blanks around the sentence, which most have, are left out."""
    if is_rows(source):
        return row_sample(NAME, record, source, "{}.mp4".format)
    video, query, duration = record.words("vid"), record.words("query"), record.seconds("duration")
    windows_sec = one_span(record, "timestamp", source, duration)
    key = f"{video}-{record.integer('place')}"
    return moment(NAME, key, record, source, media={"path": f"{video}.mp4"}, query=query, windows_sec=windows_sec, duration_sec=duration)


ACTIVITYNET = Format(
    name=NAME,
    title="ActivityNet Captions",
    home="2D-TAN, data/ActivityNet (microsoft); as JSONL lighthouse (line) and CGDETR (wjun0830)",
    licence="not stated",
    layout="train.json, val.json or test.json, beside the videos v_{id}.mp4\nor rows in QVHighlights' form, activitynet_val_release.jsonl",
    rows=rows,
    parts=parts,
    sample=sample,
    write=write_moments,
    tasks=("temporal",),
)
