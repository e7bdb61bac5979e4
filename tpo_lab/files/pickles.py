"""Pickles that hold plain data. Such a file is a program; only the steps that build lists, dictionaries, texts and numbers are run."""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any, NoReturn

from tpo_lab.errors import UsageError

_CODES = {code.name: ord(code.code) for code in pickletools.opcodes}
_NAMES = {code: name for name, code in _CODES.items()}
_STEPS = """
    PROTO FRAME STOP MARK POP POP_MARK DUP PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS
"""
_NAMING = ("GLOBAL", "STACK_GLOBAL", "INST")
"""Steps that name a class or a function: allowed so far that the error can say which."""
_PLAIN = (dict, list, tuple, str, int, float, type(None))
_DEEPEST = 50
_EXPECTED = "a pickle of lists, dictionaries, texts and numbers alone"


def read_pickle(path: Path, encoding: str = "latin1") -> Any:
    """The lists, dictionaries, texts and numbers of a pickle; nothing in it is called, imported or constructed.

    Args:
        path: the file, of any protocol.
        encoding: of the texts that Python 2 wrote as bytes.

    Raises:
        UsageError: no such file, it is cut short or no pickle, or it holds anything else, also a container that holds itself.
    """
    if not path.is_file():
        raise UsageError(str(path), expected="a file", got="a folder" if path.is_dir() else "nothing of that name")
    raw = path.read_bytes()
    try:
        found = _Plain(path, raw, encoding).load()
    except UsageError:
        raise
    # a program that makes no sense fails in as many ways as there are steps; none of them has done anything
    except Exception as error:
        raise UsageError(str(path), expected="a whole pickle", got=f"{type(error).__name__}: {error}"[:200]) from None
    _require_plain(path, found, most=len(raw))
    return found


class _Plain(pickle._Unpickler):
    """The standard library's own machine, with fewer steps. Its twin in C sets aside as much memory as a file asks for."""

    def __init__(self, path: Path, raw: bytes, encoding: str) -> None:
        self.path, self.file = path, io.BytesIO(raw)
        super().__init__(self.file, encoding=encoding)

    def find_class(self, module: str, name: str) -> NoReturn:
        raise UsageError(str(self.path), expected=_EXPECTED, got=f"{module}.{name}", hint="Nothing in the file was run.")


def _refusing(code: int) -> Any:
    def refuse(machine: _Plain) -> NoReturn:
        got = f"the step {_NAMES.get(code, code)} before byte {machine.file.tell()}"
        raise UsageError(str(machine.path), expected=_EXPECTED, got=got, hint="Nothing in the file was run.")

    return refuse


_allowed = {_CODES[name] for name in (*_STEPS.split(), *_NAMING)}
_Plain.dispatch = {code: pickle._Unpickler.dispatch[code] if code in _allowed else _refusing(code) for code in range(256)}


def _require_plain(path: Path, document: Any, *, most: int) -> None:
    """Refuses what would never end when walked through, since a container may be put into several others, or into itself.

    Every value of a plain document takes a byte of the file at least, so there are at most as many as bytes.
    """
    count, level = 1, [document]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for value in level:
            if not isinstance(value, _PLAIN):
                raise UsageError(str(path), expected=_EXPECTED, got=type(value).__name__)
            inside = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
            count += len(inside)
            if count > most:
                raise UsageError(str(path), expected=_EXPECTED, got="containers that hold each other, or one that holds itself")
            below.extend(inside)
        if not below:
            return
        level = below
    raise UsageError(str(path), expected=f"{_EXPECTED}, at most {_DEEPEST} inside each other", got="more")


__all__ = ["read_pickle"]
