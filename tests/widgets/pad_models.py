"""What is drawn on in the tests of PromptPad, and models that answer what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tpo_lab.answer import Answer
from tpo_lab.errors import TPOError
from tpo_lab.rle import encode_rle

SIZE_WH, COUNT = (57, 31), 5
TIMES_SEC = (0.0, 0.5, 1.0, 1.5, 2.0)
PATCH_XYXY = (20, 9, 41, 22)
"""Where the frames have a yellow patch on blue."""
REGION = {"region": {"boxes_xyxy": [[8.0, 5.0, 30.0, 14.0]]}}
TEMPORAL = {"temporal": {"windows_sec": [[0.5, 1.25], [1.5, 2.0]], "scores": [0.75, 0.25], "saliency": []}}


def patch_frames(count: int = COUNT) -> Any:
    """Blue frames with a yellow patch."""
    frames = np.zeros((count, SIZE_WH[1], SIZE_WH[0], 3), np.uint8)
    frames[..., 2] = 160
    x0, y0, x1, y1 = PATCH_XYXY
    frames[:, y0:y1, x0:x1] = (240, 220, 0)
    return frames


def mask_answer() -> dict[str, Any]:
    """One object on two frames, another on the second alone; no two sides are alike."""
    first, second = (np.zeros(SIZE_WH[::-1], bool) for _ in range(2))
    first[4:10, 7:25], second[15:28, 33:40] = True, True
    masks = [[encode_rle(first), encode_rle(first)], [None, encode_rle(second)]]
    boxes = [[[7.0, 4.0, 25.0, 10.0]] * 2, [None, [33.0, 15.0, 40.0, 28.0]]]
    return {"mask": {"times_sec": [1.0, 1.5], "masks": masks, "track_xyxy": boxes, "scores": [[0.9, 0.8], [0.1, 0.7]]}}


class Fake:
    """Answers like a `TPOModel`, and keeps what it was asked.

    Args:
        structured: of its answer.
        text: of its answer, told word by word.
        meanwhile: called while it answers.
    """

    def __init__(
        self, structured: dict[str, Any] | None = None, text: str = "Here it is.", meanwhile: Callable[[], None] | None = None
    ) -> None:
        self.structured, self.text, self.meanwhile, self.asked = structured or {}, text, meanwhile, []

    def answer(self, video: str, question: str, *, on_text: Callable[[str], None], **options: Any) -> Answer:
        """What it was made with."""
        self.asked.append((video, question, options))
        for place, word in enumerate(self.text.split()):
            on_text(f" {word}" if place else word)
        if self.meanwhile is not None:
            self.meanwhile()
        return Answer(self.text, tuple(self.structured), self.structured)


class Failing:
    """Raises in place of an answer."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error or TPOError("The model has a headache.")

    def answer(self, video: str, question: str, **options: Any) -> Answer:
        """Never comes."""
        raise self.error
