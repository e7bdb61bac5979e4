"""Boxes as tensors [..., 4]: conversions, areas, IoU and generalised IoU.

The frame of a box (pixels, or [0,1] of the frame's width and height) is the caller's: every function here keeps it.
Masks and their boxes are not here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tpo_lab.errors import UsageError


def xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """Turn corners (x0, y0, x1, y1) into centre and size (cx, cy, w, h); axes [..., 4], same units."""
    x0, y0, x1, y1 = _require_boxes("boxes_xyxy", boxes_xyxy).unbind(-1)
    return torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], dim=-1)


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Turn centre and size (cx, cy, w, h) into corners (x0, y0, x1, y1); axes [..., 4], same units."""
    cx, cy, w, h = _require_boxes("boxes_cxcywh", boxes_cxcywh).unbind(-1)
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], dim=-1)


def normalise_xyxy(boxes_xyxy: Tensor, size_wh: Tensor) -> Tensor:
    """Divide pixel boxes [..., 4] by the frame's (width, height) [..., 2], which broadcasts over the box axes."""
    return _require_boxes("boxes_xyxy", boxes_xyxy) / _twice(size_wh, boxes_xyxy)


def denormalise_xyxy(boxes_xyxy: Tensor, size_wh: Tensor) -> Tensor:
    """Multiply boxes in [0,1] [..., 4] by the frame's (width, height) in pixels [..., 2], which broadcasts."""
    return _require_boxes("boxes_xyxy", boxes_xyxy) * _twice(size_wh, boxes_xyxy)


def order_corners(boxes_xyxy: Tensor) -> Tensor:
    """Swap corners where needed so that x0 <= x1 and y0 <= y1; axes [..., 4]. The gradient passes through the swap."""
    first, second = _require_boxes("boxes_xyxy", boxes_xyxy)[..., :2], boxes_xyxy[..., 2:]
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1)


def is_inverted(boxes_xyxy: Tensor) -> Tensor:
    """Tell which boxes [..., 4] have x1 < x0 or y1 < y0, as a boolean [...]. A box of zero size is not inverted."""
    x0, y0, x1, y1 = _require_boxes("boxes_xyxy", boxes_xyxy).unbind(-1)
    return (x1 < x0) | (y1 < y0)


def clamp_xyxy(boxes_xyxy: Tensor, size_wh: Tensor) -> Tensor:
    """Clamp corners [..., 4] into [0, width] x [0, height]; `size_wh` [..., 2] broadcasts and has the units of the boxes."""
    limit = _twice(size_wh, boxes_xyxy)
    return torch.minimum(_require_boxes("boxes_xyxy", boxes_xyxy).clamp(min=0), limit)


def mask_boxes(masks: Tensor) -> Tensor:
    """Tight boxes xyxy in pixels of masks, bool [mask, y, x], edges exclusive on the right and below: [mask, 4]; zeros for an empty mask.

    Differs in: the released code takes the outer contour, which makes boxes a pixel larger on every side, and -1 for an empty mask.
    """
    edges = []
    for axis in (1, 2):
        line = masks.any(axis).int()
        edges.append((line.argmax(1), line.shape[1] - line.flip(1).argmax(1)))
    (left, right), (top, bottom) = edges
    boxes = torch.stack([left, top, right, bottom], -1).float()
    return torch.where(masks.flatten(1).any(1)[:, None], boxes, 0.0)


def box_area(boxes_xyxy: Tensor) -> Tensor:
    """Area [...] of boxes [..., 4]; an inverted box is empty (0), never a negative or a doubly negated area."""
    x0, y0, x1, y1 = _require_boxes("boxes_xyxy", boxes_xyxy).unbind(-1)
    return (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)


def box_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """IoU [...] in [0,1] of aligned boxes [..., 4]; two empty boxes have IoU 0."""
    return _iou_and_union(a_xyxy, b_xyxy)[0]


def pairwise_box_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """IoU [a, b] of every box in `a_xyxy` [a, 4] with every box in `b_xyxy` [b, 4]."""
    return box_iou(a_xyxy[:, None], b_xyxy[None])


def box_giou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Generalised IoU [...] in [-1,1] of aligned, ordered boxes [..., 4]: IoU - (hull - union) / hull.

    Unlike IoU it has a gradient for boxes that do not touch. A hull without area adds nothing.

    Source: Rezatofighi et al. 2019 (arXiv 1902.09630), algorithm 1.
    """
    iou, union = _iou_and_union(a_xyxy, b_xyxy)
    low = torch.minimum(a_xyxy[..., :2], b_xyxy[..., :2])
    high = torch.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    hull = (high - low).clamp(min=0).prod(-1)
    return iou - _ratio(hull - union, hull)


def pairwise_box_giou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Generalised IoU [a, b] of every box in `a_xyxy` [a, 4] with every box in `b_xyxy` [b, 4]."""
    return box_giou(a_xyxy[:, None], b_xyxy[None])


def _iou_and_union(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.maximum(_require_boxes("a_xyxy", a_xyxy)[..., :2], _require_boxes("b_xyxy", b_xyxy)[..., :2])
    high = torch.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    union = box_area(a_xyxy) + box_area(b_xyxy) - shared
    return _ratio(shared, union), union


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    # The inner `where` keeps the gradient finite: the quotient of the branch not taken must be finite as well.
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1), 0)


def _twice(size_wh: Tensor, like: Tensor) -> Tensor:
    if size_wh.shape[-1:] != (2,):
        raise UsageError("size_wh", expected="a last axis of 2 (width, height)", got=tuple(size_wh.shape))
    return torch.cat([size_wh, size_wh], dim=-1).to(like)


def _require_boxes(argument: str, boxes: Tensor) -> Tensor:
    if boxes.shape[-1:] != (4,):
        raise UsageError(argument, expected="a last axis of 4 coordinates", got=tuple(boxes.shape))
    return boxes
