"""Questions with options: how they are asked and answered in words, and how an answer in words becomes a row of a submission.

A question stands above its options, one a line as "(A) text", in the official order; the answer is "(C) text".
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpo_lab.datasets.formats.format import Source
from tpo_lab.datasets.formats.submission import raw_of, write_lines, write_text
from tpo_lab.datasets.formats.turns import plain, unmarked
from tpo_lab.errors import UsageError
from tpo_lab.files import Record
from tpo_lab.metrics.multiple_choice import strict_letter
from tpo_lab.sample import Sample

LETTERS = string.ascii_uppercase
_LETTERED = re.compile(r"\(?([A-Z])[.:)]\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Choice:
    """A question, its options, and which of them is right; None where that is not published."""

    question: str
    options: tuple[str, ...]
    right: int | None = None

    @property
    def turns(self) -> list[dict[str, str]]:
        """The question with its options, and the answer where there is one."""
        lines = [unmarked(self.question).strip(), *(lettered(place, text) for place, text in enumerate(self.options))]
        asked = [{"role": "user", "text": "\n".join(lines)}]
        return asked if self.right is None else [*asked, {"role": "assistant", "text": lettered(self.right, self.options[self.right])}]


def lettered(place: int, text: str) -> str:
    """An option as it is asked and answered: "(C) a red car"."""
    return f"({LETTERS[place]}) {plain(text)}"


def choice_sample(
    form: str, name: str, choice: Choice, media: dict[str, Any], record: Record, source: Source, meta: dict[str, Any]
) -> Sample:
    """The sample of one question; `meta` keeps the options and the right letter for submissions."""
    right = {} if choice.right is None else {"letter": LETTERS[choice.right]}
    return Sample.model_validate(
        {
            "id": f"{form}-{name}",
            "source": form,
            "split": source.split,
            "media": media,
            "conversation": choice.turns,
            "meta": {"task": "conversation", **meta, "options": list(choice.options), **right, "raw": dict(record.fields)},
        }
    )


def options_in(record: Record, field: str) -> tuple[str, ...]:
    """A list of options; "A. text" loses its letter, which must be the one of its place.

    Raises:
        BadRecord: rule "generation" where there is no such field, as with questions that ask for free text; "options" for anything but two
            to 26 texts that say something.
    """
    if field not in record.fields:
        raise record.bad(field, "generation", "a question with options, since others are no multiple choice", sorted(record.fields)[:20])
    values = record.several(field)
    if any(isinstance(value, bool) or not isinstance(value, (str, int, float)) for value in values):
        raise record.bad(field, "options", "options that are texts", values)
    texts = [str(value).strip() for value in values]
    marks = [_LETTERED.fullmatch(text) for text in texts]
    if any(marks) and [mark[1] if mark else "" for mark in marks] == list(LETTERS[: len(marks)]):
        texts = [mark[2].strip() for mark in marks if mark]
    return checked_options(record, field, texts)


def checked_options(record: Record, field: str, texts: list[str]) -> tuple[str, ...]:
    """The options, two to 26 of them, none empty.

    Raises:
        BadRecord: rule "options".
    """
    if not 2 <= len(texts) <= len(LETTERS) or not all(text.strip() for text in texts):
        raise record.bad(field, "options", f"2 to {len(LETTERS)} options, none of them empty", texts)
    return tuple(text.strip() for text in texts)


def options_under(record: Record, *fields: str) -> tuple[str, ...]:
    """Options that stand in a field each; see `checked_options`."""
    return checked_options(record, fields[0], [record.text(field) for field in fields])


def right_by_text(record: Record, field: str, options: tuple[str, ...]) -> int | None:
    """Which option an answer repeats, the first of equal ones; None without the field."""
    if field not in record.fields:
        return None
    answer = record.text(field).strip()
    if answer not in options:
        raise record.bad(field, "answer_in_options", f"one of {list(options)}", answer)
    return options.index(answer)


def right_by_letter(record: Record, field: str, options: tuple[str, ...]) -> int | None:
    """Which option an answer such as "C" means; None without the field."""
    if field not in record.fields:
        return None
    answer = record.text(field).strip().upper()
    letters = LETTERS[: len(options)]
    if len(answer) != 1 or answer not in letters:
        raise record.bad(field, "answer_in_options", f"a letter from A to {letters[-1]}", answer)
    return letters.index(answer)


def answer_of(sample: Sample) -> str:
    """What the model said; "" where it said nothing."""
    last = sample.conversation[-1]
    return last.text.strip() if last.role == "assistant" else ""


def letter_of(sample: Sample) -> str:
    """The letter that the model's answer means: the option whose text it is, or the letter it begins with; else the answer as it is.

    Raises:
        UsageError: the sample does not keep its options.
    """
    options, answer = options_of(sample), answer_of(sample)
    said = plain(answer).rstrip(".").casefold()
    texts = [plain(option).rstrip(".").casefold() for option in options]
    if said in texts:
        return LETTERS[texts.index(said)]
    found = strict_letter(answer)
    return found if found is not None and found in LETTERS[: len(options)] else answer


def options_of(sample: Sample) -> list[str]:
    """The options that `choice_sample` keeps.

    Raises:
        UsageError: there are none.
    """
    options = sample.meta.get("options")
    if not isinstance(options, list) or not options or not all(isinstance(option, str) for option in options):
        raise UsageError(f"sample {sample.id}, meta.options", expected="the options, which `tpo-lab data convert` keeps", got=options)
    return [str(option) for option in options]


def rows_writer(answer: str, said: Callable[[Sample], str], *fields: str, under: str = "") -> Callable[[Iterable[Sample], Path], int]:
    """A writer of one row a question: its id, some fields of its record, and the model's answer.

    The file is a JSON list, or JSONL where its name says so.

    Args:
        answer: the field of the model's answer.
        said: what stands there.
        fields: of the record, copied where it has them.
        under: the key that the list stands under; "" for the list alone.
    """

    def row(sample: Sample) -> dict[str, Any]:
        raw, key = raw_of(sample), sample.meta.get("question_id")
        if not isinstance(key, str):
            raise UsageError(f"sample {sample.id}, meta.question_id", expected="the key that `tpo-lab data convert` keeps", got=key)
        return {"question_id": key, **{name: raw[name] for name in fields if name in raw}, answer: said(sample)}

    def write(samples: Iterable[Sample], path: Path) -> int:
        return write_rows(path, (row(sample) for sample in samples), under)

    return write


def write_rows(path: Path, rows: Iterable[dict[str, Any]], under: str = "") -> int:
    """Writes rows as JSONL where the path says so, else as a JSON list, under a key if there is one; returns how many."""
    if path.suffix == ".jsonl":
        return write_lines(path, (json.dumps(row) for row in rows))
    listed = list(rows)
    write_text(path, json.dumps({under: listed} if under else listed, indent=1) + "\n")
    return len(listed)
