"""What the mask head predicts: prompts for single frames, and masks of one object per slot on many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from tpo_lab.sam2.tracker import Masks


@dataclass(frozen=True)
class Proposal:
    """What the task embedding says of one frame.

    Attributes:
        tokens: in place of a box's [slot, 3, c].
        boxes_xyxy: a box in [0,1] that is read beside them [slot, 4].
        logit: how likely the frame is a good one to begin with, up to a constant [slot].
    """

    tokens: Tensor
    boxes_xyxy: Tensor
    logit: Tensor


Proposer: TypeAlias = Callable[[Tensor], Proposal]
"""Called with a frame of each slot, LongTensor [slot]."""


@dataclass(frozen=True)
class Step:
    """Masks of some slots in one frame each.

    Attributes:
        slot: LongTensor [row].
        frame: of each of them, LongTensor [row].
        masks: [row].
    """

    slot: Tensor
    frame: Tensor
    masks: Masks


@dataclass(frozen=True)
class MaskPrediction:
    """The mask of one object per slot, on every frame that it was followed through.

    Attributes:
        steps: each pair of a slot and a frame once; the first step is the frame that was prompted.
        condition: the frame that was prompted, LongTensor [slot].
        proposal: that of the frame.
        frame_valid: which frames exist [slot, frame].
    """

    steps: tuple[Step, ...]
    condition: Tensor
    proposal: Proposal
    frame_valid: Tensor

    def dense(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mask logits [slot, frame, m, m], object logits [slot, frame], expected IoU [slot, frame]; -inf and 0 where not followed."""
        slots, frames = self.frame_valid.shape
        side = self.steps[0].masks.logits.shape[-1]
        logits = self.steps[0].masks.logits.new_full((slots, frames, side, side), -torch.inf)
        there, iou = logits.new_full((slots, frames), -torch.inf), logits.new_zeros(slots, frames)
        for step in self.steps:
            place = (step.slot, step.frame)
            logits[place], there[place], iou[place] = step.masks.logits, step.masks.object_logit, step.masks.iou
        return logits, there, iou
