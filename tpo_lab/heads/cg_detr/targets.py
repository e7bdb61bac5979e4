"""What CG-DETR learns from: the windows of each slot, and the saliency of each frame where it is annotated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tpo_lab.axes import require_axes
from tpo_lab.errors import UsageError
from tpo_lab.heads.base import ClipInfo, require_answers
from tpo_lab.heads.windows import pad_windows, read_windows
from tpo_lab.spans import coverage


@dataclass(frozen=True)
class CGDETRItem:
    """One answer's annotation.

    Attributes:
        windows_sec: (start, end) in seconds, the end exclusive, cut to the clip [window, 2].
        grades: annotated saliency of each frame that the model saw, in the annotators' units [frame]; None where there is none.
    """

    windows_sec: Tensor
    grades: Tensor | None


@dataclass(frozen=True)
class CGDETRTarget:
    """The annotations of all slots, padded.

    Attributes:
        windows_sec: (start, end) in seconds of the clip, the end exclusive [slot, window, 2].
        window_valid: which windows exist [slot, window].
        grades: annotated saliency of each frame, in the annotators' units [slot, frame]; 0 where nobody annotated any.
        graded: which slots have annotated saliency [slot].
    """

    windows_sec: Tensor
    window_valid: Tensor
    grades: Tensor
    graded: Tensor

    def validate(self) -> CGDETRTarget:
        """Return itself, or raise a `UsageError`."""
        slot, window, _ = require_axes("target.windows_sec", self.windows_sec, slot=None, window=None, ends=2)
        require_axes("target.window_valid", self.window_valid, slot=slot, window=window)
        require_axes("target.grades", self.grades, slot=slot, frame=None)
        require_axes("target.graded", self.graded, slot=slot)
        return self

    def windows_known(self) -> Tensor:
        """Slots [slot] whose windows are annotated: those that have some, and those where nothing stands out, i.e. nothing happens."""
        return self.window_valid.any(-1) | ~(self.grades > 0).any(-1)

    def inside(self, cells_sec: Tensor, frame_valid: Tensor) -> Tensor:
        """Frames of the moment [slot, frame]: half of whose cell lies in the windows, or which hold a window's middle.

        Where only saliency is annotated: frames with any.
        """
        middle = self.windows_sec.mean(-1)[:, :, None]
        holds = (cells_sec[:, None, :, 0] <= middle) & (middle < cells_sec[:, None, :, 1]) & self.window_valid[..., None]
        covered = (coverage(cells_sec, self.windows_sec, self.window_valid) >= 0.5) | holds.any(1)
        grades = fit_frames(self.grades, frame_valid.shape[1])
        return torch.where(self.window_valid.any(-1, keepdim=True), covered, grades > 0) & frame_valid

    def levels(self, inside: Tensor, *, top_grade: float, count: int) -> Tensor:
        """Saliency as whole levels 0 to `count`, float [slot, frame]: the grade's share of `top_grade`; 1 inside where not annotated."""
        grades = fit_frames(self.grades, inside.shape[1])
        scaled = (grades / top_grade * count).round().clamp(0, count)
        return torch.where(self.graded[:, None], scaled, inside.to(scaled.dtype))


def encode_item(annotation: Mapping[str, Any], clip: ClipInfo) -> CGDETRItem:
    """Turn {"windows_sec": [[start, end], ...], "saliency": {"step_sec": s, "scores": [...]} or None} into an item.

    Raises:
        UsageError: neither key, or a window that is empty, inverted or outside the clip.
    """
    saliency = annotation.get("saliency")
    if "windows_sec" not in annotation and saliency is None:
        raise UsageError("temporal.windows_sec", expected="a list of [start, end], empty if nothing happens", got=sorted(annotation))
    windows = read_windows(annotation.get("windows_sec", []), clip)
    if saliency is None:
        return CGDETRItem(windows, None)
    step, scores = float(saliency["step_sec"]), list(saliency["scores"])
    places = [int(second / step) for second in clip.times_sec]
    return CGDETRItem(windows, torch.tensor([float(scores[place]) if place < len(scores) else 0.0 for place in places]))


def collate_items(items: Sequence[CGDETRItem], slots_per_answer: Sequence[int], device: torch.device | str) -> CGDETRTarget:
    """Pad windows and frames to the longest; every slot of an answer gets the same."""
    require_answers(items, slots_per_answer)
    windows, present = pad_windows([item.windows_sec for item in items])
    frames = max((len(item.grades) for item in items if item.grades is not None), default=0)
    grades = torch.zeros(len(items), frames)
    for row, item in enumerate(items):
        if item.grades is not None:
            grades[row, : len(item.grades)] = item.grades
    graded = torch.tensor([item.grades is not None for item in items], dtype=torch.bool)
    repeats = torch.tensor(slots_per_answer, dtype=torch.long)
    return CGDETRTarget(*(part.repeat_interleave(repeats, 0).to(device) for part in (windows, present, grades, graded)))


def fit_frames(grades: Tensor, frames: int) -> Tensor:
    """Pad grades [slot, frame] with zeros, or cut off their padding, to as many frames as the prediction has."""
    return torch.nn.functional.pad(grades, (0, frames - grades.shape[1]))
