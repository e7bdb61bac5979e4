"""SEED-Bench-2: questions with four options about an image, several images or the frames of a video, in one JSON document.

Questions whose answer is an image, or text with images (level L3), are dropped by the rule "generation".

Source: the repository's DATASET.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.image_lists import image_pattern
from tpo_lab.datasets.formats.multiple_choice import Choice, choice_sample, letter_of, options_under, right_by_letter, rows_writer
from tpo_lab.files import Record, Streamed, stream_items
from tpo_lab.sample import Sample

CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
FOLDERS = {"cc3m": "cc3m-image", "SEED-Bench v2": "SEED-Bench-2-image"}
"""Where the images of a `data_source` lie, as their archives are called."""


def rows(source: Source) -> Iterator[Streamed]:
    """One question of the list `questions`."""
    return stream_items(source.path, ["questions"])


def sample(record: Record, source: Source) -> Sample:
    """One question; the images of a list are shown a second each."""
    name, kind = record.text("question_id"), record.words("data_type")
    if "Generation" in kind:
        raise record.bad("data_type", "generation", "a question that is answered by one of four texts", kind)
    options = options_under(record, *CHOICES)
    choice = Choice(record.words("question"), options, right_by_letter(record, "answer", options))
    origin = record.text("data_source") if "data_source" in record.fields else "cc3m"
    if origin not in FOLDERS:
        raise record.bad("data_source", "data_source_known", f"one of {', '.join(FOLDERS)}", origin)
    media = {"path": image_pattern(record, "data_id", record.value("data_id"), source, FOLDERS[origin])}
    return choice_sample("seed-bench-2", name, choice, media, record, source, {"question_id": name})


SEED_BENCH_2 = Format(
    name="seed-bench-2",
    title="SEED-Bench-2",
    home="SEED-Bench (AILab-CVC)",
    licence="not stated",
    layout="SEED-Bench_v2_level1_2_3.json, beside cc3m-image/ and SEED-Bench-2-image/; images of one folder whose names count up are\n"
    "shown one after another, others are dropped (rule several_images), as are questions answered by images (rule generation)",
    rows=rows,
    sample=sample,
    write=rows_writer("prediction", letter_of, "question_type_id"),
    tasks=("conversation",),
)
