"""What every chart is made of: SVG text, its colours, texts, ticks and legends. It needs no script and no font."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from tpo_lab.drawing import PALETTE

INK, PALE_INK, FAINT, BAND = "#222222", "#7a828c", "#d9dde3", "#f3f5f8"
LETTER = 6.4
"""Pixels that a letter takes, about."""


class Svg(str):
    """SVG source that Jupyter shows as a picture."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Axis:
    """From values to pixels; an axis without extent gets one.

    Attributes:
        low, high: values at its two ends.
        start, end: their pixels; the end of an axis that goes up is the smaller one.
    """

    low: float
    high: float
    start: float
    end: float

    def __post_init__(self) -> None:
        if self.high <= self.low:
            object.__setattr__(self, "high", self.low + 1.0)

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 4) -> list[float]:
        """Round values along it."""
        return ticks(self.low, self.high, most)


def document(size: tuple[float, float], title: str, inside: str) -> Svg:
    """A picture of some width and height in pixels, which are rounded up; the title is what a screen reader says."""
    width, height = map(math.ceil, size)
    return Svg(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="{INK}"><title>{escape(title)}</title>{inside}</svg>'
    )


def text(x: float, y: float, words: str, anchor: str, *, bold: bool = False, fill: str = INK, upright: bool = False) -> str:
    """Words with their foot at (x, y), in pixels.

    Args:
        x: of what `anchor` says: "start", "middle" or "end".
        y: of the foot of the letters.
        words: as they are; markup in them is shown.
        anchor: which part of the words is at x.
        bold: heavier letters.
        fill: colour.
        upright: turned, to be read from below.
    """
    style = (' font-weight="600"' if bold else "") + (f' transform="rotate(-90 {x:g} {y:g})"' if upright else "")
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{fill}"{style}>{escape(words)}</text>'


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten inside [low, high]."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(step * number, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def colour_of(number: int) -> str:
    """The colour of a line or a series by its place; the first are not those of truth and prediction."""
    return PALETTE[(number + 2) % len(PALETTE)]


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, in their order."""
    return {name: colour_of(number) for number, name in enumerate(names)}


def legend(colours: Mapping[str, str], left: float, top: float, width: float = math.inf) -> tuple[str, float]:
    """A square and a name for each colour, in as many lines as the width needs.

    Returns:
        The parts, and where they end below, in pixels.
    """
    parts, x, y = [], left, top
    for name, colour in colours.items():
        length = 14 + LETTER * len(name)
        if x > left and x + length > left + width:
            x, y = left, y + 15
        parts.append(f'<rect x="{x:.1f}" y="{y:g}" width="10" height="10" fill="{colour}"/>{text(x + 14, y + 9, name, "start")}')
        x += length + 14
    return "".join(parts), y + 10
