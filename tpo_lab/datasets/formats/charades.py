"""Charades-STA: a query and its moment a line, "video start end##sentence"; or JSONL rows, whose windows end with their video.

Both ground truths can be had of the text: as it is, which ends 562 of the 3720 test moments after their video, and with windows cut at
the end of the video, which are the JSONL's. Source: TALL and 2D-TAN for the text, lighthouse and CG-DETR for the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.moments import is_rows, moment, row_sample, write_moments
from tpo_lab.datasets.formats.windows import span
from tpo_lab.files import BadRecord, Record, Streamed, stream_csv, stream_jsonl, stream_lines
from tpo_lab.sample import Sample

NAME = "charades-sta"
_SPLIT = re.compile(r"train|test")


def rows(source: Source) -> Iterator[Streamed]:
    """One line, one query; what is wrong in the table of durations comes first."""
    if is_rows(source):
        yield from stream_jsonl(source.path)
        return
    durations: dict[str, float] = {}
    table = _table(source)
    for row in stream_csv(table, ["id", "length"]) if table else ():
        try:
            video, length = _length(row)
        except BadRecord as bad:
            yield bad
        else:
            durations[video] = length
    for line in stream_lines(source.path):
        yield line if isinstance(line, BadRecord) else _parsed(source.path, *line, durations)


def _table(source: Source) -> Path | None:
    """The table of the videos' lengths; asked for where windows are to be cut, else optional."""
    split = _SPLIT.search(source.path.name)
    place = f"Charades_v1_{split[0]}.csv" if split else "Charades_v1_*.csv"
    return source.beside("durations", place) if source.clip else source.finds("durations", place)


def _length(row: Streamed) -> tuple[str, float]:
    if isinstance(row, BadRecord):
        raise row
    return row.words("id"), Record(row.where, {"length": _number(row.text("length"))}).seconds("length")


def _parsed(path: Path, number: int, line: str, durations: dict[str, float]) -> Streamed:
    """The line as the record {qid, vid, start, end, query}, with the duration where it is known; qid counts lines from 0."""
    where = f"{path}, line {number}"
    head, found, query = line.partition("##")
    words = head.split()
    if not found or len(words) != 3:
        return BadRecord(where, rule="line", expected="'video start end##sentence'", got=line[:80])
    fields = {"qid": number - 1, "vid": words[0], "start": _number(words[1]), "end": _number(words[2]), "query": query}
    return Record(where, fields | ({"duration": durations[words[0]]} if words[0] in durations else {}))


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def sample(record: Record, source: Source) -> Sample:
    """One query with its one window."""
    if is_rows(source):
        return row_sample(NAME, record, source, "{}.mp4".format)
    video, query = record.words("vid"), record.words("query")
    duration = record.seconds("duration") if "duration" in record.fields or source.clip else None
    windows_sec = span(record, "start, end", record.number("start"), record.number("end"), source, duration)
    key = f"{video}-{record.integer('qid')}"
    return moment(NAME, key, record, source, media={"path": f"{video}.mp4"}, query=query, windows_sec=windows_sec, duration_sec=duration)


CHARADES = Format(
    name=NAME,
    title="Charades-STA",
    home="TALL (jiyanggao); also 2D-TAN, data/Charades-STA (microsoft), and as JSONL lighthouse (line) and CGDETR (wjun0830)",
    licence="Charades: non-commercial use; the sentences: not stated",
    layout=(
        "charades_sta_test.txt beside Charades_v1_test.csv (durations; needed for --clip) and the videos {video}.mp4\n"
        "or rows in QVHighlights' form, charades_test_release.jsonl"
    ),
    rows=rows,
    sample=sample,
    sides=("durations",),
    write=write_moments,
    tasks=("temporal",),
)
