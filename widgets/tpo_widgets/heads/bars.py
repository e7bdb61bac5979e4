"""The timeline of a HeadView's picture: windows, curves, and where an object is hidden, over seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tpo_widgets.sheet import Sheet, text_width

_MARGIN, _NAMES, _GAP = 16, 100, 6
_BAR, _CURVE, _AXIS = 14, 40, 24


class Spans(NamedTuple):
    """One row of bars: its name, its colour, the spans [start, end] in seconds, and how dense they are, from 0 to 1."""

    name: str
    colour: str
    spans: Sequence[Sequence[float]]
    opacity: float = 1.0


class Line(NamedTuple):
    """One panel with a curve.

    Attributes:
        name: beside it.
        colour: of the curve.
        times: in seconds.
        values: None interrupts the line.
        limits: of the panel; None for those of the values.
    """

    name: str
    colour: str
    times: Sequence[float]
    values: Sequence[float | None]
    limits: tuple[float, float] | None = None


@dataclass
class Bars:
    """Rows of bars, and panels of curves below them.

    Attributes:
        duration_sec: of the axis.
        mark_sec: where a line goes through all of it, or None.
    """

    duration_sec: float
    mark_sec: float | None = None
    rows: list[Spans] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    @property
    def height(self) -> int:
        """In pixels; 0 where there is nothing to draw."""
        filled = len(self.rows) * (_BAR + _GAP) + len(self.lines) * (_CURVE + _GAP)
        return filled + _AXIS if filled else 0

    def draw(self, sheet: Sheet, top: float, width: float) -> None:
        """Draws all of it below `top`, over the width of a sheet."""
        if not self.height:
            return
        axis = _Axis(_MARGIN + _NAMES, width - _MARGIN - 8, max(self.duration_sec, 1e-3))
        at = top
        for row in self.rows:
            _draw_spans(sheet, axis, at, row)
            at += _BAR + _GAP
        for line in self.lines:
            _draw_line(sheet, axis, at, line)
            at += _CURVE + _GAP
        _draw_ticks(sheet, axis, at)
        if self.mark_sec is not None:
            sheet.line([(axis.x(self.mark_sec), top), (axis.x(self.mark_sec), at)])


class _Axis(NamedTuple):
    left: float
    right: float
    duration_sec: float

    def x(self, seconds: float) -> float:
        return self.left + (self.right - self.left) * min(max(seconds / self.duration_sec, 0.0), 1.0)


def _name(sheet: Sheet, axis: _Axis, y: float, words: str) -> None:
    sheet.text(axis.left - 8, y, words, anchor="rm", size=11, width=_NAMES - 8)


def _draw_spans(sheet: Sheet, axis: _Axis, top: float, row: Spans) -> None:
    _name(sheet, axis, top + _BAR / 2, row.name)
    sheet.box((axis.left, top, axis.right, top + _BAR), fill=sheet.theme.panel)
    for span in row.spans:
        first, last = axis.x(min(span)), axis.x(max(span))
        sheet.box((first, top, max(last, first + 1), top + _BAR), fill=row.colour, opacity=row.opacity)


def _draw_line(sheet: Sheet, axis: _Axis, top: float, line: Line) -> None:
    sheet.box((axis.left, top, axis.right, top + _CURVE), fill=sheet.theme.panel)
    _name(sheet, axis, top + 11, line.name)
    finite = [value for value in line.values if value is not None]
    if not finite:
        return
    low, high = line.limits or (min(finite), max(finite))
    sheet.text(axis.left - 8, top + 27, f"{low:.2g} to {high:.2g}", anchor="rm", size=11, fill=sheet.theme.soft)
    rise = (_CURVE - 8) / (high - low) if high > low else 0.0
    before = None
    for time, value in zip(line.times, line.values, strict=True):
        point = None if value is None else (axis.x(time), top + _CURVE - 4 - rise * (value - low))
        if point is not None:
            sheet.line([before or point, point], fill=line.colour, width=2)
        before = point


def _draw_ticks(sheet: Sheet, axis: _Axis, top: float) -> None:
    sheet.line([(axis.left, top), (axis.right, top)], fill=sheet.theme.soft)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        words = f"{share * axis.duration_sec:.3g} s"
        half = text_width(words, 11) / 2
        at = min(max(axis.x(share * axis.duration_sec), axis.left + half), axis.right - half)
        sheet.text(at, top + 11, words, anchor="mm", size=11, fill=sheet.theme.soft)
