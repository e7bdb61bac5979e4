"""Which annotation speaks of a moment."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SLACK_SEC = 1e-6


def nearest_annotation(
    asked_sec: Sequence[float], annotated_sec: Sequence[float], *, reach_sec: float | None = None, lone_reach_sec: float = math.inf
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The annotation nearest to each moment, the earlier of two, and whether it speaks of it: no farther than it reaches.

    By default it reaches half of the usual step between two annotations, so a moment in a gap between them has none.

    Args:
        asked_sec: moments [moment].
        annotated_sec: times of the annotations, rising, at least one.
        reach_sec: how far every annotation reaches; None for half of their usual step.
        lone_reach_sec: how far a single annotation reaches where that step would say it.

    Returns:
        Places in `annotated_sec` [moment], and which of them count [moment].
    """
    asked, annotated = np.asarray(asked_sec, dtype=float), np.asarray(annotated_sec, dtype=float)
    later = np.searchsorted(annotated, asked).clip(max=len(annotated) - 1)
    earlier = (later - 1).clip(min=0)
    nearest = np.where(np.abs(annotated[earlier] - asked) <= np.abs(annotated[later] - asked), earlier, later)
    if reach_sec is None:
        reach_sec = 0.5 * float(np.median(np.diff(annotated))) if len(annotated) > 1 else lone_reach_sec
    return nearest, np.abs(asked - annotated[nearest]) <= reach_sec + _SLACK_SEC
