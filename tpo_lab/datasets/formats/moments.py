"""One query about one video and when it happens: what all formats of moments share, and the JSONL rows that many of them also come as.

Source of the rows: QVHighlights' form without its saliency, as CG-DETR and lighthouse give it to other data sets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tpo_lab.datasets.formats.format import Source
from tpo_lab.datasets.formats.submission import ranked_windows, raw_of, write_lines
from tpo_lab.datasets.formats.turns import temporal_turns
from tpo_lab.datasets.formats.windows import span, spans
from tpo_lab.files import BadRecord, Record, Streamed, numbers, stream_members
from tpo_lab.sample import Sample


def moment(
    form: str,
    key: str,
    record: Record,
    source: Source,
    *,
    media: dict[str, Any],
    query: str,
    windows_sec: list[list[float]] | None,
    duration_sec: float | None = None,
    split: str | None = None,
) -> Sample:
    """The sample that asks when a query happens.

    Args:
        form: name of the format.
        key: tells the query apart from all others of the data set.
        record: its raw record.
        source: says the split, where `split` doesn't.
        media: the fields of the sample's media.
        query: what happens.
        windows_sec: when, (start, end) in seconds of the part that `media` names; None where the data set does not say.
        duration_sec: of the video, where the data set says.
    """
    turns = temporal_turns(key, query)
    declared = {} if duration_sec is None else {"duration_sec": duration_sec}
    return Sample.model_validate(
        {
            "id": f"{form}-{key}",
            "source": form,
            "split": source.split if split is None else split,
            "media": media,
            "conversation": turns[:1] if windows_sec is None else turns,
            "targets": {} if windows_sec is None else {"temporal": {"windows_sec": windows_sec}},
            "meta": {"task": "temporal", **declared, "raw": dict(record.fields)},
        }
    )


def one_span(record: Record, field: str, source: Source, duration_sec: float | None, *, per_sec: float = 1.0) -> list[list[float]]:
    """The one window that a field holds as [start, end], `per_sec` units of which are a second; see `windows.within`."""
    start, end = (float(each) / per_sec for each in numbers(record.where, [record.value(field)], 2, field=field)[0])
    return span(record, field, start, end, source, duration_sec)


def is_rows(source: Source) -> bool:
    """Whether the source is a file of JSONL rows."""
    return source.path.suffix == ".jsonl"


def row_sample(form: str, record: Record, source: Source, media: Callable[[str], str]) -> Sample:
    """The sample of a row {qid, query, duration, vid, relevant_windows}; `media` makes a path of its vid."""
    video, duration = record.words("vid"), record.seconds("duration")
    windows_sec = spans(record, "relevant_windows", source, duration) if "relevant_windows" in record.fields else None
    key, query = record.text("qid"), record.words("query")
    return moment(form, key, record, source, media={"path": media(video)}, query=query, windows_sec=windows_sec, duration_sec=duration)


def by_video(path: Path, under: Sequence[str] = (), *, name: str = "vid") -> Iterator[Streamed]:
    """The members of a JSON object as records, each with its key in the field `name`."""
    for key, value in stream_members(path, under):
        where = f"{path}, {key}"
        if isinstance(value, dict):
            yield Record(where, {**value, name: key})
        else:
            yield BadRecord(where, rule="object", expected="an object with fields", got=type(value).__name__)


def sentences(record: Record, *kept: str) -> Iterator[Record]:
    """A video with parallel lists `timestamps` and `sentences` as one record {vid, query, timestamp} a sentence, and the fields `kept`.

    Raises:
        BadRecord: the lists differ in length, so that no sentence can be trusted to have its own times.
    """
    times, texts = record.several("timestamps"), record.several("sentences")
    if len(times) != len(texts):
        raise record.bad("sentences", "lengths_equal", f"one per timestamp ({len(times)})", len(texts))
    shared = {name: record.value(name) for name in ("vid", *kept)}
    for place, (stamp, text) in enumerate(zip(times, texts, strict=True)):
        fields = {**shared, "place": place, "query": text, "timestamp": stamp}
        yield Record(f"{record.where}, sentences[{place}]", fields)


def write_moments(samples: Iterable[Sample], path: Path) -> int:
    """JSONL rows as `tpo-lab score` reads them beside the official annotations: by qid where these have one, else by video and query."""
    return write_lines(path, (json.dumps(_row(each)) for each in samples))


def _row(sample: Sample) -> dict[str, Any]:
    raw = raw_of(sample, "vid", "query")
    return {name: raw[name] for name in ("qid", "vid", "query") if name in raw} | {"pred_relevant_windows": ranked_windows(sample)}
