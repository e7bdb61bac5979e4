"""Metrics of masks: region similarity J and contour accuracy F of a frame, DAVIS statistics over frames, gIoU and cIoU over objects."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpo_lab.errors import UsageError

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Points = NDArray[np.int64]

CONTOUR_TOLERANCE = 0.008
"""How far two contours may be apart, as a share of the diagonal of the frame."""

_RECALL_ABOVE = 0.5
_QUARTERS = 4
_BYTE = 256
_OBJECT_EPS, _TOTAL_EPS = 1e-5, 1e-10


def overlap(pred: ArrayLike, true: ArrayLike, void: ArrayLike | None = None) -> tuple[int, int]:
    """Pixels in both masks and pixels in any of them.

    Args:
        pred: booleans [h, w].
        true: booleans [h, w].
        void: pixels [h, w] that count nowhere.

    Raises:
        UsageError: an array is not [h, w], or their sizes differ.
    """
    first, second = _masks(pred, true, void)
    both = int(np.count_nonzero(first & second))
    return both, int(np.count_nonzero(first)) + int(np.count_nonzero(second)) - both


def region_similarity(pred: ArrayLike, true: ArrayLike, void: ArrayLike | None = None) -> float:
    """J in [0, 1]: pixels in both over pixels in any; two empty masks give 1.

    Args:
        pred: as in `overlap`.
        true: as in `overlap`.
        void: as in `overlap`.

    Raises:
        UsageError: as `overlap`.

    Source: DAVIS 2017 evaluation.
    """
    both, either = overlap(pred, true, void)
    return both / either if either else 1.0


def contour_accuracy(pred: ArrayLike, true: ArrayLike, void: ArrayLike | None = None, *, tolerance: float = CONTOUR_TOLERANCE) -> float:
    """F in [0, 1]: harmonic mean of the shares of either contour that lie within `contour_radius` of the other.

    Distances are Euclidean between pixels, the radius included. Two masks without a contour (`contour`: empty, or the whole frame) give 1,
    one without and one with give 0.

    Args:
        pred: as in `overlap`.
        true: as in `overlap`.
        void: pixels [h, w] that are taken as background in both masks before the contours are drawn.
        tolerance: a share of the frame's diagonal, or pixels if 1 or more.

    Raises:
        UsageError: as `overlap`.

    Source: DAVIS 2017 evaluation, boundary measure.
    Differs in: no dilated image; each pixel of a contour looks the other one up in rows of running counts, with the same result.
    """
    first, second = _masks(pred, true, void)
    radius = contour_radius(first.shape, tolerance)
    window = _window(first | second)
    pred_points, true_points = _points(contour(first[window])), _points(contour(second[window]))
    if not len(pred_points) or not len(true_points):
        return float(len(pred_points) == len(true_points))
    precision = _near(pred_points, true_points, radius) / len(pred_points)
    recall = _near(true_points, pred_points, radius) / len(true_points)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def contour(mask: ArrayLike) -> Bools:
    """Pixels [h, w] that differ from their right, lower or lower right neighbour.

    So the line is one pixel thick and lies on the upper left side of the edge. In the last row only the right neighbour counts, in the
    last column only the lower one, and the last pixel of all is never on a contour. The border of the frame is no edge.

    Args:
        mask: booleans [h, w].
    """
    inside = np.asarray(mask, dtype=bool)
    edge = np.zeros_like(inside)
    inner = inside[:-1, :-1]
    edge[:-1, :-1] = (inner ^ inside[:-1, 1:]) | (inner ^ inside[1:, :-1]) | (inner ^ inside[1:, 1:])
    edge[-1, :-1] = inside[-1, :-1] ^ inside[-1, 1:]
    edge[:-1, -1] = inside[:-1, -1] ^ inside[1:, -1]
    return edge


def contour_radius(size: tuple[int, ...], tolerance: float = CONTOUR_TOLERANCE) -> int:
    """The radius in pixels, rounded up: `tolerance` times the diagonal of a frame (h, w), or `tolerance` itself if 1 or more."""
    return math.ceil(tolerance if tolerance >= 1 else tolerance * float(np.linalg.norm(size)))


def frame_statistics(values: ArrayLike) -> tuple[float, float, float]:
    """Mean, recall (share of values > 0.5) and decay (mean of the first quarter of frames minus that of the last) of one object.

    Quarters share the frames at which they meet. The official tool keeps their ends in one byte, so from 257 frames on the quarters are
    other ones, and the decay is NaN where the last of them is empty.

    Args:
        values: J or F [frame] in [0, 1].

    Raises:
        UsageError: no frame, or values that are not [frame].

    Source: DAVIS 2017 evaluation.
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 1 or not len(rows):
        raise UsageError("values", expected="one value per frame, at least one", got=rows.shape)
    # the small term rounds halves up, where NumPy would round them to even
    ends = (np.round(np.linspace(1, len(rows), _QUARTERS + 1) + 1e-10) - 1).astype(np.int64) % _BYTE
    first, last = rows[ends[0] : ends[1] + 1], rows[ends[-2] : ends[-1] + 1]
    decay = float(first.mean() - last.mean()) if len(first) and len(last) else math.nan
    return float(rows.mean()), float((rows > _RECALL_ABOVE).mean()), decay


