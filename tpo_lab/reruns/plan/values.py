"""One value from YAML against the declared type of a notebook's parameter."""

from __future__ import annotations

import math
from typing import Any

from tpo_lab.errors import UsageError
from tpo_lab.notebooks import Parameter
from tpo_lab.reruns.plan.reading import TRUTH_VALUES, brief, number

_EXPECTED = {"bool": "bool, true or false"}


def typed(argument: str, parameter: Parameter, value: Any) -> Any:
    """The value as the parameter's type.

    A whole number becomes a float where a float is declared, and so does a text such as "1e-3", which YAML 1.1 takes for text.

    Args:
        argument: file and field, for the message.
        parameter: what the notebook declares.
        value: what the sweep file has.

    Raises:
        UsageError: the value has another type or is not finite.
    """
    if parameter.type == "float" and not isinstance(value, bool):
        value = _as_float(value)
    if type(value).__name__ != parameter.type or (isinstance(value, float) and not math.isfinite(value)):
        expected = f"{_EXPECTED.get(parameter.type, parameter.type)} for the parameter {parameter.name!r}"
        raise UsageError(argument, expected=expected, got=brief(value), hint=_hint(parameter.type, value))
    return value


def _as_float(value: Any) -> Any:
    read = number(value)
    try:
        return float(read) if isinstance(read, int | float) else value
    except OverflowError:
        return value


def _hint(kind: str, value: Any) -> str:
    if kind == "str" and isinstance(value, bool):
        return TRUTH_VALUES
    if kind == "str" and not isinstance(value, list | dict | None):
        return f"Write it in quotes: '{value}'."
    if kind == "int" and isinstance(number(value), float) and number(value).is_integer():
        return f"Write {int(number(value))}."
    if kind == "float" and isinstance(value, str):
        return "Write a number such as 1.0e-3."
    return ""
