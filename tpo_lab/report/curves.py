"""Curves as they are: every point is drawn where it is, with a dot, and nothing is smoothed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from tpo_lab.drawing import GROUND_TRUTH
from tpo_lab.errors import UsageError
from tpo_lab.report.spans import Span
from tpo_lab.report.svg import FAINT, Axis, Svg, colour_of, colours_of, document, legend, text

Points: TypeAlias = tuple[Sequence[float], Sequence[float]]
"""The x and the y of a curve's points."""

_LEFT, _RIGHT, _TITLE, _PLOT, _BOTTOM = 46, 12, 24, 180, 36
_ALONE, _AMONG_OTHERS = 560, 330
"""Width of a chart that stands alone, and of one that stands beside others."""
_LEVEL = "#555555"


@dataclass(frozen=True)
class Curves:
    """One chart of lines through points on one pair of axes.

    Attributes:
        title: what is drawn.
        lines: name -> (x, y), in the order in which they are joined. A value that is not finite interrupts its line. A name may be empty.
        x_label: what x counts.
        levels: name -> y of a dashed line from side to side, such as chance.
        spans: parts of the horizontal axis that are shaded, such as true windows.
        low: where the vertical axis begins at the latest; at the smallest value where None.
        high: where it ends at the earliest; at the greatest value where None.

    Raises:
        UsageError: there is no point, or a line has not one y for each x.
    """

    title: str
    lines: Mapping[str, Points]
    x_label: str = "step"
    levels: Mapping[str, float] = field(default_factory=dict)
    spans: Sequence[Span] = ()
    low: float | None = 0.0
    high: float | None = None

    def __post_init__(self) -> None:
        for name, (xs, ys) in self.lines.items():
            if len(xs) != len(ys):
                raise UsageError(f"curves[{name!r}]", expected=f"{len(xs)} values", got=len(ys))
            if not all(map(math.isfinite, xs)):
                raise UsageError(f"curves[{name!r}]", expected="finite x", got=list(xs))
        if not any(math.isfinite(y) for _, ys in self.lines.values() for y in ys):
            raise UsageError("curves", expected="at least one point", got={name: list(xs) for name, (xs, _) in self.lines.items()})


def curve_chart(
    curves: Mapping[str, Points],
    title: str,
    *,
    x_label: str = "step",
    levels: Mapping[str, float] | None = None,
    spans: Sequence[Span] = (),
    low: float | None = 0.0,
    high: float | None = None,
) -> Svg:
    """One chart that stands alone; its arguments are the attributes of `Curves`.

    Raises:
        UsageError: there is no point, or a curve has not one y for each x.
    """
    return curve_charts([Curves(title, curves, x_label, levels or {}, spans, low, high)])


def curve_charts(charts: Sequence[Curves], *, columns: int = 3) -> Svg:
    """Charts side by side, each with its own axes.

    Raises:
        UsageError: there is none.
    """
    if not charts:
        raise UsageError("charts", expected="at least one", got=0)
    columns, width = min(columns, len(charts)), _ALONE if len(charts) == 1 else _AMONG_OTHERS
    top = max(_head(chart, 0, 0, width)[1] for chart in charts)
    height = top + _PLOT + _BOTTOM
    drawn = [_drawn(chart, (number % columns) * width, (number // columns) * height, width, top) for number, chart in enumerate(charts)]
    size = columns * width, math.ceil(len(charts) / columns) * height
    return document(size, ", ".join(chart.title for chart in charts), "".join(drawn))


def _head(chart: Curves, x0: float, y0: float, width: float) -> tuple[str, float]:
    """Title and legend, and where the plot begins."""
    title = text(x0 + _LEFT, y0 + 16, chart.title, "start", bold=True)
    named = {name: colour for name, colour in colours_of(list(chart.lines)).items() if name} | dict.fromkeys(chart.levels, _LEVEL)
    words, end = legend(named, x0 + _LEFT, y0 + _TITLE, width - _LEFT - _RIGHT)
    return title + words, end + 12 if named else y0 + _TITLE + 6


def _drawn(chart: Curves, x0: float, y0: float, width: float, top: float) -> str:
    edges = [edge for span in chart.spans for edge in (span.start_sec, span.end_sec)]
    across = _reach([*edges, *(x for xs, _ in chart.lines.values() for x in xs)], x0 + _LEFT, x0 + width - _RIGHT)
    wanted = [end for end in (chart.low, chart.high) if end is not None]
    values = [y for _, ys in chart.lines.values() for y in ys if math.isfinite(y)]
    up = _reach([*wanted, *values, *chart.levels.values()], y0 + top + _PLOT, y0 + top)
    parts = [_head(chart, x0, y0, width)[0], *(_shade(span, across, up) for span in chart.spans), *_grid(chart.x_label, across, up)]
    parts += [_line(across.start, across.end, up(y), _LEVEL, ' stroke-dasharray="5 4"') for y in chart.levels.values()]
    for number, (xs, ys) in enumerate(chart.lines.values()):
        points = [(across(x), up(y)) if math.isfinite(y) else None for x, y in zip(xs, ys, strict=True)]
        parts.append(_curve(points, colour_of(number)))
    return "".join(parts)


def _reach(values: Sequence[float], start: float, end: float) -> Axis:
    return Axis(min(values), max(values), start, end)


def _shade(span: Span, across: Axis, up: Axis) -> str:
    box = f'x="{across(span.start_sec):.1f}" y="{up.end:g}" width="{across(span.end_sec) - across(span.start_sec):.1f}" height="{_PLOT}"'
    return f'<rect {box} fill="{GROUND_TRUTH}" fill-opacity="0.15"/>'


def _grid(x_label: str, across: Axis, up: Axis) -> list[str]:
    parts = []
    for tick in up.ticks():
        parts += [_line(across.start, across.end, up(tick), FAINT), text(across.start - 6, up(tick) + 4, f"{tick:g}", "end")]
    parts += [text(across(tick), up.start + 14, f"{tick:g}", "middle") for tick in across.ticks(most=5)]
    return [*parts, text(across.end, up.start + 29, x_label, "end")]


def _line(start: float, end: float, y: float, colour: str, style: str = "") -> str:
    return f'<line x1="{start:g}" x2="{end:g}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}"{style}/>'


def _curve(points: Sequence[tuple[float, float] | None], colour: str) -> str:
    pieces, pen = [], "M"
    for point in points:
        pieces += [] if point is None else [f"{pen}{point[0]:.1f} {point[1]:.1f}"]
        pen = "M" if point is None else "L"
    path = f'<path d="{" ".join(pieces)}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>'
    return path + "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in filter(None, points))
