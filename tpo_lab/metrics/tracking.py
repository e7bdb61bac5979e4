"""Metrics of single-object tracking: LaSOT as each of its three evaluators computes it, and GOT-10k. Boxes are (x, y, w, h) in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpo_lab.errors import UsageError, unknown_name

Floats = NDArray[np.float64]

LASOT_VARIANTS = ("matlab", "pytracking", "got10k")
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class TrackCurves:
    """Shares in [0, 1] of the frames of one video [step], or of several [video, step].

    Attributes:
        success: frames with an IoU above 0, 0.05, ..., 1 [..., 21].
        precision: frames with a centre error of at most 0, 1, ..., 50 pixels [..., 51].
        norm_precision: frames with a centre error of at most 0, 0.01, ..., 0.5 of the true width and height [..., 51].
    """

    success: Floats
    precision: Floats
    norm_precision: Floats


def lasot_curves(pred_xywh: ArrayLike, true_xywh: ArrayLike, absent: ArrayLike, *, variant: str = "matlab") -> TrackCurves:
    """The curves of one video.

    In every variant the first frame counts with the true box as its prediction, success is IoU > t and precision error <= t.

    - `matlab`: a side of w covers w pixels, so a centre is x + (w - 1) / 2 and sides meet with + 1. A predicted box that has a NaN or no
      size becomes the one before it. Absent frames leave the numerator, not the denominator. A visible frame whose true box has a value
      <= 0 has IoU -1 and error -1, which passes every threshold of error.
    - `pytracking`: the same, but NaN and negative sizes are refused, a true box without size has pixel error inf (normalised: -1), and
      absent frames have error inf and IoU -1.
    - `got10k`: no + 1 in the IoU, absent frames count, only true boxes with NaN leave (numerator and denominator), predictions are not
      repaired, and errors are divided by max(1, size). The longer list is cut.

    Args:
        pred_xywh: [frame, 4], no shorter than the true ones (except `got10k`); frames behind their end are cut.
        true_xywh: [frame, 4].
        absent: whether the target is out of view or fully occluded [frame].
        variant: one of `LASOT_VARIANTS`.

    Raises:
        UsageError: an unknown variant, shapes that do not fit, or what the variant refuses.

    Source: the LaSOT evaluation toolkit, pytracking's analysis and the GOT-10k toolkit.
    Differs in: float64 curves for `pytracking` too, which has float32.
    """
    if variant not in LASOT_VARIANTS:
        raise unknown_name("variant", variant, LASOT_VARIANTS)
    predicted, true = _boxes("pred_xywh", pred_xywh).copy(), _boxes("true_xywh", true_xywh)
    is_absent = np.asarray(absent).astype(bool).reshape(-1)
    if len(is_absent) != len(true):
        raise UsageError("absent", expected=f"one flag per true box ({len(true)})", got=len(is_absent))
    if variant == "got10k":
        return _got10k_curves(predicted, true)
    if len(predicted) < len(true):
        raise UsageError("pred_xywh", expected=f"one box per true box ({len(true)})", got=len(predicted))
    predicted = _repaired(predicted, true, variant)[: len(true)]
    predicted[0] = true[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = _pixel_iou(predicted, true)
        offset = _centre(predicted) - _centre(true)
        error = np.sqrt((offset**2).sum(1))
        # the quotients are subtracted, not the centres, as both tools round
        norm_error = np.sqrt(((_centre(predicted) / true[:, 2:] - _centre(true) / true[:, 2:]) ** 2).sum(1))
    if variant == "matlab":
        invalid = ~(true > 0).all(1)
        iou[invalid] = error[invalid] = norm_error[invalid] = -1.0
        iou, error, norm_error = (values[~is_absent] for values in (iou, error, norm_error))
        steps = np.concatenate([np.arange(11) * 0.05, 1 - np.arange(9, -1, -1) * 0.05])  # how MATLAB rounds 0:0.05:1
    else:
        invalid = ~((true[:, 2:] > 0).all(1) & ~is_absent)
        error[invalid], norm_error[invalid], iou[invalid] = np.inf, -1.0, -1.0
        error[is_absent] = norm_error[is_absent] = np.inf
        steps = np.arange(21) * 0.05
    return _curves(iou, error, norm_error, steps, np.arange(51) / 100, len(true))


def lasot_scores(curves: Sequence[TrackCurves], *, variant: str = "matlab") -> dict[str, float]:
    """Success, P, P_norm, SR@0.5 and SR@0.75 as fractions: means over videos.

    Success is the mean of the success curve, P the precision at 20 pixels; P_norm is the normalised precision at 0.20 (`matlab`,
    `pytracking`) or the mean of its curve (`got10k`). `matlab` drops a video from a curve's mean where its whole curve is 0.

    Raises:
        UsageError: no video, or an unknown variant.
    """
    if not curves:
        raise UsageError("curves", expected="at least one video", got=0)
    success, precision, norm = zip(*((each.success, each.precision, each.norm_precision) for each in curves), strict=True)
    return stacked_lasot_scores(TrackCurves(np.stack(success), np.stack(precision), np.stack(norm)), variant=variant)


def stacked_lasot_scores(curves: TrackCurves, *, variant: str = "matlab") -> dict[str, float]:
    """`lasot_scores` of curves [video, step].

    Raises:
        UsageError: an unknown variant.
    """
    if variant not in LASOT_VARIANTS:
        raise unknown_name("variant", variant, LASOT_VARIANTS)
    rows = (curves.success, curves.precision, curves.norm_precision)
    success, precision, norm = (_video_mean(each, drop_zero=variant == "matlab") for each in rows)
    return {
        "Success": float(success.mean()),
        "P": float(precision[20]),
        "P_norm": float(norm.mean() if variant == "got10k" else norm[20]),
        "SR@0.5": float(success[10]),
        "SR@0.75": float(success[15]),
    }


def got10k_ious(pred_xywh: ArrayLike, true_xywh: ArrayLike, cover: ArrayLike, size_wh: tuple[float, float]) -> Floats:
    """IoU [counted frame] of one video: without its first frame, and only where cover > 0.

    Both boxes are clipped to the image first: x into [0, W], y into [0, H], then w into [0, W - x] and h into [0, H - y], so that a
    width is not shortened when a negative x moves to 0.

    Args:
        pred_xywh: [frame, 4].
        true_xywh: [frame, 4].
        cover: visible share 0 to 8 [frame].
        size_wh: width and height of the image in pixels.

    Raises:
        UsageError: the numbers of frames differ.

    Source: the GOT-10k toolkit.
    """
    predicted, true = _boxes("pred_xywh", pred_xywh), _boxes("true_xywh", true_xywh)
    covers = np.asarray(cover, dtype=np.float64).reshape(-1)
    for name, count in (("pred_xywh", len(predicted)), ("cover", len(covers))):
        if count != len(true):
            raise UsageError(name, expected=f"one row per true box ({len(true)})", got=count)
    counted = covers[1:] > 0
    ious: Floats = _area_iou(_clipped(predicted[1:], size_wh), _clipped(true[1:], size_wh))[counted]
    return ious


def got10k_scores(ious: ArrayLike) -> dict[str, float]:
    """AO, SR@0.5 and SR@0.75 as fractions of the IoUs of all counted frames of all videos in one list; a hit is IoU > t.

    Raises:
        UsageError: no frame.
    """
    values = np.asarray(ious, dtype=np.float64)
    if not values.size:
        raise UsageError("ious", expected="at least one counted frame", got=0)
    return {"AO": float(values.mean()), "SR@0.5": float((values > 0.5).mean()), "SR@0.75": float((values > 0.75).mean())}


def _got10k_curves(predicted: Floats, true: Floats) -> TrackCurves:
    predicted[:1] = true[:1]
    frames = min(len(predicted), len(true))
    valid = ~np.isnan(true[:frames]).any(1)
    predicted, true = predicted[:frames][valid], true[:frames][valid]
    offset = _centre(predicted) - _centre(true)
    error = np.sqrt((offset**2).sum(1))
    norm_error = np.sqrt(((offset / np.maximum(1.0, true[:, 2:])) ** 2).sum(1))
    return _curves(_area_iou(predicted, true), error, norm_error, np.linspace(0, 1, 21), np.linspace(0, 0.5, 51), len(true))


def _curves(iou: Floats, error: Floats, norm_error: Floats, steps: Floats, norm_steps: Floats, frames: int) -> TrackCurves:
    if not frames:
        raise UsageError("true_xywh", expected="at least one box without NaN", got=0)
    return TrackCurves(
        (iou[:, None] > steps).sum(0) / frames,
        (error[:, None] <= np.arange(51)).sum(0) / frames,
        (norm_error[:, None] <= norm_steps).sum(0) / frames,
    )


def _repaired(predicted: Floats, true: Floats, variant: str) -> Floats:
    """Boxes without size (and with NaN, in MATLAB) become the box before them, where the true box holds no NaN."""
    if variant == "pytracking" and (np.isnan(predicted).any() or (predicted[:, 2:] < 0).any()):
        row = int((np.isnan(predicted).any(1) | (predicted[:, 2:] < 0).any(1)).argmax())
        raise UsageError(f"pred_xywh[{row}]", expected="no NaN and no negative size (variant pytracking)", got=predicted[row].tolist())
    broken = np.isnan(predicted).any(1) | (predicted[:, 2:] <= 0).any(1)
    for frame in np.flatnonzero(broken):
        if 0 < frame < len(true) and not np.isnan(true[frame]).any():
            predicted[frame] = predicted[frame - 1]
    return predicted


def _video_mean(curves: Floats, *, drop_zero: bool) -> Floats:
    kept = curves[curves.sum(1) > _EPS] if drop_zero else curves
    mean: Floats = kept.mean(0) if len(kept) else np.zeros(curves.shape[1])
    return mean


def _centre(boxes: Floats) -> Floats:
    return boxes[:, :2] + (boxes[:, 2:] - 1) / 2


def _pixel_iou(first: Floats, second: Floats) -> Floats:
    ends = np.minimum(first[:, :2] + first[:, 2:] - 1, second[:, :2] + second[:, 2:] - 1)
    overlap = np.maximum(ends - np.maximum(first[:, :2], second[:, :2]) + 1, 0).prod(1)
    ious: Floats = overlap / (first[:, 2:].prod(1) + second[:, 2:].prod(1) - overlap)
    return ious


def _area_iou(first: Floats, second: Floats) -> Floats:
    ends = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    overlap = np.maximum(ends - np.maximum(first[:, :2], second[:, :2]), 0).prod(1)
    union = first[:, 2:].prod(1) + second[:, 2:].prod(1) - overlap
    ious: Floats = np.clip(overlap / (union + _EPS), 0, 1)
    return ious


def _clipped(boxes: Floats, size_wh: tuple[float, float]) -> Floats:
    size = np.asarray(size_wh, dtype=np.float64)
    corner = np.clip(boxes[:, :2], 0, size)
    return np.concatenate([corner, np.clip(boxes[:, 2:], 0, size - corner)], axis=1)


def _boxes(name: str, boxes_xywh: ArrayLike) -> Floats:
    boxes = np.asarray(boxes_xywh, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise UsageError(name, expected="boxes xywh [frame, 4], at least one", got=boxes.shape)
    return boxes
