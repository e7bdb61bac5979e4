"""Records that are told apart by their place, not by a field: the stream gives each a name, which travels beside its fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tpo_lab.files import BadRecord, Record, Streamed
from tpo_lab.metrics.multiple_choice import question_key


def keyed(rows: Iterator[Streamed], **beside: str) -> Iterator[Streamed]:
    """The records with their place in the stream, bad ones counted as well, and with further texts."""
    for place, row in enumerate(rows):
        yield row if isinstance(row, BadRecord) else Record(row.where, {"place": str(place), **beside, "row": row.fields})


def unkeyed(record: Record) -> tuple[Record, dict[str, str]]:
    """The record as its file has it, and what `keyed` put beside it."""
    beside = dict(record.fields)
    return Record(record.where, beside.pop("row")), beside


class QuestionKeys:
    """How `tpo-lab score` names questions that have no id: by video and question, equal ones numbered in the order of the files."""

    def __init__(self) -> None:
        self._seen: Counter[int] = Counter()

    def of(self, row: Record) -> str:
        """The key of the next question; call it once for every row, in order."""
        key = question_key(str(row.fields.get("video", "")), str(row.fields.get("question", "")))
        # eight bytes a key, so that many stay small
        self._seen[hash(key)] += 1
        count = self._seen[hash(key)]
        return key if count == 1 else f"{key} #{count}"
