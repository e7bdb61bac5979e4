"""Charts of the course: bars, grids of numbers, curves that are not smoothed, and windows on a time axis. SVG text, as in `charts`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tpo_lab.drawing import GROUND_TRUTH, PALETTE
from tpo_lab.errors import UsageError
from tpo_lab.report.charts import BAND, FAINT, INK, Svg, _document, _text, _ticks

_LETTER = 6.2
"""Pixels that a letter of the charts' font takes, about."""
_BAR, _GAP, _LENGTH = 13, 8, 260
_CURVE_WIDTH, _CURVE_HEIGHT = 460, 170
_SERIES = PALETTE[2:7]


@dataclass(frozen=True)
class Span:
    """A window on a time axis.

    Attributes:
        start_sec, end_sec: of the window.
        weight: in [0, 1]; how dark it is drawn.
    """

    start_sec: float
    end_sec: float
    weight: float = 1.0


def bar_chart(bars: Mapping[str, float | Mapping[str, float]], title: str, *, unit: str = "") -> Svg:
    """Horizontal bars from zero: a name and a value, or a name and a value for each of several series.

    Values below zero go to the left. A value that is not finite has no bar, and is written out.

    Raises:
        UsageError: there is no bar.
    """
    groups = {name: dict(value) if isinstance(value, Mapping) else {"": value} for name, value in bars.items()}
    if not any(groups.values()):
        raise UsageError("bars", expected="at least one", got=0)
    series = list(dict.fromkeys(name for group in groups.values() for name in group))
    colours = {name: _SERIES[place % len(_SERIES)] for place, name in enumerate(series)}
    finite = [value for group in groups.values() for value in group.values() if math.isfinite(value)]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    high = high if high > low else low + 1.0
    scale, left = _LENGTH / (high - low), 16 + _LETTER * max(len(name) for name in groups)
    zero, y = left - low * scale, 30.0
    parts = [_text(8, 16, title + (f", {unit}" if unit else ""), "start", bold=True)]
    for name, group in groups.items():
        parts.append(_text(left - 6, y + len(group) * _BAR / 2 + 4, name, "end"))
        for which, value in group.items():
            end = zero + value * scale if math.isfinite(value) else zero
            box = f'x="{min(zero, end):.1f}" y="{y:.1f}" width="{abs(end - zero):.1f}" height="{_BAR - 2}"'
            parts.append(f'<rect {box} fill="{colours[which]}"/>')
            parts.append(_text(max(zero, end) + 5, y + _BAR - 4, f"{value:.3g}", "start"))
            y += _BAR
        y += _GAP
    parts.append(f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="24" y2="{y - 2:.1f}" stroke="{INK}"/>')
    if series != [""]:
        parts.append(_legend(left, y + 10, colours))
        y += 18
    width = max(left + _LENGTH + 70, 16 + 7.2 * (len(title) + len(unit)), left + sum(_LETTER * len(name) + 30 for name in series))
    return _document((math.ceil(width), math.ceil(y + 4)), title, "".join(parts))


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
        columns: a name each, written upright where they are long.
        row_title: what the rows are.
        column_title: what the columns are.
        digits: behind the point of the number in each cell; None writes none.

    Raises:
        UsageError: the values are not [row, column].
    """
    if not rows or not columns or len(values) != len(rows) or any(len(row) != len(columns) for row in values):
        raise UsageError("values", expected=f"[{len(rows)}, {len(columns)}]", got=[len(row) for row in values])
    finite = [abs(float(value)) for row in values for value in row if math.isfinite(value)]
    largest = max([*finite, 0.0]) or 1.0
    cell_w, cell_h = (22, 18) if digits is None else (52, 24)
    longest = _LETTER * max(len(name) for name in columns)
    upright = longest > cell_w - 4
    left = 14 + max(_LETTER * max(len(name) for name in rows), _LETTER * len(row_title))
    top = 24 + (16 if column_title else 0) + (longest + 8 if upright else 18)
    parts = [_text(8, 16, title, "start", bold=True)]
    parts.append(_text(left + cell_w * len(columns) / 2, 34, column_title, "middle") if column_title else "")
    parts.append(_text(left - 6, top - 6, row_title, "end", fill="#7a828c") if row_title else "")
    for c, name in enumerate(columns):
        x = left + (c + 0.5) * cell_w
        turned = f' transform="rotate(-90 {x + 4:g} {top - 5:g})"' if upright else ""
        label = _text(x + (4 if upright else 0), top - 5, name, "start" if upright else "middle")
        parts.append(label.replace("<text", f"<text{turned}", 1))
    for r, (name, row) in enumerate(zip(rows, values, strict=True)):
        y = top + r * cell_h
        parts.append(_text(left - 6, y + cell_h / 2 + 4, name, "end"))
        parts += [_cell(float(value), largest, left + c * cell_w, y, cell_w, cell_h, digits) for c, value in enumerate(row)]
    width = max(left + cell_w * len(columns) + 8, 16 + 7.2 * len(title), left + 8 + _LETTER * len(column_title))
    return _document((math.ceil(width), math.ceil(top + cell_h * len(rows) + 8)), title, "".join(parts))


def curve_chart(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    *,
    x_label: str = "",
    spans: Sequence[Span] = (),
    low: float | None = None,
    high: float | None = None,
) -> Svg:
    """Curves through their points as they are, nothing smoothed, over one axis; a point is left out where its value is not finite.

    Args:
        curves: name -> (places, values).
        title: what is drawn.
        x_label: what the places are.
        spans: parts of the axis that are shaded, such as true windows.
        low: lower end of the vertical axis; the smallest value, at most 0, where None.
        high: upper end; the largest value where None.

    Raises:
        UsageError: there is no curve, or one has not a value for each place.
    """
    if not curves:
        raise UsageError("curves", expected="at least one", got=0)
    for name, (places, values) in curves.items():
        if len(places) != len(values):
            raise UsageError(f"curves[{name!r}]", expected=f"{len(places)} values", got=len(values))
    points = {name: [pair for pair in zip(*curve, strict=True) if math.isfinite(pair[1])] for name, curve in curves.items()}
    heights = [value for pairs in points.values() for _, value in pairs]
    places = [place for pairs in points.values() for place, _ in pairs] + [edge for s in spans for edge in (s.start_sec, s.end_sec)]
    bottom, top = (min([0.0, *heights]) if low is None else low), (max([*heights], default=1.0) if high is None else high)
    first, last = min(places, default=0.0), max(places, default=1.0)
    x = _axis(first, last, 46, _CURVE_WIDTH - 12)
    y = _axis(bottom, top, _CURVE_HEIGHT - 30, 26)
    parts = [_text(46, 16, title, "start", bold=True)]
    for span in spans:
        box = f'x="{x(span.start_sec):.1f}" y="26" width="{x(span.end_sec) - x(span.start_sec):.1f}" height="{_CURVE_HEIGHT - 56}"'
        parts.append(f'<rect {box} fill="{GROUND_TRUTH}" fill-opacity="0.15"/>')
    for tick in _ticks(bottom, top if top > bottom else bottom + 1):
        parts.append(f'<line x1="46" x2="{_CURVE_WIDTH - 12}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{FAINT}"/>')
        parts.append(_text(40, y(tick) + 4, f"{tick:g}", "end"))
    for tick in _ticks(first, last if last > first else first + 1, most=6):
        parts.append(_text(x(tick), _CURVE_HEIGHT - 16, f"{tick:g}", "middle"))
    parts.append(_text(_CURVE_WIDTH - 12, _CURVE_HEIGHT - 3, x_label, "end"))
    colours = {name: _SERIES[place % len(_SERIES)] for place, name in enumerate(curves)}
    for name, pairs in points.items():
        path = " ".join(f"{'M' if place == 0 else 'L'}{x(p):.1f} {y(v):.1f}" for place, (p, v) in enumerate(pairs))
        parts.append(f'<path d="{path}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(p):.1f}" cy="{y(v):.1f}" r="3" fill="{colours[name]}"/>' for p, v in pairs]
    parts.append(_legend(46, _CURVE_HEIGHT + 10, colours))
    width = max(_CURVE_WIDTH, 46 + sum(_LETTER * len(name) + 30 for name in curves))
    return _document((math.ceil(width), _CURVE_HEIGHT + 18), title, "".join(parts))


def span_chart(rows: Mapping[str, Sequence[Span]], title: str, *, duration_sec: float, truth: Sequence[Span] = ()) -> Svg:
    """Windows as bars over a clip's seconds, a line for each, the true ones shaded behind; a bar is the darker the greater its weight.

    Raises:
        UsageError: there is no row, or the clip has no length.
    """
    if not rows or duration_sec <= 0:
        raise UsageError("rows", expected="at least one, of a clip with a length", got=f"{len(rows)}, {duration_sec} s")
    left = 16 + _LETTER * max(len(name) for name in rows)
    x = _axis(0.0, duration_sec, left, left + _LENGTH + 100)
    y, parts = 26.0, []
    for place, (name, spans) in enumerate(rows.items()):
        colour = _SERIES[place % len(_SERIES)]
        parts.append(_text(left - 6, y + max(len(spans), 1) * 5 + 4, name, "end"))
        for span in spans:
            start, end = x(max(span.start_sec, 0.0)), x(min(span.end_sec, duration_sec))
            box = f'x="{start:.1f}" y="{y:.1f}" width="{max(end - start, 1.0):.1f}" height="8"'
            parts.append(f'<rect {box} fill="{colour}" fill-opacity="{0.15 + 0.85 * min(max(span.weight, 0.0), 1.0):.2f}"/>')
            y += 10
        y += 10
    behind = [
        f'<rect x="{x(s.start_sec):.1f}" y="22" width="{x(s.end_sec) - x(s.start_sec):.1f}" height="{y - 26:.1f}" fill="{GROUND_TRUTH}" '
        'fill-opacity="0.15"/>'
        for s in truth
    ]
    frame = f'<rect x="{left:.1f}" y="22" width="{_LENGTH + 100}" height="{y - 26:.1f}" fill="{BAND}"/>'
    ticks = [_text(x(tick), y + 10, f"{tick:g}", "middle") for tick in _ticks(0.0, duration_sec)]
    inside = "".join([_text(8, 15, title, "start", bold=True), frame, *behind, *parts, *ticks, _text(left + 370, y + 22, "seconds", "end")])
    return _document((math.ceil(max(left + _LENGTH + 112, 16 + 7.2 * len(title))), math.ceil(y + 28)), title, inside)


def _axis(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Maps values to pixels; an axis without length counts as one long."""
    step = (end - start) / ((high - low) if high > low else 1.0)
    return lambda value: start + (value - low) * step


def _cell(value: float, largest: float, x: float, y: float, width: float, height: float, digits: int | None) -> str:
    box = f'x="{x + 0.5:g}" y="{y + 0.5:g}" width="{width - 1}" height="{height - 1}"'
    if not math.isfinite(value):
        return f'<rect {box} fill="#ffffff" stroke="{FAINT}"/>'
    colour = PALETTE[2] if value >= 0 else PALETTE[1]
    shade = f'<rect {box} fill="{BAND}"/><rect {box} fill="{colour}" fill-opacity="{0.75 * abs(value) / largest:.3f}"/>'
    return shade + ("" if digits is None else _text(x + width / 2, y + height / 2 + 4, f"{value:.{digits}f}", "middle"))


def _legend(x: float, y: float, colours: Mapping[str, str]) -> str:
    parts = []
    for name, colour in colours.items():
        parts.append(f'<rect x="{x:.1f}" y="{y - 9:.1f}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(x + 14, y, name, "start"))
        x += _LETTER * len(name) + 30
    return "".join(parts)
