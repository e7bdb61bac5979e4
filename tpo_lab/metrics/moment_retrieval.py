"""Metrics of ranked windows: average precision of moment retrieval, recall at K, and the length ranges of QVHighlights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpo_lab.errors import UsageError
from tpo_lab.metrics.temporal import aligned_window_iou, broadcast_window_iou

Floats = NDArray[np.float64]

AP_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""IoU 0.5 to 0.95 in steps of 0.05."""

AP_WINDOWS = 10
"""So many windows of a query count in average precision."""

LENGTH_RANGES_SEC = {"short": (0.0, 10.0), "middle": (10.0, 30.0), "long": (30.0, 150.0)}
"""Ranges (above, up to and with) of the length of true windows in seconds; "full" takes every window, longer ones too."""


def average_precisions(
    pred_windows: Sequence[ArrayLike],
    true_windows: Sequence[ArrayLike],
    *,
    thresholds: Sequence[float] = AP_THRESHOLDS,
    undefined_iou: float = 0.0,
) -> Floats:
    """Average precision [query, threshold] in [0, 1] of ranked windows.

    The first `AP_WINDOWS` windows of a query *as given* are kept, then sorted by falling score, equal scores as given. At each threshold,
    independently, a window takes the untaken true window with the largest IoU >= t (equal IoUs: the later one) and is a hit, or is
    a false alarm. Precision is made non-increasing over recall and summed over the steps of recall (VOC 2011). No window: 0.

    Args:
        pred_windows: per query (start, end, score) in seconds [rank, 3]; [] where the model gave none.
        true_windows: per query (start, end) in seconds [window, 2], one or more.
        thresholds: IoUs above 0.
        undefined_iou: the IoU of two windows whose lengths add up to 0: two without length, or a predicted one that ends as long before
            its start as the true one is long. The official code divides 0 by 0 and takes that for a hit at every threshold, before any
            other: `math.inf` does so too.

    Raises:
        UsageError: the numbers of queries differ or are 0, an array has another shape, a value is not finite, or a query has no
            true window.

    Source: moment_detr, standalone_eval.
    Differs in: `undefined_iou` is 0 unless one says otherwise.
    """
    if len(pred_windows) != len(true_windows) or not len(true_windows):
        raise UsageError(
            "pred_windows", expected=f"one entry per query, at least one (queries: {len(true_windows)})", got=len(pred_windows)
        )
    predicted, given = _padded("pred_windows", [np.asarray(rows, dtype=np.float64)[:AP_WINDOWS] for rows in pred_windows], 3)
    true, is_true = _padded("true_windows", [np.asarray(rows, dtype=np.float64) for rows in true_windows], 2)
    if not is_true.any(1).all():
        raise UsageError(f"true_windows[{int((~is_true.any(1)).argmax())}]", expected="one or more windows", got=[])
    order = np.argsort(np.where(given, -predicted[..., 2], np.inf), axis=1, kind="stable")
    ranked = np.take_along_axis(predicted[..., :2], order[..., None], axis=1)[:, :, None]
    ious = broadcast_window_iou(ranked, true[:, None])
    ious[_have_no_union(ranked, true[:, None])] = undefined_iou
    hits = _greedy_hits(np.where(given[:, :, None] & is_true[:, None, :], ious, -1.0), np.asarray(thresholds, dtype=np.float64))
    found = hits.cumsum(1)
    precision = np.where(given[:, :, None], found / np.arange(1, hits.shape[1] + 1)[:, None], 0.0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    steps = np.diff(found / is_true.sum(1)[:, None, None], axis=1, prepend=0.0)
    areas: Floats = (steps * envelope).sum(1)
    return areas


def ranked_scores(pred_windows: Sequence[ArrayLike], true_windows: Sequence[ArrayLike]) -> dict[str, float]:
    """Moment retrieval of ranked windows: `map`, the mean over queries and `AP_THRESHOLDS`, and `map@0.5` and `map@0.75` alone.

    Args:
        pred_windows: as in `average_precisions`.
        true_windows: as in `average_precisions`.

    Raises:
        UsageError: as `average_precisions`.

    Source: moment_detr, standalone_eval (MR-mAP), fractions instead of percent.
    """
    precisions = average_precisions(pred_windows, true_windows)
    named = {f"map@{threshold:g}": float(precisions[:, AP_THRESHOLDS.index(threshold)].mean()) for threshold in (0.5, 0.75)}
    return {"map": float(precisions.mean()), **named}


def hits_at(pred_windows: Sequence[ArrayLike], true_windows: ArrayLike, *, count: int, threshold: float) -> NDArray[np.bool_]:
    """Whether [query] one of the first `count` windows of a query has an IoU > threshold with its one true window; [] never does.

    Args:
        pred_windows: per query (start, end) in seconds [rank, 2], best first; the order is taken as given.
        true_windows: (start, end) in seconds [query, 2]; one without length is never met.
        count: K of recall at K.
        threshold: the IoU that a hit exceeds.

    Raises:
        UsageError: as `aligned_window_iou`.

    Source: Ego4D episodic memory, NLQ evaluation.
    """
    true = np.asarray(true_windows, dtype=np.float64).reshape(-1, 2)
    kept = [np.asarray(rows, dtype=np.float64).reshape(-1, 2)[:count] for rows in pred_windows]
    if len(kept) != len(true):
        raise UsageError("pred_windows", expected=f"one entry per true window ({len(true)})", got=len(kept))
    query = np.repeat(np.arange(len(kept)), [len(rows) for rows in kept])
    ious = aligned_window_iou(np.concatenate(kept), true[query]) if len(query) else np.zeros(0)
    hit = np.zeros(len(true), dtype=bool)
    hit[query[ious > threshold]] = True
    return hit


def in_length_range(windows_sec: ArrayLike, length_range: tuple[float, float]) -> Floats:
    """The windows [n, 2] whose length in seconds is above the first and at most the second end of the range."""
    windows = np.asarray(windows_sec, dtype=np.float64).reshape(-1, 2)
    length = windows[:, 1] - windows[:, 0]
    kept: Floats = windows[(length > length_range[0]) & (length <= length_range[1])]
    return kept


def _have_no_union(first: Floats, second: Floats) -> NDArray[np.bool_]:
    # windows that overlap have a union; of the others it is the sum of both lengths
    apart = np.minimum(first[..., 1], second[..., 1]) <= np.maximum(first[..., 0], second[..., 0])
    undefined: NDArray[np.bool_] = apart & ((first[..., 1] - first[..., 0]) + (second[..., 1] - second[..., 0]) == 0)
    return undefined


def _greedy_hits(ious: Floats, thresholds: Floats) -> Floats:
    """Hits [query, rank, threshold] as 0 and 1, of windows taken in their order; `ious` [query, rank, window] is -1 at padding."""
    queries, ranks, windows = ious.shape
    free = np.ones((queries, len(thresholds), windows), dtype=bool)
    hits = np.zeros((queries, ranks, len(thresholds)))
    for rank in range(ranks):
        overlap = ious[:, rank, None, :]
        open_ = free & (overlap >= thresholds[:, None])
        last_best = windows - 1 - np.where(open_, overlap, -1.0)[..., ::-1].argmax(-1)
        hits[:, rank] = open_.any(-1)
        free &= ~(open_ & (np.arange(windows) == last_best[..., None]))
    return hits


def _padded(name: str, rows: Sequence[Floats], columns: int) -> tuple[Floats, NDArray[np.bool_]]:
    """One array [query, most rows, columns] and which of its rows are real [query, most rows]."""
    for index, each in enumerate(rows):
        if each.size and (each.ndim != 2 or each.shape[1] != columns):
            raise UsageError(f"{name}[{index}]", expected=f"an array [n, {columns}]", got=each.shape)
        if not np.isfinite(each).all():
            raise UsageError(f"{name}[{index}]", expected="finite values", got=each.tolist())
    lengths = np.array([len(each) for each in rows])
    real = np.arange(max(int(lengths.max()), 1)) < lengths[:, None]
    padded = np.zeros((*real.shape, columns))
    padded[real] = np.concatenate([each.reshape(-1, columns) for each in rows])
    return padded, real
