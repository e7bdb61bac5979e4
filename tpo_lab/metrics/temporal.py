"""Metrics of one answer per query: IoU of windows, recall of the first window and mean IoU. Windows are [start, end), nothing is clipped.

Not here: recall at K and mAP (moment_retrieval), and the saliency of clips (highlights).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpo_lab.errors import UsageError

Floats = NDArray[np.float64]


def window_iou(first_sec: ArrayLike, second_sec: ArrayLike) -> Floats:
    """IoU [first, second] of windows [first, 2] and [second, 2] in seconds.

    An inverted window (end < start) has length 0 and meets nothing, so its IoU is 0; so is that of an empty union or of NaN and inf.

    Raises:
        UsageError: an argument is not [n, 2].
    """
    return broadcast_window_iou(_windows("first_sec", first_sec)[:, None], _windows("second_sec", second_sec)[None, :])


def broadcast_window_iou(first_sec: Floats, second_sec: Floats) -> Floats:
    """IoU [...] of windows [..., 2] and [..., 2] that broadcast; the union is the sum of the lengths less the overlap, rounded so.

    What is inverted, empty or not finite has IoU 0.
    """
    with np.errstate(invalid="ignore"):
        overlap = np.minimum(first_sec[..., 1], second_sec[..., 1]) - np.maximum(first_sec[..., 0], second_sec[..., 0])
        overlap = np.clip(overlap, 0, None)
        union = (first_sec[..., 1] - first_sec[..., 0]) + (second_sec[..., 1] - second_sec[..., 0]) - overlap
    ious: Floats = np.divide(overlap, union, out=np.zeros(overlap.shape), where=(overlap > 0) & (union > 0))
    return ious


def aligned_window_iou(first_sec: ArrayLike, second_sec: ArrayLike, *, epsilon: float = 0.0) -> Floats:
    """IoU [pair] of window i of `first_sec` [pair, 2] with window i of `second_sec` [pair, 2], over the hull that both span.

    Windows that meet have their hull as union, and others have IoU 0, so this is `window_iou` up to rounding; a hit exactly on a
    threshold needs the rounding of the official tools. Inverted windows, NaN, inf and an empty hull: IoU 0.

    Args:
        first_sec: (start, end) in one unit.
        second_sec: (start, end) in the same unit.
        epsilon: added to the union; 1e-8 in HiREST, where an IoU of exactly 0.5 is therefore no hit.

    Raises:
        UsageError: an argument is not [pair, 2], or the numbers of windows differ.

    Source: the paired IoU of moment_detr, TimeChat and Ego4D NLQ.
    """
    first, second = _windows("first_sec", first_sec), _windows("second_sec", second_sec)
    if len(first) != len(second):
        raise UsageError("second_sec", expected=f"one window per window of first_sec ({len(first)})", got=len(second))
    intersection = np.minimum(first[:, 1], second[:, 1]) - np.maximum(first[:, 0], second[:, 0])
    hull = np.maximum(first[:, 1], second[:, 1]) - np.minimum(first[:, 0], second[:, 0]) + epsilon
    # an inverted window overlaps nothing, since the overlap is at most its length
    valid = (hull > 0) & (intersection > 0) & np.isfinite(first).all(-1) & np.isfinite(second).all(-1)
    ious: Floats = np.divide(intersection, hull, out=np.zeros(len(first)), where=valid)
    return ious


def moment_ious(pred_windows: Sequence[ArrayLike | None], true_windows: Sequence[ArrayLike], *, epsilon: float = 0.0) -> Floats:
    """IoU [sample] of the first predicted window with the true window that it meets best; None or [] is IoU 0.

    Args:
        pred_windows: per sample the windows [rank, 2], best first; the order is taken as given.
        true_windows: per sample the true windows [window, 2].
        epsilon: as in `aligned_window_iou`.

    Raises:
        UsageError: the lengths differ, there is no sample, or a sample has no true window or an inverted one.
    """
    if len(pred_windows) != len(true_windows) or not len(true_windows):
        expected = f"one entry per target, at least one (targets: {len(true_windows)})"
        raise UsageError("pred_windows", expected=expected, got=len(pred_windows))
    true = [_true_windows(f"true_windows[{index}]", windows) for index, windows in enumerate(true_windows)]
    nothing = np.full((1, 2), np.nan)
    first = np.concatenate([window if len(window) else nothing for window in _first_windows(pred_windows)])
    counts = np.array([len(windows) for windows in true])
    ious = aligned_window_iou(first.repeat(counts, axis=0), np.concatenate(true), epsilon=epsilon)
    best: Floats = np.maximum.reduceat(ious, np.cumsum(counts) - counts)
    return best


def moment_scores(
    pred_windows: Sequence[ArrayLike | None],
    true_windows: Sequence[ArrayLike],
    *,
    thresholds: Sequence[float] = (0.3, 0.5, 0.7),
    strict: bool = False,
) -> dict[str, float]:
    """Moment retrieval: `r1@t` per threshold, `miou`, `missing_rate`, `inverted_rate` (first window, NaN too; scored 0) and `count`.

    Args:
        pred_windows: as in `moment_ious`.
        true_windows: as in `moment_ious`.
        thresholds: the IoUs of a hit.
        strict: False: a hit is IoU >= t (QVHighlights, Charades-STA, HiREST); True: IoU > t (NLQ), reported as `r1>t`.

    Raises:
        UsageError: as `moment_ious`.

    Source: QVHighlights standalone evaluation (true window = highest IoU with the first prediction), fractions instead of percent.
    """
    ious = moment_ious(pred_windows, true_windows)
    first = _first_windows(pred_windows)
    recalls = {
        f"r1{'>' if strict else '@'}{threshold:g}": float((ious > threshold if strict else ious >= threshold).mean())
        for threshold in thresholds
    }
    return recalls | {
        "miou": float(ious.mean()),
        "missing_rate": sum(len(window) == 0 for window in first) / len(first),
        "inverted_rate": sum(int((~(window[:, 1] >= window[:, 0])).sum()) for window in first) / len(first),
        "count": float(len(ious)),
    }


def _first_windows(pred_windows: Sequence[ArrayLike | None]) -> list[Floats]:
    """The first window [1, 2] of each sample, or [0, 2]."""
    return [_windows(f"pred_windows[{i}]", () if windows is None else windows)[:1] for i, windows in enumerate(pred_windows)]


def _windows(name: str, windows_sec: ArrayLike) -> Floats:
    windows = np.asarray(windows_sec, dtype=np.float64)
    if windows.size == 0:
        return np.zeros((0, 2))
    if windows.ndim != 2 or windows.shape[1] != 2:
        raise UsageError(name, expected="windows [n, 2] of start and end", got=windows.shape)
    return windows


def _true_windows(name: str, windows_sec: ArrayLike) -> Floats:
    # zero length is allowed: 341 of the 3874 windows of NLQ's validation set have it
    windows = _windows(name, windows_sec)
    if not len(windows) or not np.isfinite(windows).all() or (windows[:, 1] < windows[:, 0]).any():
        raise UsageError(name, expected="one or more finite windows with start <= end", got=windows.tolist())
    return windows
