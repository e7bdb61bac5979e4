"""How well one score tells two groups apart: the area under the ROC curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpo_lab.errors import UsageError

Floats = NDArray[np.float64]


def auroc(positive: ArrayLike, negative: ArrayLike) -> float:
    """The chance in [0, 1] that a positive has a higher score than a negative, equal scores counted half; 0.5 is no better than a coin.

    Args:
        positive: scores of one group [sample], in any unit; infinite ones have their place in the order.
        negative: scores of the other group [sample].

    Raises:
        UsageError: a group is empty or not [sample], or a score is NaN.

    Source: the rank formula, U / (positives * negatives) with U of Mann and Whitney.
    """
    higher, lower = _scores("positive", positive), np.sort(_scores("negative", negative))
    below = np.searchsorted(lower, higher, side="left") + np.searchsorted(lower, higher, side="right")
    return float(below.sum() / (2 * len(higher) * len(lower)))


def _scores(name: str, values: ArrayLike) -> Floats:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not len(scores) or np.isnan(scores).any():
        raise UsageError(name, expected="one or more scores, none of them NaN", got=scores.tolist())
    return scores
