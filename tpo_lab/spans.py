"""Spans of time as tensors [..., 2]: conversions, 1-D IoU, and the cells of the timeline that sampled frames stand for.

`windows_sec` are (start, end) in seconds from the start of the clip, the end exclusive; `_cw` are (centre, width) in [0,1] of the duration.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tpo_lab.errors import UsageError


def sec_to_cw(windows_sec: Tensor, duration_sec: Tensor | float) -> Tensor:
    """Turn windows (start, end) in seconds [..., 2] into (centre, width) in [0,1] of `duration_sec`, which broadcasts as [...]."""
    start, end = (_require_spans("windows_sec", windows_sec) / _column(duration_sec, windows_sec)).unbind(-1)
    return torch.stack([(start + end) / 2, end - start], dim=-1)


def cw_to_sec(spans_cw: Tensor, duration_sec: Tensor | float) -> Tensor:
    """Turn (centre, width) in [0,1] [..., 2] into (start, end) in seconds of `duration_sec`, which broadcasts as [...]; no clamp."""
    centre, width = (_require_spans("spans_cw", spans_cw) * _column(duration_sec, spans_cw)).unbind(-1)
    return torch.stack([centre - width / 2, centre + width / 2], dim=-1)


def span_iou(a_sec: Tensor, b_sec: Tensor) -> Tensor:
    """IoU [...] in [0,1] of aligned windows (start, end) [..., 2]; two empty windows have IoU 0."""
    return _iou_and_union(a_sec, b_sec)[0]


def pairwise_span_iou(a_sec: Tensor, b_sec: Tensor) -> Tensor:
    """IoU [a, b] of every window in `a_sec` [a, 2] with every window in `b_sec` [b, 2]."""
    return span_iou(a_sec[:, None], b_sec[None])


def span_giou(a_sec: Tensor, b_sec: Tensor) -> Tensor:
    """Generalised 1-D IoU [...] in [-1,1] of aligned, ordered windows [..., 2]: IoU - (hull - union) / hull.

    Source: the matching cost of CG-DETR (arXiv 2311.08835), as Moment-DETR defines it.
    """
    iou, union = _iou_and_union(a_sec, b_sec)
    hull = torch.maximum(a_sec[..., 1], b_sec[..., 1]) - torch.minimum(a_sec[..., 0], b_sec[..., 0])
    return iou - _ratio(hull - union, hull)


def pairwise_span_giou(a_sec: Tensor, b_sec: Tensor) -> Tensor:
    """Generalised 1-D IoU [a, b] of every window in `a_sec` [a, 2] with every window in `b_sec` [b, 2]."""
    return span_giou(a_sec[:, None], b_sec[None])


def span_nms(windows_sec: Tensor, scores: Tensor, iou: float, count: int) -> Tensor:
    """Indices of at most `count` windows [window, 2], best score first, none with an IoU above `iou` with a better one."""
    left = scores.clone()
    kept: list[int] = []
    while len(kept) < min(count, len(scores)) and left.max() > -torch.inf:
        best = int(left.argmax())
        kept.append(best)
        left[span_iou(windows_sec[best], windows_sec) > iou] = -torch.inf
        left[best] = -torch.inf
    return torch.tensor(kept, dtype=torch.long)


def frame_cells(times_sec: Tensor, duration_sec: Tensor, valid: Tensor) -> Tensor:
    """Cut the timeline into one cell per sampled frame: every moment belongs to the frame nearest in time.

    A cell reaches from the midpoint to the previous valid frame to the midpoint to the next one; the first starts at 0 and the last
    ends at the duration. So the valid cells tile [0, duration] without gap or overlap. A masked frame gets an empty cell (0, 0).

    Args:
        times_sec: seconds of the frames [slot, frame], not decreasing over the valid ones.
        duration_sec: seconds of the clips [slot].
        valid: which frames exist [slot, frame], True = valid; padding may stand anywhere.

    Returns:
        (start, end) of each cell in seconds [slot, frame, 2].

    Raises:
        UsageError: the valid times decrease.
    """
    previous, following = neighbour_times(times_sec, valid)
    limit = duration_sec[..., None]
    start = torch.where(previous.isinf(), 0, (previous + times_sec) / 2)
    end = torch.where(following.isinf(), limit, (times_sec + following) / 2)
    cells = torch.stack([start, end], dim=-1)
    return torch.where(valid[..., None], torch.minimum(cells.clamp(min=0), limit[..., None]), 0)


def neighbour_times(times_sec: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Seconds of the previous and of the next valid frame, each [slot, frame]; -inf and +inf where there is none.

    Raises:
        UsageError: the valid times decrease.
    """
    infinite = times_sec.new_full((*times_sec.shape[:-1], 1), torch.inf)
    so_far = torch.where(valid, times_sec, -torch.inf).cummax(-1).values
    if (valid & (times_sec < so_far)).any():
        raise UsageError("times_sec", expected="times that do not decrease over the valid frames", got=times_sec.tolist())
    to_come = torch.where(valid, times_sec, torch.inf).flip(-1).cummin(-1).values.flip(-1)
    return torch.cat([-infinite, so_far[..., :-1]], dim=-1), torch.cat([to_come[..., 1:], infinite], dim=-1)


