"""One record of a file with its place, and checked access to its fields: every problem is one sentence with file, line or key, and rule."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError

Floats = NDArray[np.float64]
LONGEST_SEC = 1e7
"""Four months: what is longer is no length of a video."""
_LONGEST_SHOWN = 120
_LARGEST = int(sys.float_info.max)


class BadRecord(UsageError):
    """A record, or one of its fields, that breaks a rule.

    Args:
        where: file and line or key of the record.
        field: the field, "" for the record as a whole; may be dotted and indexed ("times[2]").
        rule: the name of the rule that is broken.
        expected: what the rule asks for.
        got: the value there.
    """

    def __init__(self, where: str, field: str = "", *, rule: str, expected: str, got: object) -> None:
        self.where, self.field, self.rule = where, field, rule
        super().__init__(f"{where}, {field}" if field else where, expected=expected, got=got)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.where, self.field, self.rule, self.expected, self.got))


def _rebuild(where: str, field: str, rule: str, expected: str, got: object) -> BadRecord:
    return BadRecord(where, field, rule=rule, expected=expected, got=got)


@dataclass(frozen=True)
class Record:
    """One record of a file.

    Attributes:
        where: file and line or key, as an error names it.
        fields: its values.
    """

    where: str
    fields: Mapping[str, Any]

    def bad(self, field: str, rule: str, expected: str, got: object) -> BadRecord:
        """The error that says which rule a field breaks; raise it."""
        return BadRecord(self.where, field, rule=rule, expected=expected, got=_shown(got))

    def value(self, *names: str) -> Any:
        """The value of the first of these fields that the record has.

        Raises:
            BadRecord: it has none of them.
        """
        name = self.named(*names)
        if name not in self.fields:
            raise BadRecord(self.where, rule="missing", expected=f"the field {' or '.join(map(repr, names))}", got=sorted(self.fields)[:20])
        return self.fields[name]

    def named(self, *names: str) -> str:
        """The first of these fields that the record has; the first name where it has none of them."""
        return next((name for name in names if name in self.fields), names[0])

    def text(self, *names: str) -> str:
        """A text, or a number as its text."""
        value = self.value(*names)
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise self.bad(self.named(*names), "text", "a text", value)
        return str(value)

    def words(self, *names: str) -> str:
        """A text that says something: white space around it is cut off, and more must be left than nothing."""
        value = self.value(*names)
        found = value.strip() if isinstance(value, str) else ""
        if not found:
            raise self.bad(self.named(*names), "words", "a text that is not empty", value)
        return found

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        values = self.value(name)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.bad(name, "texts", "a list of texts", values)
        return values

    def number(self, *names: str) -> float:
        """A finite number."""
        value = self.value(*names)
        if not is_finite(value):
            raise self.bad(self.named(*names), "number", "a finite number", value)
        return float(value)

    def positive(self, *names: str) -> float:
        """A finite number above 0."""
        value = self.number(*names)
        if value <= 0:
            raise self.bad(self.named(*names), "positive", "a number above 0", value)
        return value

    def seconds(self, *names: str) -> float:
        """A length of time above 0, and no longer than a video can be."""
        value = self.positive(*names)
        if value > LONGEST_SEC:
            raise self.bad(self.named(*names), "seconds", f"at most {LONGEST_SEC:g} s", value)
        return value

    def integer(self, *names: str) -> int:
        """A whole number."""
        value = self.number(*names)
        if not value.is_integer():
            raise self.bad(self.named(*names), "integer", "a whole number", value)
        return int(value)

    def several(self, *names: str) -> list[Any]:
        """A list of anything."""
        value = self.value(*names)
        if not isinstance(value, list):
            raise self.bad(self.named(*names), "list", "a list", value)
        return value

    def inner(self, name: str) -> Record:
        """The object that a field holds, as a record at "where, name"."""
        return record(f"{self.where}, {name}", self.value(name))

    def rows(self, name: str, columns: int) -> Floats:
        """A list of lists of `columns` finite numbers, as [n, columns]."""
        return numbers(self.where, self.value(name), columns, field=name)

    def windows(self, name: str, *, columns: int = 2, ordered: bool = True, lengths: bool = False, some: bool = False) -> Floats:
        """Windows [n, columns] that begin with start and end.

        Args:
            name: the field.
            columns: 2, or 3 with a score.
            ordered: refuse a window that ends before it starts.
            lengths: refuse a window without length too.
            some: refuse an empty list.
        """
        return windows(self.where, self.value(name), columns=columns, ordered=ordered, lengths=lengths, some=some, field=name)


def windows(
    where: str, value: Any, *, columns: int = 2, ordered: bool = True, lengths: bool = False, some: bool = False, field: str = ""
) -> Floats:
    """As `Record.windows`, of a value that stands at `where`, in `field`."""
    found = numbers(where, value, columns, field=field)
    if some and not len(found):
        raise BadRecord(where, field, rule="window_some", expected="one or more windows", got=[])
    wrong = found[:, 1] <= found[:, 0] if lengths else found[:, 1] < found[:, 0]
    if ordered and wrong.any():
        place = int(wrong.argmax())
        expected = f"a window with start {'<' if lengths else '<='} end"
        raise _bad_entry(where, field, place, "window_order", expected, found[place].tolist())
    return found


def without_scores(rows: Any) -> Any:
    """A list of windows (start, end, score) as (start, end); anything else as it is, for `windows` to refuse."""
    if not isinstance(rows, list):
        return rows
    return [row[:2] if isinstance(row, list) and len(row) == 3 else row for row in rows]


def numbers(where: str, value: Any, columns: int, *, field: str = "") -> Floats:
    """A list of lists of `columns` finite numbers, as [n, columns]; [] is [0, columns].

    Raises:
        BadRecord: anything else; the first wrong entry is named.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise BadRecord(where, field, rule="numbers", expected=f"a list of lists of {columns} numbers", got=_shown(value))
    if not value:
        return np.zeros((0, columns))
    for place, row in enumerate(value):
        is_row = isinstance(row, Sequence) and not isinstance(row, str) and len(row) == columns
        if not is_row or not all(map(is_finite, row)):
            raise _bad_entry(where, field, place, "numbers", f"{columns} finite numbers", row)
    return np.array(value, dtype=np.float64)


