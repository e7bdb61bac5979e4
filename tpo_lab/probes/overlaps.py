"""How well structured answers meet their targets, object by object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tpo_lab import records as of
from tpo_lab.boxes import cxcywh_to_xyxy, pairwise_box_iou
from tpo_lab.heads import Head
from tpo_lab.matching import Matching
from tpo_lab.metrics.temporal import window_iou
from tpo_lab.probes.trace import Match
from tpo_lab.records import Record
from tpo_lab.sample import ANSWERED_BY


def targets_of(record: Record, head: str) -> dict[str, Any]:
    """The targets that a head answers, by their names."""
    return {name: value for name, value in record.target.items() if ANSWERED_BY.get(name, name) == head}


def matches_of(record: Record, head: str, how: str, partners: Mapping[int, int] | None = None) -> tuple[Match, ...]:
    """Every true object of a head with what an answer has for it; nothing for heads whose answers are no boxes, windows or masks.

    Args:
        how: "routed" or "forced".
        partners: true box -> predicted box, as the head's loss pairs them; where None, and for windows, pairs are those whose IoUs have
            the greatest sum.
    """
    if head == "region" and record.target.get("region"):
        return _boxes(of.boxes(record, how) or [], [each["xyxy"] for each in record.target["region"]], partners)
    if head == "temporal" and of.has_moment(record):
        return _windows(of.windows(record, how) or [], record.target["temporal"]["windows_sec"])
    if head == "mask" and (of.has_mask(record) or of.has_track(record)):
        return _masks(record, how)
    return ()


def _boxes(predicted: Sequence[Sequence[float]], true: Sequence[Sequence[float]], partners: Mapping[int, int] | None) -> tuple[Match, ...]:
    return paired(pairwise_box_iou(_four(true), _four(predicted)).numpy(), partners)


def _windows(predicted: Sequence[Sequence[float]], true: Sequence[Sequence[float]]) -> tuple[Match, ...]:
    return paired(window_iou(true, predicted)) if len(predicted) else paired(np.zeros((len(true), 0)))


def _masks(record: Record, how: str) -> tuple[Match, ...]:
    if of.has_mask(record):
        iou = float(of.mask_qualities([record], how)[0, 0])
    else:
        ious = of.track_ious(record, how)
        iou = float(ious.mean()) if len(ious) else 0.0
    return (Match(0, 0 if getattr(record, how).get("mask", {}).get("masks") else None, iou),)


def paired(ious: NDArray[Any], partners: Mapping[int, int] | None = None) -> tuple[Match, ...]:
    """Pairs of true and predicted objects, from their IoUs [true, predicted]; true ones without a partner have IoU 0.

    Args:
        partners: true -> predicted; where None, those whose IoUs have the greatest sum.
    """
    from scipy.optimize import linear_sum_assignment

    best = dict(zip(*linear_sum_assignment(-ious), strict=True)) if ious.size else {}
    partner = best if partners is None else partners
    return tuple(
        Match(true, int(partner[true]), float(ious[true, partner[true]])) if true in partner else Match(true, None, 0.0)
        for true in range(len(ious))
    )


def partners_of(head: Head[Any, Any], prediction: Any, target: Any) -> dict[int, int] | None:
    """True box -> slot of one answer, as the head's loss pairs them; None for heads that pair otherwise."""
    match = getattr(head, "match", None)
    found = match(prediction, target) if match is not None else None
    return dict(zip(found.box.tolist(), found.slot.tolist(), strict=True)) if isinstance(found, Matching) else None


def readings_of(head: Head[Any, Any], prediction: Any, target: Any) -> dict[str, float]:
    """Mean IoU with the true boxes if a prediction's numbers are read in each of four ways; nothing where there are no boxes.

    Args:
        prediction: of one answer; its `boxes_xyxy` [slot, 4] are looked at, as the head gave them.
        target: of the same answer, with `boxes_xyxy` [box, 4].
    """
    numbers, true = (getattr(each, "boxes_xyxy", None) for each in (prediction, target))
    if not isinstance(numbers, Tensor) or not isinstance(true, Tensor) or not len(true):
        return {}
    numbers, true = numbers.detach().float().cpu(), true.detach().float().cpu()
    read = {
        "xyxy": numbers,
        "cxcywh": cxcywh_to_xyxy(numbers),
        "xywh": torch.cat([numbers[:, :2], numbers[:, :2] + numbers[:, 2:]], 1),
        "yxyx": numbers[:, [1, 0, 3, 2]],
    }
    return {name: float(np.mean([match.iou for match in paired(pairwise_box_iou(true, boxes).numpy())])) for name, boxes in read.items()}


def _four(boxes: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor([list(box) for box in boxes], dtype=torch.float32).reshape(-1, 4)
