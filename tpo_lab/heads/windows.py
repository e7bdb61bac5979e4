"""Windows in seconds as the temporal heads read them from annotations, pad them, and pool them in one answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tpo_lab.errors import UsageError
from tpo_lab.heads.base import ClipInfo
from tpo_lab.spans import span_nms


def read_windows(windows_sec: Sequence[Sequence[float]], clip: ClipInfo) -> Tensor:
    """Annotated windows (start, end) in seconds [window, 2], the end exclusive, cut to the clip.

    Raises:
        UsageError: a window that is empty, inverted or outside the clip.
    """
    windows = torch.tensor(windows_sec, dtype=torch.float32).reshape(-1, 2)
    inside = windows.clamp(0, clip.duration_sec)
    wrong = (~(inside[:, 0] < inside[:, 1])).nonzero()[:, 0].tolist()
    if wrong:
        expected = f"start < end, in part within the clip of {clip.duration_sec:g} s"
        raise UsageError(f"temporal.windows_sec[{wrong[0]}]", expected=expected, got=windows[wrong[0]].tolist())
    return inside


def pad_windows(items: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Windows [window, 2] of each item as one tensor [item, window, 2], and which of its windows exist [item, window]."""
    counts = torch.tensor([len(item) for item in items], dtype=torch.long)
    windows = torch.zeros(len(items), max(counts.tolist(), default=0), 2)
    for row, item in enumerate(items):
        windows[row, : len(item)] = item
    return windows, torch.arange(windows.shape[1]) < counts[:, None]


def pool_windows(found: Sequence[tuple[Tensor, Tensor]], *, nms_iou: float, count: int) -> tuple[list[list[float]], list[float]]:
    """Windows [window, 2] and scores [window] of all slots of an answer as one list of at most `count`, best first.

    A window whose IoU with a better one is above `nms_iou` is left out.
    """
    windows, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
    kept = span_nms(windows, scores, nms_iou, count)
    return windows[kept].tolist(), scores[kept].tolist()
