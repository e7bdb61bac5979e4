"""The picture of a sweep: its best runs as a table, and all of them as parallel coordinates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tpo_widgets.runs.columns import Column
from tpo_widgets.sheet import Sheet, fitted, text_width

if TYPE_CHECKING:
    from PIL.Image import Image

    from tpo_widgets.runs.content import RunsContent

_ROWS, _ROW, _MARGIN = 10, 20, 16
_SMALL, _ROWS_OF_SMALL, _LINES_OF_SMALL = 600, 5, 24
_CHART, _CHART_OF_SMALL, _MARKS = 190, 100, 4
_LINES = 600
_WIDEST = 170.0
_LOW, _MIDDLE, _HIGH = (0x3F, 0x77, 0xC8), (0x9B, 0x8F, 0x88), (0xC4, 0x70, 0x1A)


def runs_picture(content: RunsContent, *, dark: bool, width: int) -> Image:
    """The first rows by the first metric, best first, above the parallel coordinates."""
    table, width = content.table, max(width, 480)
    rows = _best_rows(content)[: _ROWS_OF_SMALL if width < _SMALL else _ROWS]
    height = _CHART_OF_SMALL if width < _SMALL else _CHART
    names = _that_fit(content, rows, width - 2 * _MARGIN)
    top = 56 + _ROW * (len(rows) + 1)
    has_chart = bool(content.axes) and len(table) > 0
    sheet = Sheet(width, top + (height + 64 if has_chart else 8), dark=dark)
    sheet.text(_MARGIN, 24, f"{table.title}: {_summary(content)}", size=15, width=width - 2 * _MARGIN)
    _draw_table(sheet, content, rows, names)
    if has_chart:
        _draw_axes(sheet, content, top + 24, width, height)
    return sheet.image


def _summary(content: RunsContent) -> str:
    count = len(content.table)
    states = ", ".join(f"{number} {state}" for state, number in content.table.states.items())
    return f"{count} run{'' if count == 1 else 's'}" + (f" ({states})" if states else "")


def _best_rows(content: RunsContent) -> list[int]:
    table = content.table
    order = table.ordered(table.metrics[0], descending=not table.column(table.metrics[0]).lower) if table.metrics else range(len(table))
    return list(order)


def shown(value: Any) -> str:
    """A value in a cell."""
    from tpo_lab.reruns.display.cells import cell

    return "-" if value is None else " ".join(cell(value).split())


def _widths(content: RunsContent, name: str, rows: list[int]) -> float:
    values = content.table.column(name).values
    return min(max([text_width(name), *(text_width(f"* {shown(values[row])}") for row in rows)]) + 14, _WIDEST)


def _that_fit(content: RunsContent, rows: list[int], room: float) -> dict[str, float]:
    """Columns and their widths, as many as fit."""
    found: dict[str, float] = {}
    for name in content.shown:
        needed = _widths(content, name, rows)
        if sum(found.values()) + needed <= room:
            found[name] = needed
    return found


def _draw_table(sheet: Sheet, content: RunsContent, rows: list[int], names: dict[str, float]) -> None:
    x, y0, end = float(_MARGIN), 40, _MARGIN + sum(names.values())
    for name, width in names.items():
        column = content.table.column(name)
        right = column.kind == "number"
        at, anchor = (x + width - 8, "rm") if right else (x, "lm")
        sheet.text(at, y0 + _ROW / 2, fitted(name, width - 8), anchor=anchor, fill=sheet.theme.soft)
        best = column.best() if column.role == "metric" else None
        for place, row in enumerate(rows, 1):
            value = column.values[row]
            words = ("* " if value is not None and value == best else "") + shown(value)
            sheet.text(at, y0 + _ROW * (place + 0.5), fitted(words, width - 6), anchor=anchor)
        x += width
    for place in range(1, len(rows) + 1):
        sheet.line([(_MARGIN, y0 + _ROW * place), (end, y0 + _ROW * place)], fill=sheet.theme.line)
    if not rows:
        sheet.text(_MARGIN, y0 + _ROW * 1.0, "No runs yet.", fill=sheet.theme.soft)


def _draw_axes(sheet: Sheet, content: RunsContent, top: int, width: int, height: int) -> None:
    columns = [content.table.column(name) for name in content.axes]
    left, right = _MARGIN + 40, width - _MARGIN - 60
    step = (right - left) / max(len(columns) - 1, 1)
    across = [left + step * number for number in range(len(columns))]
    bottom = top + height
    colour = content.table.column(content.colour) if content.colour else None
    places = [[_place(column, column.values[row]) for column in columns] for row in range(len(content.table))]
    most = _LINES_OF_SMALL if width < _SMALL else _LINES
    for row, line in list(enumerate(places))[:: max(1, -(-len(places) // most))]:
        points = [(x, bottom + 16 if place is None else bottom - place * height) for x, place in zip(across, line, strict=True)]
        shade = _shade(None if colour is None else _place(colour, colour.values[row]), sheet)
        if len(points) > 1:
            sheet.line(points, fill=shade, width=1 if len(places) > 60 else 2)
        else:
            sheet.dot(*points[0], 3, fill=shade)
    for x, column in zip(across, columns, strict=True):
        sheet.line([(x, top), (x, bottom)], fill=sheet.theme.ink)
        sheet.text(x, top - 8, column.name, anchor="ms", width=max(step - 6, 40))
        for place, words in _marks(column):
            y = bottom - place * height
            sheet.box((x + 4, y - 7, x + 8 + text_width(words, 11), y + 7), fill=sheet.theme.paper, opacity=0.7)
            sheet.text(x + 6, y, words, anchor="lm", size=11, width=max(step - 8, 52))
    if any(place is None for line in places for place in line):
        sheet.text(_MARGIN, bottom + 16, "none", anchor="lm", size=11, fill=sheet.theme.soft)


def _place(column: Column, value: Any) -> float | None:
    """Where a value stands on its axis, from 0 at the foot to 1; None where there is none."""
    if value is None:
        return None
    if column.kind != "number":
        return (column.categories.index(value) + 0.5) / len(column.categories)
    low, high = column.ends
    if high == low:
        return 0.5
    if column.is_log:
        return math.log(value / low) / math.log(high / low)
    return float((value - low) / (high - low))


def _marks(column: Column) -> list[tuple[float, str]]:
    """Place and words along an axis."""
    if column.kind != "number":
        return [((number + 0.5) / len(column.categories), shown(word)) for number, word in enumerate(column.categories)]
    different = sorted(set(column.present))
    if len(different) > _MARKS + 1:
        low, high = different[0], different[-1]
        at = [number / _MARKS for number in range(_MARKS + 1)]
        different = [low * (high / low) ** part if column.is_log else low + (high - low) * part for part in at]
    return [(place, f"{value:.3g}") for value in different if (place := _place(column, value)) is not None]


def _shade(place: float | None, sheet: Sheet) -> str:
    """The colour of a run by its place on the axis that colours."""
    if place is None:
        return sheet.theme.soft
    (one, other), part = ((_LOW, _MIDDLE), 2 * place) if place < 0.5 else ((_MIDDLE, _HIGH), 2 * place - 1)
    return "#" + "".join(f"{round(start + (end - start) * part):02x}" for start, end in zip(one, other, strict=True))
