"""Reads whole files: text, JSON, JSONL, CSV and tables of numbers; and lists folders."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tpo_lab.errors import UsageError
from tpo_lab.files.record import Floats, Record, record, records

_TEXT_OR_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[\]}])')
"""Texts are matched as a whole, so that commas inside them stay."""


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


def read_json(path: Path, *, trailing_commas: bool = False, constants: bool = True) -> Any:
    """The document of a JSON file.

    Args:
        path: the file.
        trailing_commas: pass over commas before a closing bracket.
        constants: take NaN and Infinity for numbers, as Python writes them; JSON has none.

    Raises:
        UsageError: the file is no UTF-8 JSON; line and column are named.
    """
    text = read_text(path)
    if trailing_commas:
        text = _TEXT_OR_COMMA.sub(lambda found: found[1] or "", text)
    try:
        return json.loads(text, parse_constant=None if constants else _refuse_constant)
    except RecursionError:
        raise UsageError(str(path), expected="JSON", got="lists or objects nested too deep") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}, line {error.lineno}", expected="JSON", got=f"{error.msg}, column {error.colno}") from None
    except ValueError as error:  # a constant, or a number of more digits than Python reads
        raise UsageError(str(path), expected="JSON", got=str(error)) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


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
        except RecursionError:
            raise UsageError(where, expected="a JSON object", got="lists or objects nested too deep") from None
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
    lines = read_text(path).splitlines()
    table = _parsed_table(lines)
    if table is not None and table.shape[1] == columns and (np.isfinite(table).all() or (nan and not np.isinf(table).any())):
        return table
    found = []
    for number, line in enumerate(lines, start=1):
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


def _parsed_table(lines: list[str]) -> Floats | None:
    """The numbers of all lines at once, ten times as fast as one line after the other; None where something is amiss."""
    blanks = [words for line in lines if (words := line.replace(",", " ")) and not words.isspace()]
    if not blanks:
        return None
    try:
        found: Floats = np.loadtxt(blanks, dtype=np.float64, comments=None, ndmin=2)
    except ValueError:
        return None
    return found
