"""What a decoder has to offer so that `read_clip` can sample it: an index by time, and pictures by index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""One upright RGB frame, uint8 [h, w, 3]."""


class Source(Protocol):
    """An opened video or image sequence; a new decoder is one more class with these members."""

    @property
    def times_sec(self) -> NDArray[np.float64]:
        """When each frame comes on display, [frame], rising; 0 is the first frame."""

    @property
    def duration_sec(self) -> float:
        """When the last frame goes off display."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Faults of the whole file, such as a truncation; empty for a healthy one."""

    def decode(self, frames: Sequence[int], fit: Callable[[Picture], Picture]) -> Iterator[tuple[int, Picture | str]]:
        """Yield `fit(picture)`, or the reason why the picture cannot be trusted, for every index in `frames`.

        Reasons may come for other indices too, where the decoder learnt of them on its way.

        Args:
            frames: distinct indices into `times_sec`.
            fit: applied to each upright picture at once, so that full-size pictures need not be held.
        """
