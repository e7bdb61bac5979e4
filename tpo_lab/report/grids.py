"""Grids of shaded cells: rows and columns with names, and a number in each cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tpo_lab.drawing import PALETTE
from tpo_lab.errors import UsageError
from tpo_lab.report.svg import BAND, FAINT, LETTER, PALE_INK, Svg, document, text


class Cell(NamedTuple):
    """One cell.

    Attributes:
        words: what is written in it.
        colour: of its shade.
        opacity: of its shade, from 0 to 1; None leaves the whole cell white.
    """

    words: str
    colour: str
    opacity: float | None


def shaded_grid(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cell: Callable[[int, int], Cell],
    *,
    row_title: str = "",
    column_title: str = "",
    written: bool = True,
) -> Svg:
    """A grid whose cells a function tells.

    Args:
        title: what is drawn.
        rows: a name each.
        columns: a name each.
        cell: from the numbers of row and column.
        row_title: what the rows are.
        column_title: what the columns are.
        written: whether cells hold words; without, they are small, and long names of columns stand upright.
    """
    longest = max((LETTER * len(name) for name in columns), default=0.0)
    width, height = (max(74.0, longest + 10), 20) if written else (22.0, 18)
    upright = longest > width
    left = 20 + max([LETTER * len(row_title), *(LETTER * len(name) for name in rows)])
    top = 44 + (16 if column_title else 0) + (longest - 8 if upright else 0)
    parts = [text(10, 18, title, "start", bold=True), text(left - 8, top - 6, row_title, "end", fill=PALE_INK) if row_title else ""]
    parts.append(text(left + width * len(columns) / 2, 36, column_title, "middle", fill=PALE_INK) if column_title else "")
    for place, name in enumerate(columns):
        x = left + (place + 0.5) * width
        parts.append(text(x + 4, top - 6, name, "start", upright=True) if upright else text(x, top - 6, name, "middle"))
    for number, name in enumerate(rows):
        y = top + number * height
        parts.append(text(left - 8, y + height - 6, name, "end"))
        parts += [_drawn(cell(number, place), left + place * width, y, width, height) for place in range(len(columns))]
    size = max(left + len(columns) * width + 8, LETTER * len(title) + 30, left + 8 + LETTER * len(column_title))
    return document((size, top + len(rows) * height + 4), title, "".join(parts))


def _drawn(cell: Cell, x: float, y: float, width: float, height: float) -> str:
    box = f'x="{x + 1:.1f}" y="{y + 1:g}" width="{width - 2:.1f}" height="{height - 2:g}"'
    if cell.opacity is None:
        return f'<rect {box} fill="#ffffff" stroke="{FAINT}"/>'
    shade = f'<rect {box} fill="{BAND}"/><rect {box} fill="{cell.colour}" fill-opacity="{cell.opacity:.3f}"/>'
    return shade + (text(x + width / 2, y + height - 6, cell.words, "middle") if cell.words else "")


def grid_chart(
    values: Sequence[Sequence[float | bool]],
    title: str,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_title: str = "",
    column_title: str = "",
    digits: int | None = 2,
) -> Svg:
    """A grid of shaded numbers: blue above zero, orange below, the darker the further from it. A value that is not finite stays white.

    Args:
        values: [row, column].
        title: what is drawn.
        rows: a name each.
        columns: a name each, written upright where they are long and no numbers are written.
        row_title: what the rows are.
        column_title: what the columns are.
        digits: behind the point of the number in each cell; None writes none.

    Raises:
        UsageError: the values are not [row, column].
    """
    if not rows or not columns:
        raise UsageError("rows, columns", expected="at least one of both", got=(len(rows), len(columns)))
    _check_shape("values", values, len(rows), len(columns))
    largest = max([abs(float(value)) for row in values for value in row if math.isfinite(value)], default=0.0) or 1.0

    def cell(row: int, column: int) -> Cell:
        value = float(values[row][column])
        if not math.isfinite(value):
            return Cell("", FAINT, None)
        words = "" if digits is None else f"{value:.{digits}f}"
        return Cell(words, PALETTE[2] if value >= 0 else PALETTE[1], 0.75 * abs(value) / largest)

    return shaded_grid(title, rows, columns, cell, row_title=row_title, column_title=column_title, written=digits is not None)


def confusion_chart(labels: Sequence[str], counts: Sequence[Sequence[int]], title: str) -> Svg:
    """A confusion matrix: rows what was expected, columns what was emitted, each cell with its count, shaded by its share of the row.

    Raises:
        UsageError: the counts are not [label, label].
    """
    _check_shape("counts", counts, len(labels), len(labels))

    def cell(row: int, column: int) -> Cell:
        share = counts[row][column] / sum(counts[row]) if sum(counts[row]) else 0.0
        return Cell(str(counts[row][column]), PALETTE[0] if row == column else PALETTE[1], 0.75 * share)

    return shaded_grid(title, labels, labels, cell, row_title="expected", column_title="emitted")


def _check_shape(argument: str, values: Sequence[Sequence[float]], rows: int, columns: int) -> None:
    """Refuses values that are not [row, column]."""
    if len(values) != rows or any(len(row) != columns for row in values):
        raise UsageError(argument, expected=f"[{rows}, {columns}]", got=[len(row) for row in values])
