"""Pictures of predictions: boxes on frames, contact sheets, timelines. Only draws: every number is given by the caller."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    Font: TypeAlias = FreeTypeFont | ImageFont

# Okabe and Ito's palette: told apart with every common form of colour blindness.
GROUND_TRUTH = "#009E73"
PREDICTION = "#D55E00"
POINTED = "#FFFFFF"
"""What a user points at."""
VEIL = 0.45
"""How much of its colour covers what a mask holds."""
PALETTE = (GROUND_TRUTH, PREDICTION, "#0072B2", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")

Box: TypeAlias = tuple[Sequence[float], str, str]  # (x0, y0, x1, y1) in pixels of the frame, label, colour
Mask: TypeAlias = tuple[NDArray[np.bool_], str, float]  # booleans [h, w], colour, veil from 0 to 1
Stroke: TypeAlias = tuple[Sequence[Sequence[float]], str, str]  # [(x, y), ...] in pixels of the frame, label, colour
Windows: TypeAlias = tuple[str, Sequence[Sequence[float]], str]  # name, [[start_sec, end_sec], ...], colour
Curve: TypeAlias = tuple[str, Sequence[float], Sequence[float], str]  # name, times in seconds, values, colour

_INK, _FAINT, _PAPER = "#222222", "#DDDDDD", "#FFFFFF"
_TEXT, _GAP, _ROW, _PANEL, _AXIS, _DOT = 12, 4, 20, 48, 22, 4


def draw_boxes(frame: NDArray[np.uint8], boxes: Sequence[Box], *, scale: int = 1) -> Image:
    """The frame enlarged by nearest neighbour, with labelled box outlines.

    Args:
        frame: uint8 RGB [h, w, 3].
        boxes: (xyxy, label, colour) each; xyxy in pixels of `frame`, the upper edges not included; parts outside are cut off.
        scale: whole-number enlargement, so that the pixels of small clips stay sharp and labels are readable.

    Raises:
        UsageError: the frame is no uint8 RGB picture, the scale is no positive whole number, or a box is not x0 <= x1, y0 <= y1.
    """
    from PIL import Image, ImageDraw

    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise UsageError("frame", expected="uint8 [h, w, 3]", got=f"{frame.dtype} {list(frame.shape)}")
    if scale < 1 or scale != int(scale):
        raise UsageError("scale", expected="a whole number of at least 1", got=scale)
    height, width = frame.shape[:2]
    image = Image.fromarray(frame).resize((width * int(scale), height * int(scale)), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for xyxy, label, colour in boxes:
        if len(xyxy) != 4 or not np.all(np.isfinite(xyxy)) or xyxy[0] > xyxy[2] or xyxy[1] > xyxy[3]:
            raise UsageError("boxes", expected="finite (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1", got=[float(edge) for edge in xyxy])
        left, top, right, bottom = (round(float(edge) * scale) for edge in xyxy)
        draw.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=colour, width=max(2, int(scale) // 2))
        if label:
            _draw_tag(draw, image.size, (left, top), label, colour)
    return image


def draw_strokes(frame: NDArray[np.uint8], strokes: Sequence[Stroke]) -> Image:
    """The frame with labelled strokes: a line through points, and a dot at each.

    Args:
        frame: uint8 RGB [h, w, 3].
        strokes: (points, label, colour) each; points (x, y) in pixels of `frame`, at least one.

    Raises:
        UsageError: the frame is no uint8 RGB picture, or a stroke has no point or one that is not finite.
    """
    from PIL import ImageDraw

    image = draw_boxes(frame, [])
    draw = ImageDraw.Draw(image)
    for points, label, colour in strokes:
        if not points or not np.all(np.isfinite(points)):
            raise UsageError("strokes", expected="finite points (x, y), at least one", got=[list(point) for point in points])
        places = [(float(x), float(y)) for x, y in points]
        draw.line(places, fill=colour, width=2)
        for x, y in places:
            draw.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), fill=colour, outline=_PAPER)
        if label:
            _draw_tag(draw, image.size, (round(places[0][0]) + _DOT, round(places[0][1]) - _DOT), label, colour)
    return image


def draw_masks(frame: NDArray[np.uint8], masks: Sequence[Mask], *, scale: int = 1) -> Image:
    """The frame enlarged by nearest neighbour, each mask as a line along its edge, inside it, and a veil where asked.

    Args:
        frame: uint8 RGB [h, w, 3].
        masks: (mask, colour, veil) each: booleans [h, w], and how much of the colour covers what is inside, from 0 to 1.
        scale: whole-number enlargement.

    Raises:
        UsageError: the frame is no uint8 RGB picture, the scale is no positive whole number, or a mask has another size.
    """
    from PIL import Image, ImageColor
    from scipy.ndimage import binary_erosion

    thick = max(1, scale // 2)
    cross = np.zeros((2 * thick + 1,) * 2, dtype=bool)
    cross[thick] = cross[:, thick] = True
    pixels = np.asarray(draw_boxes(frame, [], scale=scale), dtype=np.float32).copy()
    for mask, colour, veil in masks:
        inside = np.asarray(mask, dtype=bool)
        if inside.shape != frame.shape[:2]:
            raise UsageError("masks", expected=f"booleans {list(frame.shape[:2])}", got=list(inside.shape))
        large = inside.repeat(scale, 0).repeat(scale, 1)
        # beyond the frame counts as inside: its border is no edge
        rim = large & ~binary_erosion(large, cross, border_value=1)
        rgb = np.array(ImageColor.getrgb(colour), dtype=np.float32)
        pixels[large] += veil * (rgb - pixels[large])
        pixels[rim] = rgb
    return Image.fromarray(pixels.round().astype(np.uint8))


def contact_sheet(rows: Sequence[Sequence[Image]], captions: Sequence[str]) -> Image:
    """Rows of pictures from left to right, each below its caption; captions are wrapped to the width of the sheet.

    Raises:
        UsageError: there are no pictures, or not one caption for each row.
    """
    from PIL import Image, ImageDraw

    if len(captions) != len(rows):
        raise UsageError("captions", expected=f"one for each of the {len(rows)} rows", got=len(captions))
    if not rows or not all(rows):
        raise UsageError("rows", expected="at least one row, each with at least one picture", got=[len(row) for row in rows])
    font = _font()
    width = max(sum(image.width + _GAP for image in row) + _GAP for row in rows)
    texts = [list(_wrapped(caption, width - 2 * _GAP, font)) for caption in captions]
    line_height = _TEXT + _GAP
    tops = np.cumsum(
        [0] + [len(text) * line_height + max(im.height for im in row) + 3 * _GAP for row, text in zip(rows, texts, strict=True)]
    )
    sheet = Image.new("RGB", (width, int(tops[-1])), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, text, top in zip(rows, texts, tops[:-1].tolist(), strict=True):
        for number, line in enumerate(text):
            draw.text((_GAP, top + _GAP + number * line_height), line, fill=_INK, font=font)
        left = _GAP
        for image in row:
            sheet.paste(image, (left, top + 2 * _GAP + len(text) * line_height))
            left += image.width + _GAP
    return sheet


def timeline(width: int, duration_sec: float, windows: Sequence[Windows], curves: Sequence[Curve] = ()) -> Image:
    """Windows as bars, one row for each name, over a common time axis, and below it one panel for each curve.

    Each panel spans the finite values of its own curve, least and greatest written beside it, because scores of different
    heads have no common unit. Values that are not finite interrupt the line. Parts outside [0, duration_sec] are cut off.

    Args:
        width: of the picture in pixels.
        duration_sec: length of the axis.
        windows: (name, [[start_sec, end_sec], ...], colour) each; an empty list leaves an empty row.
        curves: (name, times in seconds, values, colour) each.

    Raises:
        UsageError: no room, no positive duration, a window that ends before it starts, or a curve of unequal lengths.

    Source: Figure 7 of the paper. Differs in: rows and panels carry names, so that any number of them can be compared.
    """
    from PIL import Image, ImageDraw

    if width < 120:
        raise UsageError("width", expected="at least 120 pixels", got=width)
    if not (math.isfinite(duration_sec) and duration_sec > 0):
        raise UsageError("duration_sec", expected="a positive time", got=duration_sec)
    font = _font()
    names = [row[0] for row in windows] + [row[0] for row in curves]
    margin = min(max([24, *(math.ceil(font.getlength(name)) + 2 * _GAP for name in names)]), width // 3)
    axis_top = _GAP + len(windows) * _ROW
    image = Image.new("RGB", (width, axis_top + _AXIS + len(curves) * (_PANEL + _GAP)), _PAPER)
    draw = ImageDraw.Draw(image)
    axis = _Axis(margin, width - 2 * _GAP - 1, duration_sec)
    _draw_axis(draw, axis, axis_top, image.height, font)
    for row, (name, spans, colour) in enumerate(windows):
        _draw_windows(draw, axis, _GAP + row * _ROW, name, spans, colour, font)
    for row, (name, times, values, colour) in enumerate(curves):
        _draw_curve(draw, axis, axis_top + _AXIS + row * (_PANEL + _GAP), name, times, values, colour, font)
    return image


def to_data_uri(image: Image) -> str:
    """The picture as a PNG in a base64 data URI, for HTML."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


