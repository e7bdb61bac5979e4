"""Choosing frames by time. Header frame counts play no part here: they are wrong for truncated and variable-rate files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A sample time computed in floating point may fall a hair before the timestamp it equals; one microsecond is far below any frame period.
_TIME_TOLERANCE_SEC = 1e-6


def segment_centres(start_sec: float, end_sec: float, num_frames: int) -> NDArray[np.float64]:
    """Centres of `num_frames` equal segments of [start_sec, end_sec], in seconds, [frame].

    Source: the uniform sampling of VideoChat2 and VideoChat-TPO. Differs in: it divides time, not frame numbers.
    """
    return start_sec + (end_sec - start_sec) * (np.arange(num_frames, dtype=np.float64) + 0.5) / num_frames


def displayed_frames(times_sec: NDArray[np.float64], at_sec: NDArray[np.float64]) -> NDArray[np.intp]:
    """Index of the frame a player shows at each time: the last one that has come on display, [time].

    Args:
        times_sec: when each frame comes on display, rising, [frame], at least one.
        at_sec: the times asked for, [time]. Before the first frame the answer is the first frame.
    """
    return np.maximum(np.searchsorted(times_sec, at_sec + _TIME_TOLERANCE_SEC, side="right") - 1, 0)
