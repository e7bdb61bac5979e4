"""Which annotation speaks of a moment."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SLACK_SEC = 1e-6


def nearest_annotation(
    asked_sec: Sequence[float], annotated_sec: Sequence[float], *, lone_reach_sec: float = math.inf
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The annotation nearest to each moment, and whether it speaks of it: no farther than half of the usual step between two of them.

    So a moment in a gap between annotations has none.

    Args:
        asked_sec: moments [moment].
        annotated_sec: times of the annotations, rising, at least one.
        lone_reach_sec: how far a single annotation reaches.

    Returns:
        Places in `annotated_sec` [moment], and which of them count [moment].
    """
    asked, annotated = np.asarray(asked_sec, dtype=float), np.asarray(annotated_sec, dtype=float)
    nearest = np.abs(asked[:, None] - annotated).argmin(1)
    reach = 0.5 * float(np.median(np.diff(annotated))) if len(annotated) > 1 else lone_reach_sec
    return nearest, np.abs(asked - annotated[nearest]) <= reach + _SLACK_SEC