def is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can hold."""
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and -_LARGEST <= value <= _LARGEST)


def _bad_entry(where: str, field: str, place: int, rule: str, expected: str, got: object) -> BadRecord:
    """An error about one entry of a list, which stands in a field or at `where` itself."""
    if field:
        return BadRecord(where, f"{field}[{place}]", rule=rule, expected=expected, got=_shown(got))
    return BadRecord(f"{where}[{place}]", rule=rule, expected=expected, got=_shown(got))


def records(path: Path | str, rows: Any, under: str = "") -> list[Record]:
    """A list of a JSON document as records, named by their place.

    Raises:
        UsageError: it is no list, or one of its entries is no object.
    """
    if not isinstance(rows, list):
        raise BadRecord(f"{path}, {under}" if under else str(path), rule="list", expected="a list of records", got=_shown(rows))
    return [record(f"{path}, {under}[{place}]", row) for place, row in enumerate(rows)]


def record(where: str, fields: Any) -> Record:
    """The record at `where`.

    Raises:
        UsageError: it is no object.
    """
    if not isinstance(fields, dict):
        raise BadRecord(where, rule="object", expected="an object with fields", got=_shown(fields))
    return Record(where, fields)


def by_id(rows: Iterable[tuple[str, Record]]) -> dict[str, Record]:
    """Records by their id.

    Raises:
        UsageError: an id comes twice; both places are named.
    """
    found: dict[str, Record] = {}
    for key, each in rows:
        if key in found:
            raise BadRecord(each.where, rule="id_unique", expected=f"an id that is not yet taken at {found[key].where}", got=key)
        found[key] = each
    return found


def numbered(keys: Iterable[str]) -> Iterator[str]:
    """The keys, equal ones told apart by a number in their order: "a", "b", "a #2"."""
    seen: dict[str, int] = {}
    for key in keys:
        seen[key] = seen.get(key, 0) + 1
        yield key if seen[key] == 1 else f"{key} #{seen[key]}"


def _shown(value: Any) -> Any:
    """The value, or the name of its type where it is too long for a sentence (or for Python to write at all)."""
    try:
        return value if len(repr(value)) <= _LONGEST_SHOWN else type(value).__name__
    except ValueError:
        return type(value).__name__
