"""What there is to draw of an answer: boxes, windows, and masks as pictures to lay over frames. Plain data, made without a browser."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.drawing import PREDICTION, VEIL
from tpo_lab.errors import UsageError
from tpo_lab.rle import decode_rle
from tpo_lab.sample.times import nearest_annotation
from tpo_widgets.content import Resource
from tpo_widgets.film import LONGEST

if TYPE_CHECKING:
    from tpo_lab.answer import Answer


@dataclass(frozen=True)
class AnswerDrawing:
    """An answer, for drawing.

    Attributes:
        answer: as the model gave it.
        number: counts the answers of a pad, so that no two of them share the name of a picture.
        question: that was asked.
    """

    answer: Answer
    number: int = 0
    question: str = ""

    @property
    def document(self) -> dict[str, Any]:
        """JSON: the text, the heads asked, boxes, windows with their scores, and at which times there are masks of how many objects."""
        structured = self.answer.structured
        scores = structured.get("temporal", {}).get("scores") or []
        windows = [[*map(float, window)] for window in self.answer.windows_sec]
        return {
            "number": self.number,
            "question": self.question,
            "text": self.answer.text,
            "routes": list(dict.fromkeys(self.answer.routes)),
            "truncated": self.answer.truncated,
            "boxes": [box for box in map(_finite, self.answer.boxes_xyxy) if box is not None],
            "windows": [window for window in map(_finite, windows) if window is not None],
            "scores": [float(score) for score in scores] if len(scores) == len(windows) and _finite(scores) is not None else [],
            "times": list(self.times_sec),
            "objects": len(self.answer.masks),
            "undrawn": [head for head in structured if head not in ("region", "temporal", "mask")],
        }

    @property
    def times_sec(self) -> tuple[float, ...]:
        """Of the frames with masks."""
        return tuple(float(time) for time in self.answer.structured.get("mask", {}).get("times_sec", ()))

    def at(self, time_sec: float) -> int:
        """Which of the frames with masks speaks of a moment; -1 for none."""
        if not self.times_sec:
            return -1
        nearest, near = nearest_annotation([time_sec], self.times_sec)
        return int(nearest[0]) if near[0] else -1

    def names(self) -> Iterable[str]:
        """Of the pictures of its masks."""
        return (f"mask/{self.number}/{place}" for place in range(len(self.times_sec)))

    def resource(self, place: int) -> Resource:
        """The masks of one frame as a PNG with alpha, and in `about` the box of each object in pixels of the original frame, or None.

        Raises:
            UsageError: there is no such frame, or run lengths that cannot be read.
        """
        if not 0 <= place < len(self.times_sec):
            raise UsageError("mask", expected=f"a number below {len(self.times_sec)}", got=place)
        picture = self.overlay(place)
        file = io.BytesIO()
        if picture is not None:
            picture.save(file, "PNG")
        return Resource(file.getvalue(), {"boxes": self.tracks(place)})

    def tracks(self, place: int) -> list[list[float] | None]:
        """The box of each object on one of the frames with masks."""
        return [None if place >= len(track) or track[place] is None else _finite(track[place] or ()) for track in self.answer.track_xyxy]

    def overlay(self, place: int) -> Any:
        """The same picture as a Pillow image, at most as large as a frame that is looked at; None where no object is visible."""
        from PIL import Image

        seen = [decode_rle("mask", frames[place]) for frames in self.answer.masks if place < len(frames) and frames[place] is not None]
        if not seen:
            return None
        return Image.fromarray(_veiled([_small(mask) for mask in seen]), "RGBA")


def _finite(values: Sequence[float]) -> list[float] | None:
    """Numbers as JSON has them; None where one is none."""
    found = [float(value) for value in values]
    return found if all(map(math.isfinite, found)) else None


def _small(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask no longer than `LONGEST`, by its nearest pixels."""
    scale = max(1.0, max(mask.shape) / LONGEST)
    rows, columns = (((np.arange(max(1, round(side / scale))) + 0.5) * scale).astype(int).clip(0, side - 1) for side in mask.shape)
    return mask[np.ix_(rows, columns)]


def _veiled(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """RGBA of masks of one size: a veil inside, and a line along the edge of each."""
    from PIL import ImageColor
    from scipy.ndimage import binary_erosion

    pixels = np.zeros((*masks[0].shape, 4), np.uint8)
    pixels[..., :3] = ImageColor.getrgb(PREDICTION)
    for mask in masks:
        pixels[mask, 3] = np.maximum(pixels[mask, 3], round(255 * VEIL))
    for mask in masks:
        # beyond the frame counts as inside: its border is no edge
        pixels[mask & ~binary_erosion(mask, border_value=1), 3] = 255
    return pixels
