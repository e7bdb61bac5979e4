"""Reads the files of predictions and ground truth; every problem is one sentence with file, line or key, field and value."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError

Floats = NDArray[np.float64]
_LONGEST_SHOWN = 120


@dataclass(frozen=True)
class Record:
    """One record of a file.

    Attributes:
        where: file and line or key, as an error names it.
        fields: its values.
    """

    where: str
    fields: Mapping[str, Any]

    def value(self, *names: str) -> Any:
        """The value of the first of these fields that the record has.

        Raises:
            UsageError: it has none of them.
        """
        name = self.named(*names)
        if name not in self.fields:
            raise UsageError(self.where, expected=f"the field {' or '.join(map(repr, names))}", got=sorted(self.fields)[:20])
        return self.fields[name]

    def named(self, *names: str) -> str:
        """The first of these fields that the record has; the first name where it has none of them."""
        return next((name for name in names if name in self.fields), names[0])

    def text(self, *names: str) -> str:
        """A text, or a number as its text."""
        value = self.value(*names)
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise UsageError(f"{self.where}, {self.named(*names)}", expected="a text", got=value)
        return str(value)

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        values = self.value(name)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise UsageError(f"{self.where}, {name}", expected="a list of texts", got=values)
        return values

    def number(self, name: str) -> float:
        """A finite number."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
            raise UsageError(f"{self.where}, {name}", expected="a finite number", got=value)
        return float(value)

    def rows(self, name: str, columns: int) -> Floats:
        """A list of lists of `columns` finite numbers, as [n, columns]."""
        return numbers(f"{self.where}, {name}", self.value(name), columns)

    def windows(self, name: str, *, columns: int = 2, ordered: bool = True, lengths: bool = False, some: bool = False) -> Floats:
        """Windows [n, columns] that begin with start and end.

        Args:
            name: the field.
            columns: 2, or 3 with a score.
            ordered: refuse a window that ends before it starts.
            lengths: refuse a window without length too.
            some: refuse an empty list.
        """
        return windows(f"{self.where}, {name}", self.value(name), columns=columns, ordered=ordered, lengths=lengths, some=some)


def windows(where: str, value: Any, *, columns: int = 2, ordered: bool = True, lengths: bool = False, some: bool = False) -> Floats:
    """As `Record.windows`, of a value that stands at `where`."""
    found = numbers(where, value, columns)
    if some and not len(found):
        raise UsageError(where, expected="one or more windows", got=[])
    wrong = found[:, 1] <= found[:, 0] if lengths else found[:, 1] < found[:, 0]
    if ordered and wrong.any():
        place = int(wrong.argmax())
        expected = f"a window with start {'<' if lengths else '<='} end"
        raise UsageError(f"{where}[{place}]", expected=expected, got=found[place].tolist())
    return found


def without_scores(rows: Any) -> Any:
    """A list of windows (start, end, score) as (start, end); anything else as it is, for `windows` to refuse."""
    if not isinstance(rows, list):
        return rows
    return [row[:2] if isinstance(row, list) and len(row) == 3 else row for row in rows]


def numbers(where: str, value: Any, columns: int) -> Floats:
    """A list of lists of `columns` finite numbers, as [n, columns]; [] is [0, columns].

    Raises:
        UsageError: anything else; the first wrong entry is named.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UsageError(where, expected=f"a list of lists of {columns} numbers", got=value)
    try:
        found = np.array(value, dtype=np.float64).reshape(-1, columns) if not len(value) else np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.shape == (len(value), columns) and np.isfinite(found).all():
        return found
    for place, row in enumerate(value):
        fits = isinstance(row, Sequence) and len(row) == columns and all(isinstance(each, (int, float)) for each in row)
        if not fits or not np.isfinite(row).all():
            raise UsageError(f"{where}[{place}]", expected=f"{columns} finite numbers", got=row)
    raise UsageError(where, expected=f"a list of lists of {columns} finite numbers", got=value)


def entries(root: Path) -> list[Path]:
    """What a folder holds, in order.

    Raises:
        UsageError: `root` is no folder.
    """
    if not root.is_dir():
        raise UsageError(str(root), expected="a folder", got="a file" if root.exists() else "nothing")
    return sorted(root.iterdir())


def folders(root: Path) -> dict[str, Path]:
    """The folders in a folder, by name, in order.

    Raises:
        UsageError: `root` is no folder.
    """
    return {path.name: path for path in entries(root) if path.is_dir()}


def read_text(path: Path) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        UsageError: no such file, a folder, or not UTF-8.
    """
    if not path.is_file():
        raise UsageError(str(path), expected="a file", got="a folder" if path.is_dir() else "nothing of that name")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(str(path), expected="UTF-8 text", got=f"byte {error.start} is none") from None


