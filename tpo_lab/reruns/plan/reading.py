"""The YAML of a sweep file read, and what is wrong in it said in one sentence: the field, what was expected, what came."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tpo_lab.errors import UsageError, unknown_name

Location = tuple[int | str, ...]
"""Where in the file: ("chain", 0, "takes")."""
TRUTH_VALUES = "YAML reads yes, no, on and off as true and false. Write the word in quotes."
_MERGE = "tag:yaml.org,2002:merge"
_SHOWN = 120
_EXPECTED = {
    "too_short": "at least one entry",
    "string_too_short": "some text",
    "string_pattern_mismatch": "letters, digits, '.', '+', '-', '_' and spaces",
    "list_type": "a list",
    "dict_type": "names and values",
    "model_type": "names and values",
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}


def number(value: Any) -> Any:
    """A text such as "1e-3", which YAML 1.1 does not take for a number, as the number that it spells; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML in which each key is text and there once; by itself YAML keeps the last of two and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [(self.construct_object(key, deep=True), key.start_mark) for key, _ in node.value if key.tag != _MERGE]
        for place, (key, mark) in enumerate(keys):
            if not isinstance(key, str):
                hint = f" ({TRUTH_VALUES[:-1]})" if isinstance(key, bool) else ""
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r}, which is no text{hint}", mark)
            if any(key == other for other, _ in keys[:place]):
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} twice", mark)
        made: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return made


def parsed(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        UsageError: it cannot be read, is no YAML, or has a key twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)
    except OSError as error:
        raise UsageError("sweep", expected="a YAML file", got=str(path), hint=f"{error.strerror}.") from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise UsageError(where, expected="YAML", got=problem) from None
    except (ValueError, RecursionError) as error:  # bytes that are no text, a date such as 2024-13-45
        raise UsageError(str(path), expected="YAML", got=brief(str(error))) from None


def explained(file: str, error: ValidationError, fields_at: Callable[[Location], Iterable[str]]) -> UsageError:
    """The first thing that is wrong, in one sentence.

    Args:
        file: that was read.
        error: what pydantic says of it.
        fields_at: the fields that there are where the last name of a location was written.
    """
    detail = error.errors(include_url=False)[0]
    kind, location, message = detail["type"], detail["loc"], detail["msg"].removeprefix("Input should be ")
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, UsageError):
        return UsageError(f"{file}: {cause.argument}", expected=cause.expected, got=cause.got, hint=cause.hint)
    *before, last = location or ("",)
    if kind == "extra_forbidden":
        return unknown_name(f"{file}: {_dotted(before) or 'field'}", str(last), fields_at(location))
    if kind == "missing":
        return UsageError(f"{file}: {_dotted(before) or 'sweep'}", expected=f"the field {last!r}", got="none")
    expected, hint = _EXPECTED.get(kind, message), _hint(kind, detail["input"])
    return UsageError(f"{file}: {_dotted(location)}", expected=expected, got=brief(detail["input"]), hint=hint)


def _hint(kind: str, got: Any) -> str:
    if kind == "list_type" and not isinstance(got, dict):
        return f"Write it as [{got}]."
    return TRUTH_VALUES if kind == "string_type" and isinstance(got, bool) else ""


def _dotted(location: Any) -> str:
    """`chain[0].takes` for ("chain", 0, "takes"), without the kind of an axis, which nobody wrote."""
    parts = [part for place, part in enumerate(location) if not (part in ("range", "choices") and "over" in location[:place])]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def brief(value: Any) -> Any:
    """A value for a message: as it is, or the start of a long one."""
    try:
        text = repr(value)
    except RecursionError:
        text = type(value).__name__
    return value if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
