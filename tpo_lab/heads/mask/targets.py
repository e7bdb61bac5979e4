"""What the mask head learns from: masks and boxes of one object per answer, at the frames that the model saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tpo_lab.axes import require_axes
from tpo_lab.boxes import mask_boxes, normalise_xyxy
from tpo_lab.errors import UsageError
from tpo_lab.heads.base import ClipInfo, require_answers
from tpo_lab.rle import decode_rle
from tpo_lab.sample.times import nearest_annotation


@dataclass(frozen=True)
class MaskItem:
    """One answer's annotation, at the frames that the model saw.

    Attributes:
        masks: share of each pixel of a square that the object covers, in [0,1] [frame, side, side]; nothing where it is not visible.
        boxes_xyxy: corners in [0,1] of the frame [frame, 4]; zeros where it is not visible.
        visible: whether it can be seen [frame].
        known: whether the frame is annotated [frame].
        has_masks: whether masks are annotated, not only boxes.
    """

    masks: Tensor
    boxes_xyxy: Tensor
    visible: Tensor
    known: Tensor
    has_masks: bool


@dataclass(frozen=True)
class MaskTargets:
    """The annotations of all slots, padded.

    Attributes:
        masks: as in `MaskItem` [slot, frame, side, side].
        boxes_xyxy: [slot, frame, 4].
        visible: [slot, frame].
        known: [slot, frame].
        has_masks: [slot].
    """

    masks: Tensor
    boxes_xyxy: Tensor
    visible: Tensor
    known: Tensor
    has_masks: Tensor

    def validate(self) -> MaskTargets:
        """Return itself, or raise a `UsageError`."""
        slot, frame, _, _ = require_axes("target.masks", self.masks, slot=None, frame=None, h=None, w=None)
        require_axes("target.boxes_xyxy", self.boxes_xyxy, slot=slot, frame=frame, xyxy=4)
        require_axes("target.visible", self.visible, slot=slot, frame=frame)
        require_axes("target.known", self.known, slot=slot, frame=frame)
        require_axes("target.has_masks", self.has_masks, slot=slot)
        return self


def encode_item(annotation: Mapping[str, Any], clip: ClipInfo, side: int) -> MaskItem:
    """Turn {"times_sec", "rle"} or {"times_sec", "xyxy"} into an item; None stands where the object is not visible.

    A frame in a gap between annotations (`nearest_annotation`) is neither "there" nor "not there".

    Args:
        annotation: of the sample schema, pixels and seconds.
        clip: whose frames the model saw.
        side: of the square that masks are brought to.

    Raises:
        UsageError: neither masks nor boxes, or masks of another size than the clip.
    """
    times = tuple(annotation.get("times_sec", ()))
    shown = annotation.get("rle", annotation.get("xyxy"))
    if shown is None or not times:
        raise UsageError("mask", expected="times_sec with rle or xyxy", got=sorted(annotation))
    frame_sec = clip.duration_sec / max(len(clip.times_sec), 1)
    nearest, near = nearest_annotation(clip.times_sec, times, lone_reach_sec=0.5 * frame_sec)
    count, has_masks = len(clip.times_sec), "rle" in annotation
    masks, boxes = torch.zeros(count, side, side), torch.zeros(count, 4)
    visible = torch.zeros(count, dtype=torch.bool)
    known = torch.from_numpy(near)
    for frame, place in enumerate(nearest.tolist()):
        if not known[frame] or shown[place] is None:
            continue
        visible[frame] = True
        if not has_masks:
            boxes[frame] = normalise_xyxy(torch.tensor(shown[place], dtype=torch.float32), torch.tensor([clip.width, clip.height]))
            continue
        mask = torch.from_numpy(decode_rle(f"mask.rle[{place}]", shown[place]))
        if mask.shape != (clip.height, clip.width):
            got = f"{mask.shape[1]} x {mask.shape[0]}"
            raise UsageError(f"mask.rle[{place}].size", expected=f"the clip's {clip.width} x {clip.height} pixels", got=got)
        visible[frame] = bool(mask.any())
        if visible[frame]:
            boxes[frame] = normalise_xyxy(mask_boxes(mask[None])[0], torch.tensor([clip.width, clip.height]))
            masks[frame] = functional.interpolate(mask[None, None].float(), (side, side), mode="area")[0, 0]
    return MaskItem(masks, boxes, visible, known, has_masks)


def collate_items(items: Sequence[MaskItem], slots_per_answer: Sequence[int], device: torch.device | str) -> MaskTargets:
    """Pad frames to the longest; every slot of an answer gets the same."""
    require_answers(items, slots_per_answer)
    repeats = torch.tensor(slots_per_answer, dtype=torch.long)

    def stacked(rows: list[Tensor]) -> Tensor:
        joined = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else torch.zeros(0)
        return joined.repeat_interleave(repeats, 0).to(device)

    return MaskTargets(
        masks=stacked([item.masks for item in items]),
        boxes_xyxy=stacked([item.boxes_xyxy for item in items]),
        visible=stacked([item.visible for item in items]),
        known=stacked([item.known for item in items]),
        has_masks=torch.tensor([item.has_masks for item in items], dtype=torch.bool).repeat_interleave(repeats).to(device),
    )
