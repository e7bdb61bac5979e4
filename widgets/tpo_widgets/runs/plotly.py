"""The parallel coordinates of a sweep as a figure of plotly, for a page or a paper of one's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tpo_lab.errors import MissingExtraError, UsageError
from tpo_widgets.runs.columns import Column, RunsTable

SCALE = [[0.0, "#3f77c8"], [0.5, "#9b8f88"], [1.0, "#c4701a"]]
"""From the least to the greatest value, told apart with every common form of colour blindness; `front/runs_axes.js` has the same."""


def runs_figure(table: RunsTable, axes: Sequence[str], colour: str = "", rows: Sequence[int] | None = None) -> Any:
    """A `plotly.graph_objects.Figure` with an axis for each column.

    Args:
        table: of the runs.
        axes: names of the columns, from left to right.
        colour: the column of numbers that colours the lines; "" for none.
        rows: the runs that are drawn; all by default. A run without a value on some axis is left out, as plotly cannot draw it.

    Raises:
        MissingExtraError: plotly is not installed.
        UsageError: there is no axis.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise MissingExtraError("plotly", "widgets", "A figure of the runs") from error
    if not axes:
        raise UsageError("axes", expected="one column or more", got=list(axes))
    columns = [table.column(name) for name in axes]
    needed = [*columns, *([table.column(colour)] if colour else [])]
    kept = [row for row in (range(len(table)) if rows is None else rows) if all(each.values[row] is not None for each in needed)]
    line: dict[str, Any] = {"color": "#3f77c8"}
    if colour:
        title = {"text": colour}
        line = {
            "color": [table.column(colour).values[row] for row in kept],
            "colorscale": SCALE,
            "showscale": True,
            "colorbar": {"title": title},
        }
    return go.Figure(go.Parcoords(dimensions=[_dimension(column, kept) for column in columns], line=line))


def _dimension(column: Column, rows: Sequence[int]) -> dict[str, Any]:
    values = [column.values[row] for row in rows]
    if column.kind != "number":
        words = column.categories
        return {
            "label": column.name,
            "values": [words.index(value) for value in values],
            "tickvals": [*range(len(words))],
            "ticktext": words,
        }
    if not column.is_log or not values:
        return {"label": column.name, "values": values}
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    powers = list(range(low, high + 1))
    named = [f"{10.0**power:g}" for power in powers]
    return {"label": column.name, "values": [math.log10(value) for value in values], "tickvals": powers, "ticktext": named}
