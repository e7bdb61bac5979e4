"""Metrics of grounded question answering (NExT-GQA): how well a span meets, and lies inside, the spans that hold the answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpo_lab.errors import UsageError


def grounding(pred_span: ArrayLike, true_spans: ArrayLike) -> tuple[float, float]:
    """IoU and IoP (intersection over the predicted length) in [0, 1], each its own maximum over the true spans.

    A predicted span without length has IoU 0, and IoP 1 where it lies in a true span (ends included), else 0. A reversed one has 0
    and 0. IoU is over the hull.

    Args:
        pred_span: (start, end) in seconds.
        true_spans: [span, 2] in seconds, one or more.

    Raises:
        UsageError: another shape, or a value that is not finite.

    Source: NExT-GQA, evaluation of grounding.
    """
    span = np.asarray(pred_span, dtype=np.float64)
    true: NDArray[np.float64] = np.asarray(true_spans, dtype=np.float64)
    if span.shape != (2,) or not np.isfinite(span).all():
        raise UsageError("pred_span", expected="a finite start and end", got=span.tolist())
    if true.ndim != 2 or true.shape[1] != 2 or not len(true) or not np.isfinite(true).all():
        raise UsageError("true_spans", expected="one or more finite spans [span, 2]", got=true.tolist())
    start, end = span
    if start == end:
        return 0.0, float(((true[:, 0] <= start) & (start <= true[:, 1])).any())
    if start > end:
        return 0.0, 0.0
    overlap = np.clip(np.minimum(true[:, 1], end) - np.maximum(true[:, 0], start), 0, None)
    hull = np.maximum(true[:, 1], end) - np.minimum(true[:, 0], start)
    return float((overlap / hull).max()), float((overlap / (end - start)).max())
