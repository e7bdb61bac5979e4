"""Horizontal bars, side by side or one after the other."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TypeAlias

from tpo_lab.drawing import PALETTE
from tpo_lab.errors import UsageError
from tpo_lab.report.svg import FAINT, INK, LETTER, Axis, Svg, colours_of, document, legend, text

_Groups: TypeAlias = dict[str, dict[str, float]]  # name -> series -> value

_BAR, _GAP, _LENGTH, _TITLE, _VALUE = 14, 8, 320, 26, 70


def bar_chart(
    bars: Mapping[str, float | Mapping[str, float]], title: str, *, unit: str = "", stacked: bool = False, marked: Collection[str] = ()
) -> Svg:
    """Horizontal bars on one scale, from zero: a name and a value, or a name and a value for each of several series.

    Values below zero go to the left. A value that is not finite has no bar, and is written out.

    Args:
        bars: name -> value, or name -> values by series. A series has the same colour everywhere.
        title: what is drawn.
        unit: of the values.
        stacked: the values of one name lie one after the other, and their sum is written; else each has a bar of its own.
        marked: names whose bars have the colour of a warning.

    Raises:
        UsageError: there is no bar, a marked name is none of them, or there are parts to stack that are not finite or below zero.
    """
    groups = {name: dict(value) if isinstance(value, Mapping) else {"": float(value)} for name, value in bars.items()}
    _check(groups, marked, stacked=stacked)
    colours = colours_of(list(dict.fromkeys(series for group in groups.values() for series in group)))
    left = 16 + LETTER * max(len(name) for name in groups)
    axis = _axis(groups, left, stacked=stacked)
    words, y = legend({name: colour for name, colour in colours.items() if name}, left, _TITLE, _LENGTH + _VALUE)
    top = y = y + 6 if words else _TITLE
    drawn = []
    for name, group in groups.items():
        shades = dict.fromkeys(group, PALETTE[1]) if name in marked else colours
        lines = _end_to_end(group, shades, axis, y + _GAP / 2) if stacked else _one_below_another(group, shades, axis, y + _GAP / 2)
        height = _GAP + _BAR * len(lines)
        drawn += [text(left - 6, y + height / 2 + 4, name, "end"), *lines]
        y += height
    heading = f"{title}, {unit}" if unit else title
    inside = [text(8, 16, heading, "start", bold=True), words, *_grid(axis, top, y), *drawn]
    return document((max(left + _LENGTH + _VALUE, 16 + 7.2 * len(heading)), y + 20), heading, "".join(inside))


def _check(groups: _Groups, marked: Collection[str], *, stacked: bool) -> None:
    if not any(groups.values()):
        raise UsageError("bars", expected="at least one", got=groups)
    if unknown := [name for name in marked if name not in groups]:
        raise UsageError("marked", expected=f"names among {sorted(groups)}", got=unknown)
    for name, group in groups.items():
        for series, value in group.items():
            if stacked and not (math.isfinite(value) and value >= 0):
                raise UsageError(f"bars[{name!r}][{series!r}]", expected="a finite number from 0 up", got=value)
    parts = {series for group in groups.values() for series in group}
    if stacked and len(parts) > len(PALETTE):
        raise UsageError("bars", expected=f"at most {len(PALETTE)} different parts, as there are colours", got=len(parts))


def _axis(groups: _Groups, left: float, *, stacked: bool) -> Axis:
    values = [sum(group.values()) for group in groups.values()] if stacked else [v for group in groups.values() for v in group.values()]
    finite = [0.0, *(value for value in values if math.isfinite(value))]
    return Axis(min(finite), max(finite), left, left + _LENGTH)


def _grid(axis: Axis, top: float, bottom: float) -> list[str]:
    parts = []
    for tick in axis.ticks():
        x = axis(tick)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{bottom:g}" stroke="{FAINT if tick else INK}"/>')
        parts.append(text(x, bottom + 13, _plain(tick), "middle"))
    return parts


def _one_below_another(group: Mapping[str, float], colours: Mapping[str, str], axis: Axis, top: float) -> list[str]:
    return [_bar(0.0, value, colours[series], axis, top + _BAR * place) for place, (series, value) in enumerate(group.items())]


def _end_to_end(group: Mapping[str, float], colours: Mapping[str, str], axis: Axis, top: float) -> list[str]:
    parts, before = [], 0.0
    for series, value in group.items():
        parts.append(_rectangle(before, before + value, colours[series], axis, top, _plain(value)))
        before += value
    return ["".join(parts) + text(axis(before) + 5, top + _BAR - 4, _plain(before), "start", bold=True)]


def _bar(start: float, end: float, colour: str, axis: Axis, top: float) -> str:
    drawn = _rectangle(start, end, colour, axis, top, _plain(end)) if math.isfinite(end) else ""
    return drawn + text(axis(max(start, end) if drawn else start) + 5, top + _BAR - 4, _plain(end), "start")


def _rectangle(start: float, end: float, colour: str, axis: Axis, top: float, words: str) -> str:
    x, width = axis(min(start, end)), abs(axis(end) - axis(start))
    box = f'x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{_BAR - 2}"'
    return f'<rect {box} fill="{colour}"><title>{words}</title></rect>'


def _plain(value: float) -> str:
    """Three digits, with thousands apart and no exponent."""
    return f"{value:,.0f}" if math.isfinite(value) and abs(value) >= 1000 else f"{value:.3g}"
