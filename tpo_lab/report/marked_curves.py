"""Curves of few points as SVG: every point is drawn where it is, nothing is smoothed, and levels can be compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from tpo_lab.drawing import PALETTE
from tpo_lab.errors import UsageError
from tpo_lab.report.charts import FAINT, Svg, _document, _text, _ticks

Points: TypeAlias = tuple[Sequence[float], Sequence[float]]
"""The x and the y of a curve's points."""

_WIDTH, _HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 150, 30, 36
_LINE = 14
"""Pixels that a line of the legend takes."""


def curve_chart(
    curves: Mapping[str, Points], title: str, *, x_label: str = "step", levels: Mapping[str, float] | None = None, top: float | None = None
) -> Svg:
    """Lines through points on one pair of axes; the vertical one starts at 0, or below where a value does.

    Args:
        curves: name -> (x, y), in the order in which they are joined. A value that is not finite interrupts its line.
        title: what is drawn.
        x_label: what x counts.
        levels: name -> y of a dashed line from side to side, such as chance.
        top: where the vertical axis ends at least; at the greatest value where None.

    Raises:
        UsageError: there is no point, or a curve has not one y for each x.
    """
    for name, (xs, ys) in curves.items():
        if len(xs) != len(ys):
            raise UsageError(f"curves[{name!r}]", expected=f"{len(xs)} values", got=len(ys))
    levels = levels or {}
    across = [x for xs, _ in curves.values() for x in xs]
    up = [y for _, ys in curves.values() for y in ys if math.isfinite(y)]
    if not across or not up:
        raise UsageError("curves", expected="at least one point", got={name: list(xs) for name, (xs, _) in curves.items()})
    high = max(*up, *levels.values(), -math.inf if top is None else top)
    axes = _Axes((min(across), max(across)), (min(0.0, *up, *levels.values()), high))
    drawn = [_text(_LEFT, 18, title, "start", bold=True), *axes.grid(x_label)]
    for number, (name, y) in enumerate(levels.items(), start=len(curves)):
        drawn += axes.level(name, y, number)
    for number, (name, (xs, ys)) in enumerate(curves.items()):
        drawn += axes.curve(name, xs, ys, number)
    return _document((_WIDTH, _HEIGHT), title, "".join(drawn))


class _Axes:
    """Where values lie on the page; an axis without extent gets one."""

    def __init__(self, across: tuple[float, float], up: tuple[float, float]) -> None:
        self.first, self.last = across if across[1] > across[0] else (across[0], across[0] + 1.0)
        self.low, self.high = up if up[1] > up[0] else (up[0], up[0] + 1.0)

    def x(self, value: float) -> float:
        return _LEFT + (_WIDTH - _RIGHT - _LEFT) * (value - self.first) / (self.last - self.first)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (value - self.low) / (self.high - self.low)

    def grid(self, x_label: str) -> list[str]:
        left, right, bottom = _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        drawn = []
        for tick in _ticks(self.low, self.high):
            y = self.y(tick)
            drawn.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{FAINT}"/>')
            drawn.append(_text(left - 6, y + 4, f"{tick:g}", "end"))
        drawn += [_text(self.x(tick), bottom + 14, f"{tick:g}", "middle") for tick in _ticks(self.first, self.last, most=5)]
        return [*drawn, _text(right, bottom + 28, x_label, "end")]

    def level(self, name: str, value: float, row: int) -> list[str]:
        y, colour = self.y(value), "#555555"
        line = f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" stroke-dasharray="5 4"/>'
        return [line, _legend(name, colour, row)]

    def curve(self, name: str, xs: Sequence[float], ys: Sequence[float], row: int) -> list[str]:
        colour = PALETTE[row % len(PALETTE)]
        points = [(self.x(x), self.y(y)) if math.isfinite(y) else None for x, y in zip(xs, ys, strict=True)]
        pieces = []
        for before, point in zip([None, *points], points, strict=False):
            if point is not None:
                pieces.append(f"{'M' if before is None else 'L'}{point[0]:.1f} {point[1]:.1f}")
        path = f'<path d="{" ".join(pieces)}" fill="none" stroke="{colour}" stroke-width="2"/>'
        dots = [f'<circle cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="3" fill="{colour}"/>' for point in points if point is not None]
        return [path, *dots, _legend(name, colour, row)]


def _legend(name: str, colour: str, row: int) -> str:
    return _text(_WIDTH - _RIGHT + 12, _TOP + 6 + _LINE * row, name, "start", bold=True, fill=colour)