class _Axis:
    """The map from seconds to the pixel columns left..right (both inclusive)."""

    def __init__(self, left: int, right: int, duration_sec: float) -> None:
        self.left, self.right, self.duration_sec = left, right, duration_sec

    def x(self, time_sec: float) -> float:
        return self.left + (self.right - self.left) * min(max(time_sec / self.duration_sec, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Multiples of 1, 2 or 5 times a power of ten, with room for a label at each."""
        rough = self.duration_sec / max((self.right - self.left) // 60, 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
        return [step * number for number in range(math.floor(self.duration_sec / step + 1e-9) + 1)]


def _font() -> Font:
    from PIL import ImageFont

    return ImageFont.load_default(_TEXT)


def _draw_tag(draw: ImageDraw, size: tuple[int, int], corner: tuple[int, int], label: str, colour: str) -> None:
    """The label on a patch of the box's colour: above the box where there is room, else inside the picture."""
    from PIL import ImageColor

    font = _font()
    width, height = math.ceil(font.getlength(label)) + 2 * _GAP, _TEXT + _GAP
    left = max(min(corner[0], size[0] - width), 0)
    top = max(min(corner[1] - height, size[1] - height), 0)
    draw.rectangle((left, top, left + width - 1, top + height - 1), fill=colour)
    red, green, blue = ImageColor.getrgb(colour)[:3]
    is_light = 0.299 * red + 0.587 * green + 0.114 * blue > 150
    draw.text((left + _GAP, top + height // 2), label, fill="#000000" if is_light else "#FFFFFF", font=font, anchor="lm")


def _wrapped(text: str, width: float, font: Font) -> Iterator[str]:
    """Lines of `text` no wider than `width` pixels, broken between words, and within a word only where it fills a line alone."""
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if font.getlength(joined) <= width:
                line = joined
                continue
            if line:
                yield line
            *full, line = _chopped(word, width, font)
            yield from full
        yield line


def _chopped(word: str, width: float, font: Font) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def _draw_axis(draw: ImageDraw, axis: _Axis, top: int, bottom: int, font: Font) -> None:
    for tick in axis.ticks():
        x = axis.x(tick)
        draw.line((x, 0, x, bottom), fill=_FAINT)
        near_edge = x + font.getlength(f"{tick:g} s") / 2 > axis.right
        draw.text((x, top + _AXIS // 2), f"{tick:g} s", fill=_INK, font=font, anchor="rm" if near_edge else "mm")
    draw.line((axis.left, top, axis.right, top), fill=_INK)


def _draw_windows(draw: ImageDraw, axis: _Axis, top: int, name: str, spans: Sequence[Sequence[float]], colour: str, font: Font) -> None:
    _draw_name(draw, axis, top + _ROW // 2, name, font)
    for start_sec, end_sec in spans:
        if not end_sec >= start_sec:
            raise UsageError("windows", expected=f"windows of {name} that end after they start", got=[float(start_sec), float(end_sec)])
        if end_sec >= 0 and start_sec <= axis.duration_sec:
            draw.rectangle((axis.x(start_sec), top + 3, axis.x(end_sec), top + _ROW - 5), fill=colour)


def _draw_curve(
    draw: ImageDraw, axis: _Axis, top: int, name: str, times: Sequence[float], values: Sequence[float], colour: str, font: Font
) -> None:
    if len(times) != len(values):
        raise UsageError("curves", expected=f"as many values as times in {name} ({len(times)})", got=len(values))
    _draw_name(draw, axis, top + _PANEL // 2, name, font)
    draw.rectangle((axis.left, top, axis.right, top + _PANEL - 1), outline=_FAINT)
    finite = [float(value) for value in values if math.isfinite(value)]
    if not finite:
        return
    low, high = min(finite), max(finite)
    for value, y, anchor in ((high, top, "rt"), (low, top + _PANEL - 1, "rb")):
        draw.text((axis.left - _GAP, y), f"{value:.3g}", fill=_INK, font=font, anchor=anchor)
    previous: tuple[float, float] | None = None
    for time_sec, value in zip(times, values, strict=True):
        if not math.isfinite(value) or not 0 <= time_sec <= axis.duration_sec:
            previous = None
            continue
        share = (float(value) - low) / (high - low) if high > low else 0.5
        point = (axis.x(time_sec), top + _PANEL - 3 - share * (_PANEL - 5))
        # Dots keep single points visible between two that are not drawn.
        draw.ellipse((point[0] - 1, point[1] - 1, point[0] + 1, point[1] + 1), fill=colour)
        if previous:
            draw.line((*previous, *point), fill=colour, width=2)
        previous = point


def _draw_name(draw: ImageDraw, axis: _Axis, middle: int, name: str, font: Font) -> None:
    room = axis.left - 2 * _GAP
    while name and font.getlength(name) > room:
        name = name[:-2] + "…" if len(name) > 1 else ""
    draw.text((_GAP, middle), name, fill=_INK, font=font, anchor="lm")
