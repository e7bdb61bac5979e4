"""Frames with rulers and times, from which a person reads boxes in pixels and moments in seconds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

TICK, LONG_TICK = 4, 16
"""Pixels of the frame between two marks of a ruler, and between two that carry a number."""
MARGIN = 26
"""Pixels of the picture that each ruler takes, left and above."""
_EDGE = 10
"""And for the last number of each, right and below."""
_INK, _PAPER = "#222222", "#FFFFFF"


def ruled_picture(path: str | os.PathLike[str], time_sec: float, *, scale: int = 8) -> Image:
    """One frame, enlarged, with rulers in pixels of the video along its upper and left edge.

    The corner of the frame is (0, 0); pixel x of the frame begins `MARGIN + scale * x` pixels from the left of the picture.

    Args:
        path: of a video or an image.
        time_sec: the frame shown at that time is taken, the last one behind the end.
        scale: whole-number enlargement.

    Raises:
        UsageError: the media cannot be read, or `scale` is no positive whole number.
    """
    from PIL import Image, ImageDraw

    if scale < 1 or scale != int(scale):
        raise UsageError("scale", expected="a whole number of at least 1", got=scale)
    (frame,) = _frames(path, [time_sec])
    height, width = frame.shape[:2]
    picture = Image.new("RGB", (MARGIN + scale * width + _EDGE, MARGIN + scale * height + _EDGE), _PAPER)
    picture.paste(Image.fromarray(frame).resize((scale * width, scale * height), Image.Resampling.NEAREST), (MARGIN, MARGIN))
    draw = ImageDraw.Draw(picture)
    for place in range(0, max(width, height) + 1, TICK):
        is_long = place % LONG_TICK == 0
        start, at = MARGIN - (9 if is_long else 5), MARGIN + scale * place
        if place <= width:
            draw.line((at, start, at, MARGIN - 1), fill=_INK)
            _number(draw, is_long, (at, 8), place)
        if place <= height:
            draw.line((start, at, MARGIN - 1, at), fill=_INK)
            _number(draw, is_long, (9, at), place)
    return picture


def film_strip(path: str | os.PathLike[str], *, step_sec: float = 0.5, columns: int = 6, width: int = 120) -> Image:
    """Frames at equal steps of time, in rows, each below its time in seconds.

    Args:
        path: of a video.
        step_sec: between two frames; the first is at 0.
        columns: frames in a row.
        width: of each frame in the picture, pixels.

    Raises:
        UsageError: the media cannot be read, or a step or a number of columns that is not positive.
    """
    from PIL import Image

    from tpo_lab.drawing import contact_sheet
    from tpo_lab.video import open_source

    if step_sec <= 0 or columns < 1:
        raise UsageError("step_sec, columns", expected="positive numbers", got=(step_sec, columns))
    times = np.arange(0, open_source(path).duration_sec - 1e-6, step_sec).tolist()
    tiles = []
    for frame, time_sec in zip(_frames(path, times), times, strict=True):
        tile = Image.fromarray(frame).resize((width, max(1, round(width * frame.shape[0] / frame.shape[1]))))
        tiles.append(_captioned(tile, f"{time_sec:g} s"))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    return contact_sheet(rows, [""] * len(rows))


def _frames(path: str | os.PathLike[str], times_sec: Sequence[float]) -> list[NDArray[np.uint8]]:
    from tpo_lab.video import displayed_frames, open_source

    source = open_source(path)
    chosen = displayed_frames(source.times_sec, np.asarray(times_sec, dtype=np.float64)).tolist()
    decoded = dict(source.decode(sorted(set(chosen)), lambda picture: picture))
    found = [decoded.get(frame, "no such frame") for frame in chosen]
    for frame in found:
        if isinstance(frame, str):
            raise UsageError(os.fspath(path), expected="frames that decode", got=frame)
    return [frame for frame in found if not isinstance(frame, str)]


def _number(draw: object, is_long: bool, middle: tuple[int, int], value: int) -> None:
    if is_long:
        draw.text(middle, str(value), fill=_INK, anchor="mm")  # type: ignore[attr-defined]


def _captioned(tile: Image, text: str) -> Image:
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (tile.width, tile.height + 16), _PAPER)
    picture.paste(tile, (0, 16))
    ImageDraw.Draw(picture).text((tile.width / 2, 8), text, fill=_INK, anchor="mm")
    return picture
