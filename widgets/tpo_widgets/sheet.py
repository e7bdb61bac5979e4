"""A sheet to draw a view's picture on: text, boxes, lines and pictures in the colours of a theme."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image


class Theme(NamedTuple):
    """Colours of paper and ink; the front end has the same in `front/base.css`."""

    paper: str
    panel: str
    ink: str
    soft: str
    line: str


LIGHT = Theme("#ffffff", "#f3f5f8", "#1f2328", "#57606a", "#d0d7de")
DARK = Theme("#16181d", "#22262e", "#e6e8eb", "#a2abb6", "#3d444d")


class Sheet:
    """A picture to be drawn on; lengths in pixels, origin at the upper left.

    Args:
        width: of the picture.
        height: of the picture.
        dark: whether on a dark ground.
    """

    def __init__(self, width: float, height: float, *, dark: bool = False) -> None:
        from PIL import Image, ImageDraw

        self.theme = DARK if dark else LIGHT
        self.image: Image.Image = Image.new("RGB", (max(1, round(width)), max(1, round(height))), self.theme.paper)
        self._draw = ImageDraw.Draw(self.image, "RGBA")

    def text(
        self, x: float, y: float, words: str, *, anchor: str = "ls", size: int = 12, fill: str | None = None, width: float | None = None
    ) -> None:
        """Words at a place; `anchor` as Pillow has it ("la" left and top, "mm" the middle). With `width`, what does not fit is cut."""
        if width is not None:
            words = fitted(words, width, size)
        self._draw.text((x, y), words, fill=fill or self.theme.ink, font=font(size), anchor=anchor)

    def box(
        self, xyxy: Sequence[float], *, fill: str | None = None, outline: str | None = None, width: int = 1, opacity: float = 1.0
    ) -> None:
        """A rectangle; the right and lower edges are not included."""
        x0, y0, x1, y1 = xyxy
        place = (round(x0), round(y0), max(round(x0), round(x1) - 1), max(round(y0), round(y1) - 1))
        self._draw.rectangle(place, fill=_rgba(fill, opacity), outline=outline, width=width)

    def line(self, points: Sequence[tuple[float, float]], *, fill: str | None = None, width: int = 1) -> None:
        """A line through points."""
        self._draw.line([*points], fill=fill or self.theme.ink, width=width, joint="curve")

    def dot(self, x: float, y: float, radius: float, *, fill: str | None = None) -> None:
        """A filled circle."""
        self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill or self.theme.ink)

    def paste(self, picture: Image, x: float, y: float) -> None:
        """A picture with its upper left corner at a place."""
        self.image.paste(picture, (round(x), round(y)))


@cache
def font(size: int = 12) -> Any:
    """Pillow's own font, which every installation has."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def text_width(words: str, size: int = 12) -> float:
    """Pixels that words take."""
    return float(font(size).getlength(words))


def fitted(words: str, width: float, size: int = 12) -> str:
    """Words cut to a width, with an ellipsis where something is missing."""
    if text_width(words, size) <= width:
        return words
    while words and text_width(words + "…", size) > width:
        words = words[:-1]
    return words + "…"


def wrapped(words: str, width: float, size: int = 12) -> list[str]:
    """Words in lines of at most a width; a word that is longer has a line of its own."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _rgba(colour: str | None, opacity: float) -> tuple[int, int, int, int] | None:
    from PIL import ImageColor

    if colour is None:
        return None
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return red, green, blue, round(255 * opacity)
