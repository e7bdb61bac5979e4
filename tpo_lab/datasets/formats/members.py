"""A JSON object too large for memory: one pass finds where the value of each key stands, then single values are read."""

from __future__ import annotations

import json
import mmap
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from tpo_lab.errors import UsageError

_TEXT = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_KEY = re.compile(rb"\s*(" + _TEXT + rb")\s*:\s*", re.DOTALL)
_NEXT = re.compile(rb"\s*(,|\})")
_PLAIN = re.compile(_TEXT + rb'|[^\s,\[\]{}"]+', re.DOTALL)
# texts are skipped as a whole, so that brackets inside them do not count, and so, for speed, are objects without objects in them
_BRACKET = re.compile(rb'\{[^{}"]*(?:' + _TEXT + rb'[^{}"]*)*\}|' + _TEXT + rb"|[\[\]{}]", re.DOTALL)
_BLANK = re.compile(rb"(?:\xef\xbb\xbf)?\s*")
_KEPT = 16


class Members:
    """The members of the JSON object in a file; of the values only the last few asked for are held.

    Args:
        path: the file.

    Raises:
        UsageError: there is no such file, or it holds no JSON object, or its brackets do not match.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places = _scanned(path)
        self.value = lru_cache(maxsize=_KEPT)(self._value)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def _value(self, key: str) -> Any:
        """The value of a key.

        Raises:
            KeyError: there is no such key.
            UsageError: the value is no JSON.
        """
        start, end = self._places[key]
        with self.path.open("rb") as file:
            file.seek(start)
            raw = file.read(end - start)
        try:
            return json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{self.path}, {key}", expected="JSON", got=str(error)) from None


def _scanned(path: Path) -> dict[str, tuple[int, int]]:
    if not path.is_file():
        raise UsageError(str(path), expected="a file", got="a folder" if path.is_dir() else "nothing of that name")
    if not path.stat().st_size:
        raise UsageError(str(path), expected="a JSON object", got="an empty file")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return _members(path, text)


def _members(path: Path, text: mmap.mmap) -> dict[str, tuple[int, int]]:
    """Start and end of the value of every key, in bytes; the last of equal keys counts, as with `json`."""
    blank = _BLANK.match(text)
    at = blank.end() if blank else 0
    if text[at : at + 1] != b"{":
        raise UsageError(str(path), expected="a JSON object", got=repr(bytes(text[at : at + 20])))
    places: dict[str, tuple[int, int]] = {}
    following = _NEXT.match(text, at + 1)
    if following and following[1] == b"}":
        return places
    at += 1
    while True:
        key = _KEY.match(text, at)
        if key is None:
            raise _broken(path, text, at, "a key")
        start = key.end()
        end = _value_end(path, text, start)
        places[_name(path, key[1])] = start, end
        following = _NEXT.match(text, end)
        if following is None:
            raise _broken(path, text, end, "a comma or a closing brace")
        at = following.end()
        if following[1] == b"}":
            return places


def _value_end(path: Path, text: mmap.mmap, start: int) -> int:
    if text[start : start + 1] not in (b"[", b"{"):
        plain = _PLAIN.match(text, start)
        if plain is None:
            raise _broken(path, text, start, "a value")
        return plain.end()
    depth, at = 0, start
    while True:
        found = _BRACKET.search(text, at)
        if found is None:
            raise _broken(path, text, len(text), "a closing bracket")
        at = found.end()
        token = found[0]
        if token in (b"[", b"{"):
            depth += 1
        elif token in (b"]", b"}"):
            depth -= 1
        if not depth:
            return at


def _name(path: Path, raw: bytes) -> str:
    try:
        return str(json.loads(raw))
    except ValueError as error:
        raise UsageError(str(path), expected="keys in UTF-8", got=str(error)) from None


def _broken(path: Path, text: mmap.mmap, at: int, expected: str) -> UsageError:
    return UsageError(f"{path}, byte {at}", expected=expected, got=repr(bytes(text[at : at + 20])))
