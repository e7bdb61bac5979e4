"""Video-MME: three questions about each of 900 videos, a JSON list of videos; the published template has trailing commas.

Source: the benchmark's template of results and its eval_your_results.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.multiple_choice import Choice, answer_of, choice_sample, options_in, right_by_letter, write_rows
from tpo_lab.datasets.formats.submission import raw_of
from tpo_lab.errors import UsageError
from tpo_lab.files import BadRecord, Record, Streamed, read_json, record
from tpo_lab.sample import Sample

_OF_VIDEO = ("video_id", "videoID", "url", "duration", "domain", "sub_category")


def rows(source: Source) -> Iterator[Streamed]:
    """Every question with the fields of its video. The file is read as a whole: it is small, and is no JSON as published."""
    document = read_json(source.path, trailing_commas=True, constants=False)
    if not isinstance(document, list):
        raise UsageError(str(source.path), expected="a list of videos", got=type(document).__name__)
    for place, row in enumerate(document):
        try:
            video = record(f"{source.path}, [{place}]", row)
            questions = video.several("questions")
        except BadRecord as bad:
            yield bad
            continue
        outer = {name: value for name, value in video.fields.items() if name != "questions"}
        for number, question in enumerate(questions):
            yield _question(f"{video.where}, questions[{number}]", outer, question)


def _question(where: str, outer: dict[str, Any], question: Any) -> Streamed:
    try:
        return Record(where, {**outer, **record(where, question).fields})
    except BadRecord as bad:
        return bad


def sample(record: Record, source: Source) -> Sample:
    """One question about a whole video."""
    name, options = record.text("question_id"), options_in(record, "options")
    choice = Choice(record.words("question"), options, right_by_letter(record, "answer", options))
    media = {"path": f"{record.words('videoID', 'video_id')}.mp4"}
    return choice_sample("video-mme", name, choice, media, record, source, {"question_id": name})


def write(samples: Iterable[Sample], path: Path) -> int:
    """The template with the field `response` filled in: videos with their questions. As JSONL, a question a line."""
    if path.suffix == ".jsonl":
        return write_rows(path, (_answered(each) for each in samples))
    videos: dict[str, dict[str, Any]] = {}
    count = 0
    for each in samples:
        count += 1
        raw, answered = raw_of(each, "video_id", "question_id"), _answered(each)
        video = videos.setdefault(str(raw["video_id"]), {**{name: raw[name] for name in _OF_VIDEO if name in raw}, "questions": []})
        video["questions"].append({name: value for name, value in answered.items() if name not in _OF_VIDEO})
    write_rows(path, videos.values())
    return count


def _answered(sample: Sample) -> dict[str, Any]:
    return {**raw_of(sample, "question_id"), "response": answer_of(sample)}


VIDEO_MME = Format(
    name="video-mme",
    title="Video-MME",
    home="Video-MME (BradyFU)",
    licence="redistribution is not allowed",
    layout="the JSON list of videos, with trailing commas or without; videos {videoID}.mp4, or {video_id}.mp4 where there is no videoID",
    rows=rows,
    sample=sample,
    write=write,
    tasks=("conversation",),
)
