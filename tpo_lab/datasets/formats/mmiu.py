"""MMIU: multiple choice about several images, one JSON list of questions for all tasks or one for each.

The sample schema has one medium. Images of one folder whose names count up become a glob pattern, shown a second each; all others are
dropped by the rule "several_images".

Source: the benchmark's repository (evaluate.py) and its metadata files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.image_lists import image_pattern
from tpo_lab.datasets.formats.keyed import QuestionKeys, unkeyed
from tpo_lab.datasets.formats.multiple_choice import (
    LETTERS,
    Choice,
    checked_options,
    choice_sample,
    letter_of,
    right_by_letter,
    rows_writer,
)
from tpo_lab.errors import UsageError
from tpo_lab.files import BadRecord, Record, Streamed, stream_items
from tpo_lab.sample import Sample

_ASKS = "Select from the following choices."


def rows(source: Source) -> Iterator[Streamed]:
    """The questions of one file, or of every file under a folder, in the order that `tpo-lab score` reads them."""
    keys = QuestionKeys()
    for file in _files(source.path):
        name = file.parent.name if file.stem == "metadata_info" else file.stem
        for place, row in enumerate(stream_items(file)):
            if isinstance(row, BadRecord):
                yield row
            else:
                yield Record(row.where, {"file": name, "place": str(place), "key": keys.of(row), "row": row.fields})


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("*.json"))
    if not found:
        raise UsageError(str(path), expected="a folder with .json files", got="none")
    return found


def sample(record: Record, source: Source) -> Sample:
    """One question with what its context says before the options."""
    row, beside = unkeyed(record)
    question, options = row.words("question"), _options(row)
    before = row.text("context").split(_ASKS)[0].strip() if "context" in row.fields else ""
    asked = f"{before}\n{question}" if before and before != question else question
    choice = Choice(asked, options, right_by_letter(row, "output", options))
    media = {"path": image_pattern(row, "input_image_path", row.value("input_image_path"), source)}
    return choice_sample("mmiu", f"{beside['file']}-{beside['place']}", choice, media, row, source, {"question_id": beside["key"]})


def _options(row: Record) -> tuple[str, ...]:
    """Options of a text with "A: first", "B: second", ... at the start of lines; an option may go on over lines."""
    text = row.words("options")
    texts: list[str] = []
    for line in text.splitlines():
        mark = re.match(r"\(?([A-Z])[:.)]", line.strip())
        if mark and len(texts) < len(LETTERS) and mark[1] == LETTERS[len(texts)]:
            texts.append(line.strip()[mark.end() :].strip())
        elif texts:
            texts[-1] = f"{texts[-1]} {line.strip()}".strip()
        elif line.strip():
            raise row.bad("options", "options", 'lines "A: ...", "B: ...", ...', text)
    return checked_options(row, "options", texts)


MMIU = Format(
    name="mmiu",
    title="MMIU",
    home="OpenGVLab, MMIU; the images from the page of the benchmark",
    licence="not stated",
    layout="all.json, or the folder with <task>/metadata_info.json; images as input_image_path says, from --media;\n"
    "images of one folder whose names count up are shown one after another, others are dropped (rule several_images)",
    rows=rows,
    sample=sample,
    write=rows_writer("prediction", letter_of, "task", "question", "input_image_path"),
    tasks=("conversation",),
)
