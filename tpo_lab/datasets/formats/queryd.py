"""QuerYD: spoken descriptions of videos, cut into sentences, with the seconds at which they were spoken.

A list of videos (the split) beside two pickles, of which nothing but plain data is read: the words of each sentence and its times, in
parallel lists. Source: QuerYD and collaborative-experts, as VideoMind reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.moments import moment, one_span
from tpo_lab.errors import UsageError
from tpo_lab.files import BadRecord, Record, Streamed, stream_lines
from tpo_lab.files.pickles import read_pickle
from tpo_lab.sample import Sample

NAME = "queryd"
_PREFIX = "video-"


def rows(source: Source) -> Iterator[Streamed]:
    """One video of the list."""
    captions = _by_video(source.beside("captions", "raw_captions_combined_filtered*.pkl"))
    times = _by_video(source.beside("times", "times_captions_combined_filtered*.pkl"))
    for line in stream_lines(source.path):
        if isinstance(line, BadRecord):
            yield line
            continue
        video = line[1].strip()
        fields = {name: _listed(table[video]) for name, table in (("captions", captions), ("times", times)) if video in table}
        yield Record(f"{source.path}, line {line[0]}, {video}"[:200], {"video": video, **fields})


def _by_video(path: Path) -> dict[Any, Any]:
    found = read_pickle(path)
    if not isinstance(found, dict):
        raise UsageError(str(path), expected="a dictionary by video", got=type(found).__name__)
    return found


def _listed(value: Any) -> Any:
    """The value with lists for tuples, as JSON has them."""
    return [_listed(each) for each in value] if isinstance(value, (list, tuple)) else value


def parts(record: Record, source: Source) -> Iterator[Record]:
    """One sentence, one record."""
    captions, times = record.several("captions"), record.several("times")
    if len(captions) != len(times):
        raise record.bad("times", "lengths_equal", f"one window per caption ({len(captions)})", len(times))
    for place, (caption, window) in enumerate(zip(captions, times, strict=True)):
        fields = {"video": record.fields["video"], "place": place, "caption": caption, "time": window}
        yield Record(f"{record.where}, captions[{place}]", fields)


def sample(record: Record, source: Source) -> Sample:
    """One sentence, its words set side by side, with its window."""
    video = record.words("video")
    if not video.startswith(_PREFIX) or video == _PREFIX:
        raise record.bad("video", "video_id", f"'{_PREFIX}' and the video's id", video)
    query = Record(record.where, {"caption": " ".join(record.texts("caption"))}).words("caption")
    name = video.removeprefix(_PREFIX)
    windows_sec = one_span(record, "time", source, None)
    return moment(
        NAME, f"{name}-{record.integer('place')}", record, source, media={"path": f"{name}.mp4"}, query=query, windows_sec=windows_sec
    )


QUERYD = Format(
    name=NAME,
    title="QuerYD",
    home="QuerYD_downloader (oncescuandreea); collaborative-experts (albanie)",
    licence="not stated",
    layout=(
        "train_list.txt (a video-{id} a line) beside raw_captions_combined_filtered-v2.pkl (captions), "
        "times_captions_combined_filtered-v2.pkl (times) and the videos {id}.mp4; no durations, so --clip changes nothing"
    ),
    rows=rows,
    parts=parts,
    sample=sample,
    sides=("captions", "times"),
    tasks=("temporal",),
)
