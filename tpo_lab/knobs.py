"""Settings as frozen dataclasses whose annotations are the rules: checked when built, read strictly from JSON or TOML.

Nothing here knows a stage, a model or a file.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from tpo_lab.errors import MissingExtraError, UsageError, unknown_name

T = TypeVar("T")


@dataclass(frozen=True)
class Between:
    """The interval that a number must lie in, written inside `Annotated`.

    Args:
        low: smallest value.
        high: largest value.
        above: whether `low` itself is refused.
        below: whether `high` itself is refused.
    """

    low: float
    high: float = float("inf")
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        upper = f" and {'<' if self.below else '<='} {self.high:g}"
        if self.high == float("inf"):
            upper = " and finite" if self.below else ""
        return f"{'>' if self.above else '>='} {self.low:g}{upper}"


Count = Annotated[int, Between(1)]
Positive = Annotated[float, Between(0, float("inf"), above=True, below=True)]
NonNegative = Annotated[float, Between(0, float("inf"), below=True)]
Share = Annotated[float, Between(0, 1)]
ShareBelowOne = Annotated[float, Between(0, 1, below=True)]


def check(settings: Any, label: str) -> None:
    """Holds every field of a frozen dataclass to its annotation; call it first in `__post_init__`.

    Whole numbers become floats and lists tuples where the annotation says so; mappings are copied, so that no two settings share one.

    Raises:
        UsageError: a field has the wrong type, lies outside its interval or outside its closed set of names.
    """
    for name, hint in hints(type(settings)).items():
        object.__setattr__(settings, name, _fitted(hint, getattr(settings, name), f"{label}: {name}"))


def to_plain(value: Any) -> Any:
    """The value with dataclasses and mappings as dicts and tuples as lists: what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def from_plain(cls: type[T], plain: object, label: str) -> T:
    """The dataclass that `to_plain` wrote.

    Args:
        cls: a dataclass whose `__post_init__` calls `check`.
        plain: a mapping with the names of its fields; a field that has a default may be missing.
        label: what the errors call it.

    Raises:
        UsageError: an unknown name (the closest ones are given), a missing one, or a value that `check` refuses.
    """
    if not isinstance(plain, Mapping):
        raise UsageError(label, expected=f"a table with the fields of {cls.__name__}", got=plain)
    types_of = hints(cls)
    for name in plain:
        if name not in types_of:
            raise unknown_name(label, str(name), types_of)
    required = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]  # type: ignore[arg-type]
    missing = [name for name in required if name not in plain]
    if missing:
        raise UsageError(label, expected=f"the fields {', '.join(required)}", got=sorted(plain), hint=f"Missing: {', '.join(missing)}.")
    return cls(**{name: _nested(types_of[name], value, f"{label}: {name}") for name, value in plain.items()})


def assign(holder: dict[str, Any], knob: str, value: object) -> bool:
    """Sets an existing entry; a knob inside a table is named table.entry, and the entry may hold dots."""
    if knob in holder:
        holder[knob] = value
        return True
    table, _, entry = knob.partition(".")
    inner = holder.get(table)
    return isinstance(inner, dict) and assign(inner, entry, value)


def paths(holder: Mapping[str, Any]) -> Iterator[str]:
    """Every path that `assign` accepts."""
    for name, value in holder.items():
        yield name
        if isinstance(value, Mapping):
            yield from (f"{name}.{entry}" for entry in paths(value))


def read(path: Path) -> Mapping[str, Any]:
    """The table in a .json or .toml file.

    Raises:
        UsageError: no such file, another suffix, or a syntax error.
    """
    if path.suffix not in (".json", ".toml") or not path.is_file():
        raise UsageError("settings file", expected="an existing .json or .toml file", got=str(path))
    text = path.read_text(encoding="utf-8")
    try:
        plain: Mapping[str, Any] = json.loads(text) if path.suffix == ".json" else _toml(text)
    except ValueError as error:
        raise UsageError(f"settings file {path}", expected=f"valid {path.suffix[1:].upper()}", got=str(error)) from error
    return plain


def hints(cls: type) -> dict[str, Any]:
    """The resolved annotation of each field, `Annotated` kept."""
    resolved = typing.get_type_hints(cls, include_extras=True)
    return {field.name: resolved[field.name] for field in dataclasses.fields(cls)}


def _nested(hint: Any, value: object, label: str) -> object:
    """Builds the dataclasses inside a plain value; everything else is left for `check`."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_plain(hint, value, label)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_nested(typing.get_args(hint)[0], item, f"{label}[{index}]") for index, item in enumerate(value))
    return value


def _fitted(hint: Any, value: Any, label: str) -> Any:
    """The value in the form its annotation asks for, or a `UsageError`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        value = _fitted(arguments[0], value, label)
        for interval in arguments[1:]:
            if value not in interval:
                raise UsageError(label, expected=f"a number {interval}", got=value)
        return value
    if origin is typing.Literal:
        if value not in arguments or type(value) not in {type(argument) for argument in arguments}:
            raise unknown_name(label, str(value), [str(argument) for argument in arguments])
        return value
    if origin in (typing.Union, types.UnionType):  # only "X | None" is in use
        return None if value is None else _fitted(arguments[0], value, label)
    if origin is tuple:
        return _fitted_tuple(arguments, value, label)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _fitted_mapping(arguments, value, label)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UsageError(label, expected=_WORDS.get(hint, f"a {hint.__name__}"), got=value)
    return value


def _fitted_tuple(arguments: tuple[Any, ...], value: Any, label: str) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)):
        raise UsageError(label, expected="a list", got=value)
    if arguments[-1] is Ellipsis:
        return tuple(_fitted(arguments[0], item, f"{label}[{index}]") for index, item in enumerate(value))
    if len(value) != len(arguments):
        raise UsageError(label, expected=f"{len(arguments)} values", got=value)
    return tuple(_fitted(hint, item, f"{label}[{i}]") for i, (hint, item) in enumerate(zip(arguments, value, strict=True)))


def _fitted_mapping(arguments: tuple[Any, ...], value: Any, label: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(label, expected="a table of names and values", got=value)
    return {_fitted(arguments[0], key, label): _fitted(arguments[1], item, f"{label}[{key!r}]") for key, item in value.items()}


def _toml(text: str) -> dict[str, Any]:
    try:
        import tomllib
    except ModuleNotFoundError:
        raise MissingExtraError("tomllib", "toml", "reading TOML before Python 3.11") from None
    return tomllib.loads(text)


_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
