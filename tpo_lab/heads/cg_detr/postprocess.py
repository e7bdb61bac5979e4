"""From proposals to windows in seconds, best first."""

from __future__ import annotations

import torch
from torch import Tensor

from tpo_lab.spans import cw_to_sec


def windows_of(spans_cw: Tensor, scores: Tensor, duration_sec: float, round_sec: float | None) -> tuple[Tensor, Tensor]:
    """Windows (start, end) in seconds of one clip from (centre, width) in [0,1], best score first.

    Args:
        spans_cw: [query, 2].
        scores: [query].
        duration_sec: of the clip; windows are cut to it.
        round_sec: see `snap`; None does not round.

    Returns:
        Windows [query, 2] and their scores [query].
    """
    scores, order = scores.sort(descending=True, stable=True)
    windows = cw_to_sec(spans_cw[order], duration_sec).clamp(0, duration_sec)
    return (windows if round_sec is None else snap(windows, round_sec, duration_sec)), scores


def snap(windows_sec: Tensor, step_sec: float, duration_sec: float) -> Tensor:
    """Move starts and ends [window, 2] to multiples of a step, at most the duration.

    A window that would vanish becomes the step that holds its middle.

    Source: the post-processing of Moment-DETR and CG-DETR.
    Differs in: published, such windows have no length, and no metric can find them; and a clip that is no multiple of the step can
    end before its last window does.
    """
    rounded = (windows_sec / step_sec).round() * step_sec
    last = max(-(-duration_sec // step_sec) - 1, 0)
    held = (windows_sec.mean(-1, keepdim=True) / step_sec).floor().clamp(max=last) * step_sec
    step = torch.cat([held, held + step_sec], dim=-1)
    cut = rounded.clamp(max=duration_sec)
    return torch.where((cut[:, :1] < cut[:, 1:]), cut, step.clamp(max=duration_sec))
