"""Records one at a time, in constant memory: lines, JSON lines, rows of CSV, and the entries of one large JSON document.

A bad record is yielded as the error that names it, in its place, so that those after it are read. Where a file itself is broken (a
document that ends too soon) what was read stands, and the error is raised.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tpo_lab.errors import UsageError
from tpo_lab.files.record import BadRecord, Record

Streamed = Record | BadRecord
_SHOWN = 80
DEEPEST = 500
"""Levels of brackets in one document."""


def stream_lines(path: Path) -> Iterator[tuple[int, str] | BadRecord]:
    """The lines of a text file with their numbers from 1, without line ends; blank ones are left out.

    Raises:
        UsageError: there is no such file.
    """
    with _opened(path) as file:
        for number, raw in enumerate(file, start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                yield BadRecord(f"{path}, line {number}", rule="utf8", expected="UTF-8 text", got=f"byte {error.start} is none")
                continue
            if text.strip():
                yield number, text


def stream_jsonl(path: Path) -> Iterator[Streamed]:
    """The objects of a JSONL file."""
    for line in stream_lines(path):
        if isinstance(line, BadRecord):
            yield line
            continue
        number, text = line
        where = f"{path}, line {number}"
        try:
            fields = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            yield BadRecord(where, rule="json", expected=f"one JSON object ({error})", got=text[:_SHOWN])
            continue
        yield _object(where, fields)


def stream_csv(path: Path, columns: Iterable[str] = ()) -> Iterator[Streamed]:
    """The rows of a CSV file with a head, as texts.

    Raises:
        UsageError: one of `columns` is missing, or the file is no UTF-8 text.
    """
    with path.open(encoding="utf-8-sig", newline="") if path.is_file() else _opened(path) as file:
        rows = csv.DictReader(file)
        try:
            absent = [name for name in columns if name not in (rows.fieldnames or ())]
            if absent:
                raise UsageError(f"{path}, line 1", expected=f"the columns {', '.join(absent)}", got=rows.fieldnames)
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                if None in row or None in row.values():
                    expected = f"{len(rows.fieldnames or ())} values, one for each column"
                    yield BadRecord(where, rule="columns", expected=expected, got=",".join(str(each) for each in row.values())[:_SHOWN])
                    continue
                yield Record(where, row)
        except (UnicodeDecodeError, csv.Error) as error:
            raise UsageError(f"{path}, after line {rows.line_num}", expected="CSV in UTF-8", got=str(error)) from None


def stream_items(path: Path, under: Sequence[str] = ()) -> Iterator[Streamed]:
    """The objects of a list in a JSON document.

    Args:
        path: the file.
        under: the keys that lead to the list, outermost first; () where the document is the list.

    Raises:
        UsageError: the document ends too soon, is no JSON, or has no such list.
    """
    prefix = ".".join([*under, "item"])
    inside = "".join(f", {name}" for name in under)
    count = 0
    for place, value in enumerate(_parsed(path, "items", prefix)):
        count += 1
        yield _object(f"{path}{inside}, [{place}]", value)
    if not count:
        _require(path, under, "start_array", "a list")


def stream_members(path: Path, under: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """The keys and values of an object in a JSON document, which may hold the same key twice.

    Args:
        path: the file.
        under: the keys that lead to the object, outermost first; () where the document is the object.

    Raises:
        UsageError: the document ends too soon, is no JSON, or has no such object.
    """
    count = 0
    for key, value in _parsed(path, "kvitems", ".".join(under)):
        count += 1
        yield key, value
    if not count:
        _require(path, under, "start_map", "an object")


def _parsed(path: Path, how: str, prefix: str) -> Iterator[Any]:
    import ijson

    with _opened(path) as file:
        _skip_byte_order_mark(file)
        try:
            # whole numbers stay exact; others become floats, as with json.loads
            yield from getattr(ijson, how)(_Shallow(path, file), prefix, use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            detail = " ".join(str(error).split())[:200]
            raise UsageError(str(path), expected="a whole JSON document in UTF-8", got=detail) from None


class _Shallow:
    """A file that refuses to be read where its JSON is nested deeper than any annotation: the parser's memory grows with the square."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self.file = path, file
        self.open = 0
        self.checked = False

    def read(self, size: int = -1) -> bytes:
        """The next bytes; b"" or of size 0 as the file gives them."""
        chunk: bytes = self.file.read(size)
        # brackets inside of texts count too: where there are many, the document is looked at properly, once
        self.open += sum(chunk.count(each) for each in (b"[", b"{")) - sum(chunk.count(each) for each in (b"]", b"}"))
        if not self.checked and (self.open > DEEPEST or (len(chunk) and max(map(chunk.count, (b"[", b"{"))) > DEEPEST)):
            self.checked = True
            _require_shallow(self.path)
        return chunk


def _require_shallow(path: Path) -> None:
    import ijson

    depth = 0
    with path.open("rb") as file:
        _skip_byte_order_mark(file)
        try:
            for event, _ in ijson.basic_parse(file, use_float=True):
                depth += (event in ("start_map", "start_array")) - (event in ("end_map", "end_array"))
                if depth > DEEPEST:
                    raise UsageError(str(path), expected=f"JSON nested at most {DEEPEST} deep", got="deeper")
        except (ijson.JSONError, UnicodeDecodeError):
            return  # the reading itself says what is wrong


def _require(path: Path, under: Sequence[str], event: str, what: str) -> None:
    """An empty list or object is none of our business; a missing one is an error."""
    import ijson

    wanted = ".".join(under)
    with _opened(path) as file:
        _skip_byte_order_mark(file)
        for prefix, found, _ in ijson.parse(file, use_float=True):
            if prefix == wanted and found == event:
                return
    place = f"{path}, {', '.join(under)}" if under else str(path)
    raise UsageError(place, expected=what, got="something else, or nothing")


def _object(where: str, value: Any) -> Streamed:
    if isinstance(value, dict):
        return Record(where, value)
    shown = value if len(repr(value)) <= _SHOWN else type(value).__name__
    return BadRecord(where, rule="object", expected="an object with fields", got=shown)


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(str(path), expected="a file", got="a folder" if path.is_dir() else "nothing of that name")
    return path.open("rb")


def _skip_byte_order_mark(file: Any) -> None:
    if file.read(3) != b"\xef\xbb\xbf":
        file.seek(0)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
