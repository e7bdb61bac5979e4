"""MLVU: multiple choice about long videos, a JSON list of questions for each task.

The two tasks that ask for free text (8_sub_scene and 9_summary) have no options; their records are dropped by the rule "generation".

Source: the data of the benchmark's repository (data/*.json), and its choice_bench for the folders.
"""

from __future__ import annotations

from collections.abc import Iterator

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.keyed import unkeyed
from tpo_lab.datasets.formats.multiple_choice import Choice, choice_sample, letter_of, options_in, right_by_text, rows_writer
from tpo_lab.datasets.formats.mvbench import task_files, task_rows
from tpo_lab.files import Record, Streamed
from tpo_lab.sample import Sample


def rows(source: Source) -> Iterator[Streamed]:
    """The questions of a task's file, or of every file, in the order of their names."""
    return task_rows(task_files(source))


def sample(record: Record, source: Source) -> Sample:
    """One question about a whole video."""
    row, beside = unkeyed(record)
    question, options = row.words("question"), options_in(row, "candidates")
    choice = Choice(question, options, right_by_text(row, "answer", options))
    key = row.text("question_id") if "question_id" in row.fields else beside["key"]
    meta = {"question_id": key, **({"duration_sec": row.seconds("duration")} if "duration" in row.fields else {})}
    media = {"path": f"video/{beside['task']}/{row.words('video')}"}
    return choice_sample("mlvu", f"{beside['task']}-{beside['place']}", choice, media, row, source, meta)


MLVU = Format(
    name="mlvu",
    title="MLVU",
    home="MLVU (JUNJIE99), data/",
    licence="not stated",
    layout="the folder with json/<task>.json and video/<task>/, or one <task>.json, with --media for the folder that holds video/;\n"
    "8_sub_scene and 9_summary ask for free text and are dropped (rule generation)",
    rows=rows,
    sample=sample,
    # the official rule reads what stands before the first ")", so the letter stands alone
    write=rows_writer("pred", letter_of, "video", "question", "question_type"),
    tasks=("conversation",),
)
