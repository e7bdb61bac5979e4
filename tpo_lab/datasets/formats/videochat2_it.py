"""VideoChat2-IT: instructions, questions and answers about images and videos, one JSON list for each data set of a task.

Source: the data description of Ask-Anything (video_chat2/DATA.md) and its loader (dataset/it_dataset.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.keyed import keyed, unkeyed
from tpo_lab.datasets.formats.turns import unmarked
from tpo_lab.datasets.formats.windows import span
from tpo_lab.errors import UsageError
from tpo_lab.files import Record, Streamed, record, stream_items
from tpo_lab.sample import Sample


def rows(source: Source) -> Iterator[Streamed]:
    """The records of one file, or of every file under a folder, named by where the file lies."""
    if not source.path.is_dir():
        yield from keyed(stream_items(source.path), file="-".join(filter(None, (source.path.parent.name, source.path.stem))))
        return
    files = sorted(source.path.rglob("*.json"))
    if not files:
        raise UsageError(str(source.path), expected="a folder with .json files", got="none")
    for file in files:
        yield from keyed(stream_items(file), file="-".join(file.relative_to(source.path).with_suffix("").parts))


def sample(record: Record, source: Source) -> Sample:
    """One image or video, or a part of one, with all its questions as one conversation."""
    row, beside = unkeyed(record)
    return Sample.model_validate(
        {
            "id": f"videochat2-it-{beside['file']}-{beside['place']}",
            "source": "videochat2-it",
            "split": source.split,
            "media": _media(row, source),
            "conversation": _conversation(row),
            "meta": {"task": "conversation", "raw": dict(row.fields)},
        }
    )


def _media(row: Record, source: Source) -> dict[str, Any]:
    if not {"image", "video"} & set(row.fields):
        raise row.bad("", "media", "an image or a video", sorted(row.fields)[:20])
    media: dict[str, Any] = {"path": row.words("video", "image")}
    if "start" in row.fields or "end" in row.fields:
        ((start, end),) = span(row, "end", row.number("start"), row.number("end"), source)
        media |= {"start_sec": start, "end_sec": end}
    return media


def _conversation(row: Record) -> list[dict[str, str]]:
    """Questions and answers in turn. The instruction of the first one stands above its question; those of others are not used."""
    found = []
    for place, fields in enumerate(row.several("QA")):
        each = record(f"{row.where}, QA[{place}]", fields)
        instruction = each.text("i").strip() if place == 0 and "i" in each.fields else ""
        question = "\n".join(filter(None, (instruction, each.text("q").strip())))
        if not question:
            raise row.bad(f"QA[{place}].q", "words", "a question, or an instruction in the first one", each.fields.get("q"))
        found += [{"role": "user", "text": unmarked(question)}, {"role": "assistant", "text": unmarked(each.words("a"))}]
    if not found:
        raise row.bad("QA", "turns_some", "one or more questions with answers", [])
    return found


VIDEOCHAT2_IT = Format(
    name="videochat2-it",
    title="VideoChat2-IT; VideoChat-IT, which came before it, in the same form",
    home="OpenGVLab, VideoChat2-IT; Ask-Anything (video_chat2/DATA.md)",
    licence="MIT for VideoChat-IT (Ask-Anything); not stated for VideoChat2-IT",
    layout="one train.json, or a folder of them such as video/<task>/<data set>/train.json; --media names the folder that image and video\n"
    "start from, which differs from data set to data set",
    rows=rows,
    sample=sample,
    tasks=("conversation",),
)
