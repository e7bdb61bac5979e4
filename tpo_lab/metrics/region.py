"""Metrics of boxes: referring comprehension (one box per sample) and sets of boxes. All boxes xyxy, in any one unit, without a +1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpo_lab.errors import UsageError

Floats = NDArray[np.float64]


def box_iou(first_xyxy: ArrayLike, second_xyxy: ArrayLike) -> Floats:
    """IoU [first, second] of boxes [first, 4] and [second, 4], xyxy in one unit.

    An inverted box (x2 < x1 or y2 < y1) has area 0 and meets nothing, so its IoU is 0; so is that of an empty union or of NaN and inf.

    Raises:
        UsageError: an argument is not [n, 4].
    """
    return _iou(_boxes("first_xyxy", first_xyxy)[:, None], _boxes("second_xyxy", second_xyxy)[None, :])


def rec_ious(pred_boxes: Sequence[ArrayLike | None], true_boxes: Sequence[ArrayLike]) -> Floats:
    """IoU [sample] of the one predicted box with the one true box; None (the model gave no box) is IoU 0.

    Raises:
        UsageError: the lengths differ, there is no sample, or a true box is inverted, empty or not finite.
    """
    return _iou(*_rec_boxes(pred_boxes, true_boxes))


def rec_scores(
    pred_boxes: Sequence[ArrayLike | None], true_boxes: Sequence[ArrayLike], *, threshold: float = 0.5, strict: bool = False
) -> dict[str, float]:
    """Referring expression comprehension: one predicted box (or None) per expression, one true box.

    Args:
        pred_boxes: xyxy per sample; None where the model gave no box: IoU 0, never dropped.
        true_boxes: xyxy per sample, in the same unit.
        threshold: the IoU of a hit.
        strict: False: a hit is IoU >= threshold (TransVG, SeqTR, lmms-eval); True: IoU > threshold (Shikra, ASMv2).

    Returns:
        `acc@0.5` (`acc>0.5` if strict), `miou`, `missing_rate` (no box), `inverted_rate` (x2 < x1, y2 < y1 or NaN; scored IoU 0), `count`;
        all shares are of all samples.

    Raises:
        UsageError: as `rec_ious`.

    Source: paper Table 12 (Acc@0.5). The paper does not say which comparison it takes, so the prevailing one is the default.
    Differs in: no generalised IoU as in MDETR's evaluator, no square padding as in Shikra's.
    """
    predicted, true = _rec_boxes(pred_boxes, true_boxes)
    ious = _iou(predicted, true)
    hits = ious > threshold if strict else ious >= threshold
    given = np.array([box is not None for box in pred_boxes])
    return {
        f"acc{'>' if strict else '@'}{threshold:g}": float(hits.mean()),
        "miou": float(ious.mean()),
        "missing_rate": float((~given).mean()),
        "inverted_rate": float((given & _inverted(predicted)).mean()),
        "count": float(len(ious)),
    }


def box_set_counts(pred_sets: Sequence[ArrayLike | None], true_sets: Sequence[ArrayLike], *, threshold: float = 0.5) -> NDArray[np.int64]:
    """Counts [sample, 3] of (matched, predicted, true) boxes; sum over samples, then give them to `precision_recall_f1`.

    Boxes are matched one to one (Hungarian): first as many pairs with IoU >= threshold as possible, then the largest total IoU.
    None and [] are an answer without boxes; true [] is an absent object.

    Raises:
        UsageError: the lengths differ, there is no sample, or a true box is inverted, empty or not finite.
    """
    from scipy.optimize import linear_sum_assignment  # here, since it takes longer to load than most scores take

    _check_lengths(pred_sets, true_sets)
    rows = []
    for index, (pred_set, true_set) in enumerate(zip(pred_sets, true_sets, strict=True)):
        predicted = _boxes(f"pred_sets[{index}]", () if pred_set is None else pred_set)
        true = _true_boxes(f"true_sets[{index}]", true_set)
        ious = box_iou(predicted, true)
        # one more hit outweighs any total of IoU that the other pairs could lose
        pairs = linear_sum_assignment((ious >= threshold) * (min(ious.shape) + 1.0) + ious, maximize=True)
        rows.append((int((ious[pairs] >= threshold).sum()), len(predicted), len(true)))
    return np.array(rows, dtype=np.int64)


def precision_recall_f1(counts: ArrayLike) -> tuple[float, float, float]:
    """Precision, recall and F1 pooled over counts [sample, 3] of (matched, predicted, true).

    Nothing predicted and nothing true is perfect (1, 1, 1); a share of nothing while the other side has boxes is 0.
    """
    matched, predicted, true = np.asarray(counts, dtype=np.float64).reshape(-1, 3).sum(0)
    if predicted + true == 0:
        return 1.0, 1.0, 1.0
    precision, recall = (matched / total if total else 0.0 for total in (predicted, true))
    return float(precision), float(recall), float(2 * matched / (predicted + true))


def box_set_scores(pred_sets: Sequence[ArrayLike | None], true_sets: Sequence[ArrayLike], *, threshold: float = 0.5) -> dict[str, float]:
    """Answers of several boxes: `precision@t`, `recall@t`, `f1@t` over all boxes of all samples, and the accounting of counts.

    Returns:
        Also `count_mismatch_rate` (samples with another number of boxes than true), `missing_rate` (None), `inverted_rate` (of the
        *predicted boxes*; they stay in, as misses), `count`, `predicted_count` and `true_count`.

    Raises:
        UsageError: as `box_set_counts`.
    """
    counts = box_set_counts(pred_sets, true_sets, threshold=threshold)
    precision, recall, f1 = precision_recall_f1(counts)
    inverted = sum(int(_inverted(_boxes("pred_sets", boxes)).sum()) for boxes in pred_sets if boxes is not None)
    predicted = int(counts[:, 1].sum())
    return {
        f"precision@{threshold:g}": precision,
        f"recall@{threshold:g}": recall,
        f"f1@{threshold:g}": f1,
        "count_mismatch_rate": float((counts[:, 1] != counts[:, 2]).mean()),
        "missing_rate": sum(boxes is None for boxes in pred_sets) / len(counts),
        "inverted_rate": inverted / predicted if predicted else 0.0,
        "count": float(len(counts)),
        "predicted_count": float(predicted),
        "true_count": float(counts[:, 2].sum()),
    }


def _rec_boxes(pred_boxes: Sequence[ArrayLike | None], true_boxes: Sequence[ArrayLike]) -> tuple[Floats, Floats]:
    _check_lengths(pred_boxes, true_boxes)
    missing = np.zeros(4)
    predicted = [missing if box is None else _boxes(f"pred_boxes[{i}]", np.asarray(box)[None])[0] for i, box in enumerate(pred_boxes)]
    return np.stack(predicted), np.concatenate([_true_boxes(f"true_boxes[{i}]", np.asarray(box)[None]) for i, box in enumerate(true_boxes)])


def _check_lengths(predicted: Sequence[object], true: Sequence[object]) -> None:
    if len(predicted) != len(true) or not len(true):
        raise UsageError("predictions", expected=f"one per target, at least one (targets: {len(true)})", got=len(predicted))


def _boxes(name: str, boxes_xyxy: ArrayLike) -> Floats:
    boxes = np.asarray(boxes_xyxy, dtype=np.float64)
    if boxes.size == 0:
        return np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UsageError(name, expected="boxes xyxy [n, 4]", got=boxes.shape)
    return boxes


def _true_boxes(name: str, boxes_xyxy: ArrayLike) -> Floats:
    boxes = _boxes(name, boxes_xyxy)
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
        raise UsageError(name, expected="finite boxes with x1 < x2 and y1 < y2", got=boxes.tolist())
    return boxes


def _iou(first: Floats, second: Floats) -> Floats:
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    intersection = np.clip(sides, 0, None).prod(-1)
    union = _area(first) + _area(second) - intersection
    valid = (union > 0) & np.isfinite(first).all(-1) & np.isfinite(second).all(-1)
    ious: Floats = np.divide(intersection, union, out=np.zeros(valid.shape), where=valid)
    return ious


def _area(boxes_xyxy: Floats) -> Floats:
    area: Floats = np.clip(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], 0, None).prod(-1)
    return area


def _inverted(boxes_xyxy: Floats) -> NDArray[np.bool_]:
    return ~((boxes_xyxy[:, 2] >= boxes_xyxy[:, 0]) & (boxes_xyxy[:, 3] >= boxes_xyxy[:, 1]))  # negated, so that NaN counts