def proposal_objects(region: ArrayLike, accuracy: ArrayLike) -> tuple[Floats, Floats]:
    """J and F [object, frame] of the proposal that stands for each object: one to one, with the highest sum of mean (J + F) / 2.

    Args:
        region: J [proposal, object, frame] of every pair, at least as many proposals as objects.
        accuracy: F, the same.

    Raises:
        UsageError: fewer proposals than objects, or shapes that differ.

    Source: DAVIS 2019 unsupervised task.
    """
    from scipy.optimize import linear_sum_assignment  # here, since it takes longer to load than most scores take

    j, f = np.asarray(region, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    if j.ndim != 3 or j.shape != f.shape or j.shape[0] < j.shape[1]:
        raise UsageError("region", expected=f"[proposal >= object, object, frame] as accuracy {f.shape}", got=j.shape)
    proposals, objects = linear_sum_assignment(-(j.mean(axis=2) + f.mean(axis=2)) / 2)
    order = np.argsort(objects)
    return j[proposals[order], objects[order]], f[proposals[order], objects[order]]


def object_ious(overlaps: ArrayLike) -> Floats:
    """IoU [object] in [0, 1], as LISA divides: pixels in both / (pixels in any + 1e-5), and 1 for two empty masks.

    Args:
        overlaps: pixels in both and in any [object, 2].

    Raises:
        UsageError: another shape, or no object.
    """
    rows = _overlaps(overlaps)
    return np.where(rows[:, 1] == 0, 1.0, rows[:, 0] / (rows[:, 1] + _OBJECT_EPS))


def cumulative_iou(overlaps: ArrayLike) -> float:
    """cIoU in [0, 1]: all pixels in both over all pixels in any (+ 1e-10), so that large objects weigh more; all empty gives 0.

    Args:
        overlaps: as in `object_ious`.

    Raises:
        UsageError: as `object_ious`.

    Source: LISA, validation.
    Differs in: float64, where LISA adds up in float32.
    """
    both, either = _overlaps(overlaps).sum(axis=0)
    return float(both / (either + _TOTAL_EPS))


def _overlaps(overlaps: ArrayLike) -> Floats:
    rows = np.asarray(overlaps, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 2 or not len(rows):
        raise UsageError("overlaps", expected="pixels in both and in any [object, 2], at least one object", got=rows.shape)
    return rows


def _masks(pred: ArrayLike, true: ArrayLike, void: ArrayLike | None) -> tuple[Bools, Bools]:
    first, second = np.asarray(pred, dtype=bool), np.asarray(true, dtype=bool)
    if second.ndim != 2 or not second.size:
        raise UsageError("true", expected="a mask [h, w]", got=second.shape)
    if first.shape != second.shape:
        raise UsageError("pred", expected=f"a mask of the size of the true one {second.shape}", got=first.shape)
    if void is None:
        return first, second
    ignored = np.asarray(void, dtype=bool)
    if ignored.shape != second.shape:
        raise UsageError("void", expected=f"a mask of the size of the true one {second.shape}", got=ignored.shape)
    return first & ~ignored, second & ~ignored


def _window(inside: Bools) -> tuple[slice, slice]:
    """The bounding box with a margin of one pixel, inside the frame: contours beyond it are those of the background, so there are none."""
    rows = np.flatnonzero(inside.any(axis=1))
    if not len(rows):
        return slice(0, 1), slice(0, 1)
    down = slice(max(int(rows[0]) - 1, 0), int(rows[-1]) + 2)
    columns = np.flatnonzero(inside[down].any(axis=0))
    return down, slice(max(int(columns[0]) - 1, 0), int(columns[-1]) + 2)


def _points(edge: Bools) -> Points:
    """Row and column [point, 2] of the pixels that are set."""
    return np.stack(np.divmod(np.flatnonzero(edge), edge.shape[1]), axis=1)


def _near(points: Points, others: Points, radius: int) -> int:
    """How many of `points` have one of `others` within `radius`: the disk is looked up row by row in running counts of `others`."""
    low, high = points.min(axis=0) - radius, points.max(axis=0) + radius + 1
    seen = others[((others >= low) & (others < high)).all(axis=1)] - low
    height, width = high - low
    counts = np.zeros((height, width + 1), dtype=np.int32)
    counts[seen[:, 0], seen[:, 1] + 1] = 1
    np.cumsum(counts, axis=1, out=counts)
    rows, columns = (points - low).T
    found = np.zeros(len(points), dtype=bool)
    for step in range(-radius, radius + 1):
        reach = math.isqrt(radius * radius - step * step)
        found |= counts[rows + step, columns + reach + 1] > counts[rows + step, columns - reach]
    return int(found.sum())
