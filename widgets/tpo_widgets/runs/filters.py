"""Which runs pass the filters of a table. `front/runs_data.js` has the same rules, and a test holds the two together.

A filter of one column is a text or a list:

- of numbers: conditions that all must hold, with spaces between them: `>=0.5`, `<3`, `=4`, `4`, `!=4`, `0.1..0.5` (ends included);
- of words: letters that must occur, capital or small;
- a list, of any column: the values that are let through; None in it lets through runs without a value.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tpo_lab.errors import UsageError
from tpo_widgets.runs.columns import Column, RunsTable

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_CONDITION = re.compile(rf"(>=|<=|!=|>|<|=|)({_NUMBER})")
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})")
_COMPARED: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
    "": operator.eq,
}


def rows_that_pass(table: RunsTable, filters: Mapping[str, Any], search: str = "", only: Sequence[str] | None = None) -> list[int]:
    """Rows of the table, in its order.

    Args:
        table: of the runs.
        filters: column -> filter; a column that is not there lets all runs through.
        search: letters that must occur in some word of a run: its name, a parameter, its status or its error; not in numbers.
        only: ids of the runs that may pass; None for all.
    """
    tests = [(table.column(name).values, condition_of(table.column(name), given)) for name, given in filters.items() if name in table.names]
    worded = [each.values for each in table.columns if each.kind != "number"]
    wanted, letters = None if only is None else set(only), search.strip().lower()
    return [
        row
        for row in range(len(table))
        if (wanted is None or table.ids[row] in wanted)
        and all(passes(values[row]) for values, passes in tests)
        and (not letters or any(letters in (values[row] or "").lower() for values in worded))
    ]


def condition_of(column: Column, given: Any) -> Callable[[Any], bool]:
    """The filter of a column as a function of a value.

    Raises:
        UsageError: no filter for such a column.
    """
    if isinstance(given, (list, tuple)):
        let_through = set(given)
        return lambda value: value in let_through
    if not isinstance(given, str):
        raise UsageError(f"filters[{column.name!r}]", expected="a text or a list of values", got=given)
    if column.kind == "number":
        return _numbers(column.name, given)
    letters = given.strip().lower()
    return lambda value: letters in (value or "").lower()


def _numbers(name: str, given: str) -> Callable[[Any], bool]:
    conditions = [_condition(name, part) for part in given.split()]
    return lambda value: not conditions or (value is not None and all(holds(value) for holds in conditions))


def _condition(name: str, part: str) -> Callable[[float], bool]:
    if found := _RANGE.fullmatch(part):
        low, high = sorted(map(float, found.groups()))
        return lambda value: low <= value <= high
    if found := _CONDITION.fullmatch(part):
        compare, bound = _COMPARED[found[1]], float(found[2])
        return lambda value: compare(value, bound)
    raise UsageError(f"filters[{name!r}]", expected="conditions such as >=0.5, <3, =4 or 0.1..0.5", got=part)
