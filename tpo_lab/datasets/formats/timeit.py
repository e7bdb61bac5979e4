"""TimeIT: questions about when, with seconds in the words of the answer; and the captions with time tokens that it was made of.

Answers hold one moment of the query in their question, or a row of events with a description each; so do captions with time tokens,
which count a video's length from 0 to 99. Source: TimeChat; TimeSuite for the files that were read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.moments import moment, one_span
from tpo_lab.datasets.formats.turns import plain, unmarked
from tpo_lab.errors import UsageError
from tpo_lab.files import BadRecord, Record, Streamed, stream_items
from tpo_lab.sample import Sample

NAME = "timeit"
VARIANTS = ("moments", "words")
"""moments: when each query or event happens, as windows. words: the conversation as it is, with the seconds in its words."""
LAST_TOKEN = 99
_SECONDS = r"(\d+(?:\.\d+)?) ?- ?(\d+(?:\.\d+)?) seconds"
_ANSWER = re.compile(rf"The given query happens in {_SECONDS}\.?")
_EVENT = re.compile(rf"(?:^| ){_SECONDS}, ")
_TOKEN = re.compile(r"<time_token_(\d{1,3})>")


def rows(source: Source) -> Iterator[Streamed]:
    """One video with its questions, or with its caption."""
    tokens = _holds_object(source.path)
    if tokens and source.variant == "words":
        raise UsageError("--variant", expected="moments for captions with time tokens, which have no questions", got="words")
    for place, row in enumerate(stream_items(source.path, ("annotations",) if tokens else ())):
        yield row if isinstance(row, BadRecord) else Record(row.where, {**row.fields, "place": place})


def _holds_object(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(100).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"


def parts(record: Record, source: Source) -> Iterable[Record]:
    """One moment, one record; with the variant "words" the conversation as it is."""
    if source.variant == "words":
        return [record]
    return _captioned(record) if "caption" in record.fields else _answered(record)


def _answered(record: Record) -> Iterator[Record]:
    shared = {"video": record.value("video"), "place": record.value("place")}
    for turn, each in enumerate(record.several("QA")):
        inside = f"{record.where}, QA[{turn}]"
        if not isinstance(each, dict):
            # made a record, so that this pair alone is dropped
            yield Record(inside, {"QA": each})
            continue
        pair = Record(inside, {**each, **shared, "turn": turn})
        answer = pair.fields.get("a")
        found = _EVENT.split(" ".join(answer.split())) if isinstance(answer, str) else []
        if len(found) < 4 or found[0]:
            yield pair
            continue
        for place, (start, end, text) in enumerate(zip(found[1::3], found[2::3], found[3::3], strict=True)):
            fields = {"event": place, "query": text.strip().removesuffix("."), "timestamp": [float(start), float(end)]}
            yield Record(f"{inside}, event {place}", {**pair.fields, **fields})


def _captioned(record: Record) -> Iterator[Record]:
    """The events of a caption; their seconds are in `segments`, and follow from the tokens where there are none."""
    duration, found = record.seconds("duration"), _TOKEN.split(record.words("caption"))
    if len(found) % 4 != 1 or len(found) < 5 or "".join(found[:1] + found[2::4]).strip():
        raise record.bad("caption", "time_tokens", "two time tokens before every sentence", record.fields["caption"])
    tokens = [[int(start), int(end)] for start, end in zip(found[1::4], found[3::4], strict=True)]
    times: list[Any] = [[each * duration / LAST_TOKEN for each in pair] for pair in tokens]
    if "segments" in record.fields:
        times = _matching(record, tokens, duration)
    shared = {"video": record.value("image_id"), "place": record.value("place"), "turn": 0, "duration": duration}
    for place, (text, window) in enumerate(zip(found[4::4], times, strict=True)):
        yield Record(f"{record.where}, event {place}", {**shared, "event": place, "query": text.strip(), "timestamp": window})


def _matching(record: Record, tokens: list[list[int]], duration: float) -> list[list[float]]:
    """The segments, in seconds, of as many events as there are tokens for, and at the times that these say."""
    segments: list[list[float]] = record.windows("segments", ordered=False).tolist()
    if len(segments) != len(tokens):
        raise record.bad("segments", "lengths_equal", f"one per event of the caption ({len(tokens)})", len(segments))
    for place, (segment, pair) in enumerate(zip(segments, tokens, strict=True)):
        # a token is cut off, and durations are rounded: 27 of the 494 that were read are one off
        if any(abs(token - second * LAST_TOKEN / duration) > 2 for second, token in zip(segment, pair, strict=True)):
            raise record.bad(f"segments[{place}]", "time_tokens", f"the seconds of the tokens {pair}", segment)
    return segments


def sample(record: Record, source: Source) -> Sample:
    """One query with its window; the question is the file's own where it holds the query."""
    video = record.words("video")
    key = f"{PurePath(video).stem}-{record.integer('place')}"
    if source.variant == "words":
        return _conversation(key, video, record, source)
    key = f"{key}-{record.integer('turn')}"
    if "event" in record.fields:
        key = f"{key}-{record.integer('event')}"
        duration = record.seconds("duration") if "duration" in record.fields else None
        windows_sec = one_span(record, "timestamp", source, duration)
        query = record.words("query")
        return moment(NAME, key, record, source, media={"path": video}, query=query, windows_sec=windows_sec, duration_sec=duration)
    question, answer = record.words("q"), record.words("a")
    found = _ANSWER.fullmatch(" ".join(answer.split()))
    if found is None:
        raise record.bad("a", "answer_times", "'The given query happens in 0.0 - 6.9 seconds.' or '0.0 - 6.9 seconds, event.'", answer)
    timed = Record(record.where, {"a": [float(found[1]), float(found[2])]})
    made = moment(NAME, key, record, source, media={"path": video}, query=question, windows_sec=one_span(timed, "a", source, None))
    asked = made.conversation[0].model_copy(update={"text": plain(question)})
    return made.model_copy(update={"conversation": (asked, *made.conversation[1:])})


def _conversation(key: str, video: str, record: Record, source: Source) -> Sample:
    turns: list[dict[str, str]] = []
    for turn, each in enumerate(record.several("QA")):
        pair = Record(f"{record.where}, QA[{turn}]", each if isinstance(each, dict) else {})
        turns += [{"role": "user", "text": unmarked(pair.words("q"))}, {"role": "assistant", "text": unmarked(pair.words("a"))}]
    if not turns:
        raise record.bad("QA", "some", "at least one question", turns)
    return Sample.model_validate(
        {
            "id": f"{NAME}-{key}",
            "source": NAME,
            "split": source.split,
            "media": {"path": video},
            "conversation": turns,
            "meta": {"task": "conversation", "raw": dict(record.fields)},
        }
    )


TIMEIT = Format(
    name=NAME,
    title="TimeIT, and captions with time tokens",
    home="TimeIT (TimeChat, RenShuhuai-Andy); TimeSuite, dataset/TimeIT (OpenGVLab)",
    licence="MIT (the repository); the annotations as their data sets say",
    layout="instruct_tvg_12.4k_charades.json or another instruct file; or val.caption_coco_format.json with time tokens",
    rows=rows,
    parts=parts,
    sample=sample,
    variants=VARIANTS,
    tasks=("temporal", "conversation"),
)