def read_json(path: Path, *, trailing_commas: bool = False) -> Any:
    """The document of a JSON file.

    Raises:
        UsageError: the file is no UTF-8 JSON; line and column are named.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if trailing_commas:
            try:
                return json.loads(re.sub(r",(\s*[\]}])", r"\1", text))
            except json.JSONDecodeError:
                pass
        raise UsageError(f"{path}, line {error.lineno}", expected="JSON", got=f"{error.msg}, column {error.colno}") from None


def read_jsonl(path: Path) -> list[Record]:
    """The records of a JSONL file, blank lines left out.

    Raises:
        UsageError: a line is no JSON object, or there is none.
    """
    found = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(where, expected="a JSON object", got=f"{error.msg}, column {error.colno}") from None
        found.append(record(where, fields))
    if not found:
        raise UsageError(str(path), expected="at least one record", got=0)
    return found


def read_records(path: Path) -> list[Record]:
    """The records of a JSONL file, or of a JSON file that holds a list of objects."""
    if path.suffix == ".jsonl":
        return read_jsonl(path)
    document = read_json(path)
    if not isinstance(document, list) or not document:
        raise UsageError(str(path), expected="a list of records, at least one", got=type(document).__name__)
    return records(path, document)


def records(path: Path | str, rows: Any, under: str = "") -> list[Record]:
    """A list of a JSON document as records, named by their place.

    Raises:
        UsageError: it is no list, or one of its entries is no object.
    """
    if not isinstance(rows, list):
        raise UsageError(f"{path}, {under}" if under else str(path), expected="a list of records", got=_shown(rows))
    return [record(f"{path}, {under}[{place}]", row) for place, row in enumerate(rows)]


def record(where: str, fields: Any) -> Record:
    """The record at `where`.

    Raises:
        UsageError: it is no object.
    """
    if not isinstance(fields, dict):
        raise UsageError(where, expected="an object with fields", got=_shown(fields))
    return Record(where, fields)


def read_csv(path: Path, columns: Iterable[str]) -> list[Record]:
    """The records of a CSV file with a head.

    Raises:
        UsageError: a column is missing.
    """
    lines = csv.DictReader(read_text(path).splitlines())
    absent = [name for name in columns if name not in (lines.fieldnames or ())]
    if absent:
        raise UsageError(f"{path}, line 1", expected=f"the columns {', '.join(absent)}", got=lines.fieldnames)
    return [Record(f"{path}, line {lines.line_num}", row) for row in lines]


def read_table(path: Path, columns: int, *, nan: bool = False) -> Floats:
    """Numbers [line, columns], separated by commas, tabs or blanks; "NaN" only where allowed.

    Raises:
        UsageError: a line has another number of columns or something that is no number, or there is no line.
    """
    found = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = re.split(r"[,\s]+", line.strip().strip(","))
        if words == [""]:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            raise UsageError(f"{path}, line {number}", expected=f"{columns} numbers", got=line) from None
        if len(row) != columns or np.isinf(row).any() or (np.isnan(row).any() and not nan):
            raise UsageError(f"{path}, line {number}", expected=f"{columns} {'' if nan else 'finite '}numbers", got=line)
        found.append(row)
    if not found:
        raise UsageError(str(path), expected="at least one line", got=0)
    return np.array(found)


def by_id(rows: Iterable[tuple[str, Record]]) -> dict[str, Record]:
    """Records by their id.

    Raises:
        UsageError: an id comes twice; both places are named.
    """
    found: dict[str, Record] = {}
    for key, each in rows:
        if key in found:
            raise UsageError(each.where, expected=f"an id that is not yet taken at {found[key].where}", got=key)
        found[key] = each
    return found


def numbered(keys: Iterable[str]) -> Iterator[str]:
    """The keys, equal ones told apart by a number in their order: "a", "b", "a #2"."""
    seen: dict[str, int] = {}
    for key in keys:
        seen[key] = seen.get(key, 0) + 1
        yield key if seen[key] == 1 else f"{key} #{seen[key]}"


def _shown(value: Any) -> Any:
    """The value, or the name of its type where it is too long for a sentence."""
    return value if len(repr(value)) <= _LONGEST_SHOWN else type(value).__name__
