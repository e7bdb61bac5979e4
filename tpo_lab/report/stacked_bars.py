"""Stacked bars as SVG: what each of several things is made up of."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tpo_lab.drawing import PALETTE
from tpo_lab.errors import UsageError
from tpo_lab.report.charts import FAINT, Svg, _document, _text, _ticks

_LEFT, _BAR_WIDTH, _RIGHT = 150, 470, 80
_TOP, _ROW, _BAR, _BOTTOM = 50, 30, 20, 30
_LETTER = 6.5
"""Pixels that a letter takes, about."""


def bar_chart(bars: Mapping[str, Mapping[str, float]], title: str, *, unit: str = "") -> Svg:
    """Horizontal bars on one scale, each with its parts one after the other and their sum behind.

    Args:
        bars: name of each bar -> its parts by name, from 0 up. A part has the same colour in every bar.
        title: what is drawn.
        unit: of the values, below the axis.

    Raises:
        UsageError: there is no bar, no part, or a part that is negative or not finite.
    """
    parts = list(dict.fromkeys(name for row in bars.values() for name in row))
    if not parts:
        raise UsageError("bars", expected="at least one bar with a part", got=dict(bars))
    for name, row in bars.items():
        for part, value in row.items():
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"bars[{name!r}][{part!r}]", expected="a finite number from 0 up", got=value)
    if len(parts) > len(PALETTE):
        raise UsageError("bars", expected=f"at most {len(PALETTE)} different parts, as there are colours", got=len(parts))
    colours = dict(zip(parts, PALETTE, strict=False))
    scale = max(sum(row.values()) for row in bars.values()) or 1.0
    bottom = _TOP + _ROW * len(bars)
    drawn = [_text(8, 16, title, "start", bold=True), *_legend(colours), *_axis(scale, bottom, unit)]
    for number, (name, row) in enumerate(bars.items()):
        drawn += _bar(name, row, colours, scale, _TOP + _ROW * number)
    return _document((_LEFT + _BAR_WIDTH + _RIGHT, bottom + _BOTTOM), title, "".join(drawn))


def _legend(colours: Mapping[str, str]) -> list[str]:
    x, drawn = 8.0, []
    for name, colour in colours.items():
        drawn.append(f'<rect x="{x:g}" y="27" width="10" height="10" fill="{colour}"/>')
        drawn.append(_text(x + 14, 36, name, "start"))
        x += 14 + _LETTER * len(name) + 14
    return drawn


def _axis(scale: float, bottom: float, unit: str) -> list[str]:
    drawn = []
    for tick in _ticks(0.0, scale):
        x = _LEFT + _BAR_WIDTH * tick / scale
        drawn.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{bottom}" stroke="{FAINT}"/>')
        drawn.append(_text(x, bottom + 14, f"{tick:g}", "middle"))
    return [*drawn, _text(_LEFT + _BAR_WIDTH + _RIGHT - 8, bottom + 14, unit, "end")]


def _bar(name: str, row: Mapping[str, float], colours: Mapping[str, str], scale: float, y: float) -> list[str]:
    middle = y + _BAR / 2 + 4
    drawn, x = [_text(_LEFT - 8, middle, name, "end")], float(_LEFT)
    for part, value in row.items():
        width = _BAR_WIDTH * value / scale
        label = f"<title>{_plain(value)}</title>"
        drawn.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colours[part]}">{label}</rect>')
        x += width
    return [*drawn, _text(x + 6, middle, _plain(sum(row.values())), "start", bold=True)]


def _plain(value: float) -> str:
    """Three digits, with thousands apart and no exponent."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
