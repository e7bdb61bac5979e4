"""A result record by dotted names; the names in it may have dots of their own, as "headline.REC Acc@0.5" has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HEADLINE = "headline"
"""The part of a result record that holds the figures to remember."""


def scalars(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Numbers, texts and truth values of nested mappings under dotted names; lists and None are left out."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found.update(scalars(value, f"{prefix}{name}."))
        elif isinstance(value, (bool, int, float, str)):
            found[f"{prefix}{name}"] = value
    return found


@dataclass(frozen=True)
class NoSuchField(LookupError):
    """A part of a dotted name that is not there.

    Attributes:
        where: dotted name of what was looked into; "" for the record itself.
        name: what is not in it.
        known: what is.
    """

    where: str
    name: str
    known: tuple[str, ...]


def field_of(record: Any, dotted: str, where: str = "") -> Any:
    """The value at a dotted name.

    Raises:
        NoSuchField: there is none.
    """
    known = tuple(map(str, record)) if isinstance(record, Mapping) else ()
    if dotted in known:
        return record[dotted]
    leading = [name for name in known if dotted.startswith(f"{name}.")]
    if not leading:
        raise NoSuchField(where, dotted if any("." in name for name in known) else dotted.partition(".")[0], known)
    name = max(leading, key=len)
    return field_of(record[name], dotted[len(name) + 1 :], f"{where}.{name}" if where else name)
