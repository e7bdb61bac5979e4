"""A view that is as small as one can be: frames of a film, and a box on them. For tests of what all views have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tpo_widgets.content import Moment, Resource
from tpo_widgets.film import Film, film_of_frames
from tpo_widgets.playhead import Playhead
from tpo_widgets.sheet import Sheet
from tpo_widgets.view import View

SIZE_WH, COUNT, BOX = (57, 31), 5, (9.0, 4.0, 30.0, 17.0)
"""No two of these numbers alike."""


@dataclass
class SmallContent:
    """The frames of a film."""

    film: Film

    @property
    def document(self) -> dict[str, Any]:
        return {"size": list(self.film.size_wh), "times": list(self.film.times_sec), "box": list(BOX)}

    def resource(self, name: str) -> Resource:
        return Resource(self.film.jpeg(int(name.partition("/")[2])), {"number": int(name.partition("/")[2])})

    def names(self) -> Iterable[str]:
        return (f"frame/{number}" for number in range(len(self.film)))

    def picture(self, moment: Moment, *, dark: bool, width: int) -> Any:
        sheet = Sheet(width, 60, dark=dark)
        sheet.text(8, 20, f"{moment.time_sec:g} s")
        return sheet.image


class SmallView(View):
    """Shows frames and a box."""

    front = "frame_view"

    def __init__(self, frames: Any = None, *, theme: str = "auto", playhead: Playhead | None = None) -> None:
        super().__init__(lambda: SmallContent(film_of_frames(some_frames() if frames is None else frames)), theme=theme, playhead=playhead)


def some_frames(count: int = COUNT) -> Any:
    """Frames of one colour each."""
    frames = np.zeros((count, SIZE_WH[1], SIZE_WH[0], 3), np.uint8)
    frames[..., 2] = np.linspace(40, 240, count)[:, None, None]
    return frames
