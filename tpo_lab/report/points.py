"""Points that a head predicted, over the frame that was asked about, beside the true box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tpo_lab.drawing import GROUND_TRUTH, PALETTE, contact_sheet, draw_boxes, draw_strokes
from tpo_lab.report.pictures import strip

if TYPE_CHECKING:
    from PIL.Image import Image

    from tpo_lab.sample import Sample

COLOURS = PALETTE[1:]
"""Of the points of each model, in order."""
_SCALE = 3


def point_picture(sample: Sample, points: Mapping[str, Sequence[float] | None], box_xyxy: Sequence[float] = ()) -> Image:
    """The last frame of a clip once for each prediction, with a labelled dot, and the true box; the question is the caption.

    Args:
        sample: whose question and clip are shown.
        points: name of what predicted it -> (x, y) in pixels of the original frame, or None where it predicted nothing.
        box_xyxy: what is true, in the same pixels; none where empty.
    """
    shown = strip(sample, longest=128)
    boxes = [([shown.scale * edge for edge in box_xyxy], "", GROUND_TRUTH)] if len(box_xyxy) else []
    frame = np.asarray(draw_boxes(shown.frames[-1], boxes, scale=_SCALE))
    dots = [[] if point is None else [[_SCALE * shown.scale * value for value in point]] for point in points.values()]
    tiles = [
        draw_strokes(frame, [(dot, name, COLOURS[place % len(COLOURS)])] if dot else [])
        for place, (name, dot) in enumerate(zip(points, dots, strict=True))
    ]
    return contact_sheet([tiles], [sample.conversation[0].text])