def coverage(cells_sec: Tensor, windows_sec: Tensor, window_valid: Tensor) -> Tensor:
    """Share in [0,1] of each cell that the union of the windows covers.

    Args:
        cells_sec: (start, end) of the cells in seconds [slot, frame, 2].
        windows_sec: (start, end) in seconds [slot, window, 2]; they may overlap and come in any order.
        window_valid: which windows exist [slot, window], True = valid.

    Returns:
        The shares [slot, frame]. A cell without length counts as its one moment: 1 inside a window, else 0.
    """
    disjoint = _disjoint(windows_sec, window_valid)
    start, end = cells_sec[..., :, None, 0], cells_sec[..., :, None, 1]
    shared = (torch.minimum(end, disjoint[..., None, :, 1]) - torch.maximum(start, disjoint[..., None, :, 0])).clamp(min=0).sum(-1)
    inside = ((disjoint[..., None, :, 0] <= start) & (start < disjoint[..., None, :, 1])).any(-1)
    length = (end - start).squeeze(-1)
    return torch.where(length > 0, _ratio(shared, length).clamp(max=1), inside.to(cells_sec.dtype))


def boundary_weights(times_sec: Tensor, valid: Tensor, moments_sec: Tensor, moment_valid: Tensor) -> Tensor:
    """Spread moments over the two frames around each, in proportion to nearness, as a distribution over frames.

    The most weighted frame is the one whose cell (`frame_cells`) holds the moment. A moment before the first or after the last frame
    goes to that frame alone. Several moments share the mass alike.

    Args:
        times_sec: seconds of the frames [slot, frame], not decreasing over the valid ones.
        valid: which frames exist [slot, frame], True = valid.
        moments_sec: seconds [slot, moment].
        moment_valid: which moments exist [slot, moment], True = valid.

    Returns:
        Probabilities [slot, frame] that sum to 1 over the valid frames, or to 0 where a slot has no moment.
    """
    previous, following = (neighbour[..., :, None] for neighbour in neighbour_times(times_sec, valid))
    time, moment = times_sec[..., :, None], moments_sec[..., None, :]
    rising = torch.where(previous.isinf(), 1, _ratio(moment - previous, time - previous))
    falling = torch.where(following.isinf(), 1, _ratio(following - moment, following - time))
    near = torch.where(moment == time, 1, torch.where(moment < time, rising, falling)).clamp(0, 1)
    near = torch.where(valid[..., None], near, 0)
    each = _ratio(near, near.sum(-2, keepdim=True)) * moment_valid[..., None, :]
    return each.sum(-1) / moment_valid.sum(-1, keepdim=True).clamp(min=1)


def _disjoint(windows_sec: Tensor, window_valid: Tensor) -> Tensor:
    # Sorted by start, each window gives up what an earlier one already covers; the union stays and lengths may be summed.
    windows = torch.where(window_valid[..., None], windows_sec, 0)
    windows = windows.gather(-2, windows[..., :1].argsort(-2).expand_as(windows))
    if windows.shape[-2] == 0:
        return windows
    reached = windows[..., 1].cummax(-1).values
    reached = torch.cat([torch.zeros_like(reached[..., :1]), reached[..., :-1]], dim=-1)
    start = torch.maximum(windows[..., 0], reached)
    return torch.stack([start, torch.maximum(start, windows[..., 1])], dim=-1)


def _iou_and_union(a_sec: Tensor, b_sec: Tensor) -> tuple[Tensor, Tensor]:
    a_start, a_end = _require_spans("a_sec", a_sec).unbind(-1)
    b_start, b_end = _require_spans("b_sec", b_sec).unbind(-1)
    shared = (torch.minimum(a_end, b_end) - torch.maximum(a_start, b_start)).clamp(min=0)
    union = (a_end - a_start).clamp(min=0) + (b_end - b_start).clamp(min=0) - shared
    return _ratio(shared, union), union


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1), 0)


def _column(duration_sec: Tensor | float, like: Tensor) -> Tensor:
    duration = torch.as_tensor(duration_sec, dtype=like.dtype, device=like.device)
    if (duration <= 0).any():
        raise UsageError("duration_sec", expected="seconds above 0", got=duration.tolist())
    return duration[..., None]


def _require_spans(argument: str, spans: Tensor) -> Tensor:
    if spans.shape[-1:] != (2,):
        raise UsageError(argument, expected="a last axis of 2", got=tuple(spans.shape))
    return spans
