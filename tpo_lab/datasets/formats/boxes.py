"""What the four numbers of a box mean in each data set: corners or a size, pixels or parts of the frame; all to corners in pixels and back.

Pixels are those of the original frame, x to the right and y down, (0, 0) the frame's corner; (x1, y1) lies on the box's far edge, so that
a box over the whole frame ends at (width, height). Not here: boxes as tensors, and boxes of masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from tpo_lab.datasets.formats.format import Source
from tpo_lab.errors import UsageError
from tpo_lab.files import BadRecord, Floats, Record, numbers

Size = tuple[int, int]
"""Width and height of a frame in pixels."""

CUT = "box cut at the edge of its frame"
LONGEST_SIDE_PX = 65_535
"""No side of a frame is longer: more does not fit into a JPEG."""
LARGEST_PX = 2**28
"""No frame has more pixels, so that a mask of a size that somebody invented cannot fill the memory."""
_NOISE_PX = 1e-6


@dataclass(frozen=True)
class Convention:
    """How a data set writes a box.

    Attributes:
        order: "xyxy" for two corners, "xywh" for the upper left corner, width and height.
        scale: the number that stands for the far edge of the frame; None where the numbers are pixels.
        padded: the frame is the smallest square around the image, which stands in its middle (half a pixel to the left or above where
            the padding is odd), and the numbers count from the square's corner.
    """

    order: Literal["xyxy", "xywh"]
    scale: float | None = None
    padded: bool = False

    def to_pixels(self, boxes: ArrayLike, size: Size | None) -> Floats:
        """Boxes [..., 4] in this convention as corners xyxy [..., 4] in pixels; neither cut nor checked.

        Raises:
            UsageError: the convention counts in parts of the frame, whose size is not given.
        """
        given = np.asarray(boxes, dtype=np.float64)
        first = given[..., :2]
        second = given[..., 2:] if self.order == "xyxy" else first + given[..., 2:]
        unit, shift = self._grid(size)
        return np.concatenate([first * unit - shift, second * unit - shift], axis=-1)

    def from_pixels(self, boxes_xyxy: ArrayLike, size: Size | None) -> Floats:
        """Corners xyxy [..., 4] in pixels as boxes [..., 4] in this convention, not rounded; undoes `to_pixels`."""
        given = np.asarray(boxes_xyxy, dtype=np.float64)
        unit, shift = self._grid(size)
        first, second = (given[..., :2] + shift) / unit, (given[..., 2:] + shift) / unit
        return np.concatenate([first, second if self.order == "xyxy" else second - first], axis=-1)

    def _grid(self, size: Size | None) -> tuple[Floats, Floats]:
        """Pixels a unit, and how many pixels of padding stand left and above: (x, y) each."""
        if size is None:
            if self.scale is not None or self.padded:
                raise UsageError("size", expected="the frame's width and height, of which the boxes give parts", got=None)
            return np.ones(2), np.zeros(2)
        sides = np.array(size, dtype=np.float64)
        frame = np.full(2, sides.max()) if self.padded else sides
        unit = np.ones(2) if self.scale is None else frame / self.scale
        return unit, (frame - sides) // 2


PIXELS_XYXY = Convention("xyxy")
PIXELS_XYWH = Convention("xywh")
UNIT_XYXY = Convention("xyxy", scale=1)
UNIT_XYWH = Convention("xywh", scale=1)
UNIT_SQUARE_XYXY = Convention("xyxy", scale=1, padded=True)
AS_V2_XYXY = Convention("xyxy", scale=999)
"""Whole numbers from 0 to 999, where 999 is the far edge."""
AS_V2_SQUARE_XYXY = Convention("xyxy", scale=999, padded=True)


def boxes_in(
    record: Record, field: str, value: object, convention: Convention, size: Size | None, source: Source
) -> list[tuple[float, float, float, float]]:
    """A list of boxes as corners xyxy in pixels, each cut at the edge of its frame, which counts as an adjustment.

    Args:
        record: that holds them.
        field: where they stand in it, for errors.
        value: the list.
        convention: what their numbers mean.
        size: of the frame; None where it is not known: only what is left of it or above is cut off then.
        source: counts what was cut.

    Raises:
        BadRecord: something else than four finite numbers (rule `numbers`), a box without area (`box_area`), or one that lies wholly
            outside its frame (`box_in_frame`).
    """
    found = numbers(record.where, value, 4, field=field)
    with np.errstate(over="ignore", invalid="ignore"):
        corners = convention.to_pixels(found, size)
    made = []
    for place, (given, box) in enumerate(zip(found, corners, strict=True)):
        made.append(_within(record, f"{field}[{place}]", given, box, size, source))
    return made


def box_in(
    record: Record, field: str, value: object, convention: Convention, size: Size | None, source: Source
) -> tuple[float, float, float, float]:
    """One box of four numbers, see `boxes_in`."""
    try:
        return boxes_in(record, field, [value], convention, size, source)[0]
    except BadRecord as bad:
        raise BadRecord(bad.where, field, rule=bad.rule, expected=bad.expected, got=bad.got) from None


def frame_size(record: Record) -> Size:
    """The fields `width` and `height`, in whole pixels.

    Raises:
        BadRecord: one is missing, or is no size of an image (rule `frame_size`).
    """
    sides = [record.integer(name) for name in ("width", "height")]
    for name, side in zip(("width", "height"), sides, strict=True):
        if not 0 < side <= LONGEST_SIDE_PX:
            raise record.bad(name, "frame_size", f"1 to {LONGEST_SIDE_PX} pixels", side)
    if sides[0] * sides[1] > LARGEST_PX:
        raise record.bad("width", "frame_size", f"at most {LARGEST_PX} pixels in all", f"{sides[0]} x {sides[1]}")
    return sides[0], sides[1]


def _within(record: Record, field: str, given: Floats, box: Floats, size: Size | None, source: Source) -> tuple[float, float, float, float]:
    if not np.isfinite(box).all() or not (box[:2] < box[2:]).all():
        raise record.bad(field, "box_area", "a box with a width and a height above 0", given.tolist())
    limit = np.full(2, np.inf) if size is None else np.array(size, dtype=np.float64)
    low, high = np.clip(box[:2], 0, limit), np.clip(box[2:], 0, limit)
    if not (low < high).all():
        edge = "" if size is None else f" of {size[0]} x {size[1]} pixels"
        raise record.bad(field, "box_in_frame", f"a box that reaches into its frame{edge}", given.tolist())
    cut = np.concatenate([low, high])
    if (np.abs(cut - box) > _NOISE_PX).any():
        source.adjusted[CUT] += 1
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
