"""NExT-GQA: five options a question, and the spans of the video that ground the answer.

A sample asks one thing. The first variant asks the question with its options, in words; `grounding` asks when what answers it is to be
seen, with the spans as target. Each is written as one of the two files that the evaluation reads.

Source: datasets/nextgqa in the repository of NExT-GQA, and its eval_ground.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.multiple_choice import LETTERS, Choice, choice_sample, letter_of, options_under, right_by_text
from tpo_lab.datasets.formats.submission import ranked_windows, raw_of, write_text
from tpo_lab.datasets.formats.turns import plain
from tpo_lab.datasets.formats.windows import spans
from tpo_lab.errors import UsageError
from tpo_lab.files import Record, Streamed, read_json, record, stream_csv
from tpo_lab.sample import Sample

COLUMNS = ("video_id", "question", "qid", "a0", "a1", "a2", "a3", "a4")
OPTIONS = COLUMNS[3:]
CHOICES, INDEXED, GROUNDING = "choices", "indexed", "grounding"
_NOWHERE = [1.0, 0.0]
"""A reversed span: the evaluation gives it neither IoU nor IoP, while [0, 0] would have the IoP of the span that it lies in."""


def rows(source: Source) -> Iterator[Streamed]:
    """One question, with what the side files say about it: `location`, `duration` and the video's path."""
    grounded = (source.variant or CHOICES) == GROUNDING
    name = f"gsub_{source.path.name.split('.')[0]}.json"
    place = source.beside("gsub", name) if grounded else source.finds("gsub", name)
    folders = source.finds("map", "map_vid_vidorID.json")
    spans_of = {} if place is None else record(str(place), read_json(place, constants=False)).fields
    paths = None if folders is None else record(str(folders), read_json(folders, constants=False)).fields
    for row in stream_csv(source.path, COLUMNS):
        yield _joined(row, spans_of, paths) if isinstance(row, Record) else row


def _joined(row: Record, spans_of: Any, paths: Any) -> Record:
    video, name = row.fields["video_id"], row.fields["qid"]
    found: dict[str, Any] = dict(row.fields)
    about = spans_of.get(video)
    if isinstance(about, dict):
        found |= {key: about[key] for key in ("duration", "fps") if key in about}
        if isinstance(about.get("location"), dict) and name in about["location"]:
            found["location"] = about["location"][name]
    if paths is not None:
        found["path"] = paths.get(video)
    return Record(row.where, found)


def sample(record: Record, source: Source) -> Sample:
    """One question, with its options or with its spans."""
    variant = source.variant or CHOICES
    video, name, question = record.words("video_id"), record.words("qid"), record.words("question")
    media = {"path": f"{_path(record, video)}.mp4"}
    meta = {"task_type": record.fields.get("type", ""), **_shape(record)}
    if variant != GROUNDING:
        options = options_under(record, *OPTIONS)
        right = _by_index(record, options) if variant == INDEXED else right_by_text(record, "answer", options)
        return choice_sample("nextgqa", f"{video}-{name}", Choice(question, options, right), media, record, source, meta)
    duration = meta.get("duration_sec")
    target = {"windows_sec": spans(record, "location", source, duration)}
    return Sample.model_validate(
        {
            "id": f"nextgqa-{video}-{name}",
            "source": "nextgqa",
            "split": source.split,
            "media": media,
            "conversation": [
                {"role": "user", "text": f'When can one see what answers the question "{plain(question)}"?'},
                {"role": "assistant", "text": "<temporal>"},
            ],
            "targets": {"temporal": target},
            "meta": {**meta, "task": "temporal", "raw": dict(record.fields)},
        }
    )


def _path(record: Record, video: str) -> str:
    if "path" not in record.fields:
        return video
    if record.fields["path"] is None:
        raise record.bad("video_id", "video_known", "a video of the map of folders", video)
    return record.words("path")


def _shape(record: Record) -> dict[str, Any]:
    """What is known of the video: seconds, and [width, height] in pixels."""
    size = [record.fields.get(name, "") for name in ("width", "height")]
    found: dict[str, Any] = {"duration_sec": record.seconds("duration")} if "duration" in record.fields else {}
    if all(isinstance(side, str) and side.isascii() and side.isdecimal() and 0 < len(side) < 6 for side in size):
        found["size"] = [int(side) for side in size]
    return found


def _by_index(record: Record, options: tuple[str, ...]) -> int | None:
    if "answer" not in record.fields:
        return None
    places = [str(place) for place in range(len(options))]
    answer = record.words("answer")
    if answer not in places:
        raise record.bad("answer", "answer_in_options", f"a number from 0 to {places[-1]}", answer)
    return int(answer)


def write(samples: Iterable[Sample], path: Path) -> int:
    """One of the two files: spans of samples that ask when, {"<video>_<question>": [start, end]}; else answers, {..: {answer, prediction}}.

    A question without a span gets one that scores nothing, so that the denominator stays; an answer that is no option is -1.
    """
    found: dict[str, Any] = {}
    task = ""
    for each in samples:
        own = str(each.meta.get("task"))
        if task and own != task:
            raise UsageError(f"sample {each.id}, meta.task", expected=f"{task}, as before: spans and answers are two files", got=own)
        task = own
        raw = raw_of(each, "video_id", "qid")
        found[f"{raw['video_id']}_{raw['qid']}"] = _span(each) if own == "temporal" else _answer(each)
    write_text(path, json.dumps(found) + "\n")
    return len(found)


def _span(sample: Sample) -> list[float]:
    best = ranked_windows(sample)[:1]
    return best[0][:2] if best else list(_NOWHERE)


def _answer(sample: Sample) -> dict[str, int]:
    right = {"answer": _place(str(sample.meta["letter"]))} if "letter" in sample.meta else {}
    return {**right, "prediction": _place(letter_of(sample))}


def _place(letter: str) -> int:
    return LETTERS.index(letter) if len(letter) == 1 and letter in LETTERS else -1


NEXTGQA = Format(
    name="nextgqa",
    title="NExT-GQA",
    home="NExT-GQA (doc-doc), datasets/nextgqa; the videos from NExT-QA",
    licence="MIT",
    layout="test.csv or val.csv, beside gsub_test.json or gsub_val.json (the variant grounding needs it) and map_vid_vidorID.json, which\n"
    "gives videos their folders: <path>.mp4; without it {video_id}.mp4. Variants: choices asks the question with its options, and answer\n"
    "is the text of one; indexed: answer is the number of one; grounding asks when. A submission is a file of each: answers for\n"
    "--pred-qa, spans for --pred",
    rows=rows,
    sample=sample,
    variants=(CHOICES, INDEXED, GROUNDING),
    sides=("gsub", "map"),
    write=write,
    tasks=("conversation", "temporal"),
)
