"""Curves over anything but training steps: each value is drawn as it is, with a dot, and no running mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tpo_lab.drawing import PALETTE
from tpo_lab.errors import UsageError
from tpo_lab.report.charts import FAINT, Svg, _document, _text, _ticks

_WIDTH, _HEIGHT = 330, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 44, 36


@dataclass(frozen=True)
class Curves:
    """One small chart.

    Attributes:
        title: what is drawn.
        lines: name -> (x, y), as many of both, at least one; a value that is not finite interrupts its line. A name may be empty.
        x_label: below the horizontal axis.
        from_zero: whether the vertical axis begins at 0 at the latest.
    """

    title: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    x_label: str = ""
    from_zero: bool = True

    def __post_init__(self) -> None:
        if not self.lines or not any(len(x) for x, _ in self.lines.values()):
            raise UsageError("lines", expected="at least one, with a value", got=sorted(self.lines))
        for name, (x, y) in self.lines.items():
            if len(x) != len(y) or not all(map(math.isfinite, x)):
                raise UsageError(f"lines[{name!r}]", expected="finite x, and as many y", got=(len(x), len(y)))


def small_curves(charts: Sequence[Curves], *, columns: int = 3) -> Svg:
    """Charts side by side, each with its own axes.

    Raises:
        UsageError: there is none.
    """
    if not charts:
        raise UsageError("charts", expected="at least one", got=0)
    columns = min(columns, len(charts))
    drawn = [_drawn(chart, (index % columns) * _WIDTH, (index // columns) * _HEIGHT) for index, chart in enumerate(charts)]
    size = columns * _WIDTH, math.ceil(len(charts) / columns) * _HEIGHT
    return _document(size, ", ".join(chart.title for chart in charts), "".join(drawn))


@dataclass(frozen=True)
class _Scale:
    """From a value to a place on the sheet."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


def _scale(values: Sequence[float], start: float, end: float, *, from_zero: bool) -> _Scale:
    low, high = min(values, default=0.0), max(values, default=1.0)
    low, high = (min(low, 0.0), max(high, 0.0)) if from_zero else (low, high)
    return _Scale(low, high if high > low else low + 1.0, start, end)


def _drawn(chart: Curves, x0: float, y0: float) -> str:
    left, right, top, bottom = x0 + _LEFT, x0 + _WIDTH - _RIGHT, y0 + _TOP, y0 + _HEIGHT - _BOTTOM
    across = _scale([x for xs, _ in chart.lines.values() for x in xs], left, right, from_zero=False)
    values = [y for _, ys in chart.lines.values() for y in ys if math.isfinite(y)]
    up = _scale(values, bottom, top, from_zero=chart.from_zero)
    parts = [_text(left, y0 + 16, chart.title, "start", bold=True), _text(right, y0 + _HEIGHT - 6, chart.x_label, "end")]
    for tick in _ticks(up.low, up.high):
        parts.append(f'<line x1="{left}" x2="{right}" y1="{up(tick):.1f}" y2="{up(tick):.1f}" stroke="{FAINT}"/>')
        parts.append(_text(left - 6, up(tick) + 4, f"{tick:g}", "end"))
    parts += [_text(across(tick), bottom + 14, f"{tick:g}", "middle") for tick in _ticks(across.low, across.high, most=5)]
    place = left
    for number, (name, (xs, ys)) in enumerate(chart.lines.items()):
        colour = PALETTE[(number + 2) % len(PALETTE)]
        points = [(across(x), up(y)) if math.isfinite(y) else None for x, y in zip(xs, ys, strict=True)]
        parts.append(_curve(points, colour))
        if name:
            parts.append(_text(place, y0 + 32, name, "start", fill=colour, bold=True))
            place += 7 * len(name) + 12
    return "".join(parts)


def _curve(points: Sequence[tuple[float, float] | None], colour: str) -> str:
    drawn, pen = [], "M"
    for point in points:
        drawn += [] if point is None else [f"{pen}{point[0]:.1f} {point[1]:.1f}"]
        pen = "M" if point is None else "L"
    line = f'<path d="{" ".join(drawn)}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>'
    return line + "".join(f'<circle cx="{p[0]:.1f}" cy="{p[1]:.1f}" r="2.5" fill="{colour}"/>' for p in points if p is not None)
