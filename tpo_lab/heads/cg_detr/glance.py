"""Windows and the glance: a first guess, frame by frame, of what belongs to the moment."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tpo_lab.spans import sec_to_cw, span_iou


def likeliest_windows(logits: Tensor, cells: Tensor, valid: Tensor, count: int, nms_iou: float) -> Tensor:
    """The likeliest windows (centre, width) in [0,1] of the clip, from the start of one frame to the end of another: [slot, count, 2],
    best first.

    A window is the likelier the greater the sum of the logits of its frames, which count by their length: where frames belong to the
    moment or not independently of each other, that is the logarithm of the probability that these frames and no others do, less that
    of none doing so.

    Args:
        logits: of each frame's belonging to the moment [slot, frame].
        cells: (start, end) of each frame in [0,1] of the clip [slot, frame, 2], in order.
        valid: which frames exist, the first ones [slot, frame]; one at least.
        count: how many windows; where a clip has fewer that differ, the last ones are the best once more.
        nms_iou: a window is left out if its IoU with a better one is above this.
    """
    sums = functional.pad((logits * (cells[..., 1] - cells[..., 0]) * valid).cumsum(-1), (1, 0))
    place = torch.arange(valid.shape[1], device=valid.device)
    possible = valid[:, None] & valid[..., None] & (place[:, None] <= place)
    left = (sums[:, None, 1:] - sums[:, :-1, None]).masked_fill(~possible, -torch.inf).flatten(1)
    frames, rows = len(place), torch.arange(len(cells), device=cells.device)
    windows = torch.stack([cells[..., 0].repeat_interleave(frames, 1), cells[..., 1].repeat(1, frames)], -1)
    best, found = left.argmax(-1), []
    for _ in range(count):
        highest, chosen = left.max(-1)
        found.append(windows[rows, torch.where(highest.isinf(), best, chosen)])
        doubles = span_iou(windows, found[-1][:, None]) > nms_iou
        left = left.masked_fill(doubles, -torch.inf).index_put((rows, chosen), left.new_tensor(-torch.inf))
    return sec_to_cw(torch.stack(found, 1), 1.0)


def soft_iou(windows: Tensor, probability: Tensor, cells: Tensor, valid: Tensor) -> Tensor:
    """How well windows [..., slot, window, 2] agree with frames that belong to the moment with these probabilities: [..., slot, window].

    The sum over frames of how much the window covers them times their probability, through the sum of the probability that either holds;
    frames count by their length. Where probabilities are 0 and 1 and windows end with frames, this is their IoU.

    Args:
        windows: (start, end) in [0,1] of the clip.
        probability: in [0,1] [slot, frame].
        cells: (start, end) of each frame in [0,1] of the clip [slot, frame, 2].
        valid: which frames exist [slot, frame].
    """
    length = (cells[..., 1] - cells[..., 0]) * valid
    common = torch.minimum(windows[..., None, 1], cells[:, None, :, 1]) - torch.maximum(windows[..., None, 0], cells[:, None, :, 0])
    covered = (common.clamp(min=0) / (cells[..., 1] - cells[..., 0]).clamp(min=1e-9)[:, None]).clamp(max=1)
    both, share = covered * probability[:, None], length[:, None]
    either = covered + probability[:, None] - both
    return (both * share).sum(-1) / (either * share).sum(-1).clamp(min=1e-9)
