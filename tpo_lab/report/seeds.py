"""A row of dots for each point of a sweep: what every seed gave, their mean, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from tpo_lab.errors import UsageError
from tpo_lab.report.svg import FAINT, Axis, Svg, colour_of, document, text

_ROW, _TOP, _BOTTOM, _RIGHT, _PLOT = 30, 34, 34, 20, 380


def seeds_chart(
    values: Mapping[str, Sequence[float]], title: str, *, intervals: Mapping[str, tuple[float, float]] | None = None, zero: bool = False
) -> Svg:
    """One row for each name: a dot for each seed, a diamond at their mean, a bar over the interval.

    Args:
        values: name -> a value for each seed.
        title: what is drawn.
        intervals: name -> ends of the interval of the mean.
        zero: mark 0 with a line, as differences want it.

    Raises:
        UsageError: there is nothing to draw.
    """
    intervals = intervals or {}
    shown = [*(value for row in values.values() for value in row), *(end for ends in intervals.values() for end in ends), *([0.0] * zero)]
    if not shown:
        raise UsageError("values", expected="at least one", got=dict(values))
    low, high = min(shown), max(shown)
    room = (high - low) * 0.05 or 0.5
    left = 20 + 7 * max(map(len, values))
    x = Axis(low - room, high + room, left, left + _PLOT)
    bottom = _TOP + _ROW * len(values)
    parts = [text(10, 18, title, "start", bold=True)]
    for tick in x.ticks():
        dark = zero and tick == 0
        line = f'x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{bottom}"'
        parts.append(f'<line {line} stroke="{"#555555" if dark else FAINT}" stroke-width="{2 if dark else 1}"/>')
        parts.append(text(x(tick), bottom + 16, f"{tick:g}", "middle"))
    for number, (name, row) in enumerate(values.items()):
        y, colour = _TOP + _ROW * number + _ROW / 2, colour_of(number)
        parts.append(text(left - 8, y + 4, name, "end"))
        if name in intervals:
            start, end = map(x, intervals[name])
            parts.append(
                f'<line x1="{start:.1f}" x2="{end:.1f}" y1="{y:g}" y2="{y:g}" stroke="{colour}" stroke-width="9" stroke-opacity="0.25"/>'
            )
        parts += [f'<circle cx="{x(value):.1f}" cy="{y:g}" r="4" fill="{colour}" fill-opacity="0.6"/>' for value in row]
        if row:
            middle = x(fmean(row))
            parts.append(f'<path d="M{middle:.1f} {y - 8:g}l6 8l-6 8l-6 -8z" fill="none" stroke="{colour}" stroke-width="2"/>')
    return document((left + _PLOT + _RIGHT, bottom + _BOTTOM), title, "".join(parts))
