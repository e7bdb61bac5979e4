"""What SAM2's memory is worth: a thing followed with all that SAM2 remembers, and with parts of it forgotten."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from tpo_lab.rle import decode_rle, encode_rle
from tpo_lab.sam2.tracker import Masks, Memory, MemoryBank, Tracker

if TYPE_CHECKING:
    from tpo_lab.heads.base import ClipInfo
    from tpo_lab.sample import Sample

_SEEN = 0.8
"""Share of a thing's largest area that has to show where it is prompted, and again at the end, to speak of hiding."""


@dataclass(frozen=True)
class Kept:
    """What the tracker may look at beside the frame itself.

    Attributes:
        recent: most frames without a prompt whose features it looks at; as many as SAM2 has where None.
        pointers: whether it looks at object pointers.
        prompted: whether it looks at anything; if not, every frame is prompted anew with the first frame's box.
    """

    recent: int | None = None
    pointers: bool = True
    prompted: bool = True


WHOLE, NO_RECENT, NO_POINTERS, NOTHING = Kept(), Kept(recent=0), Kept(pointers=False), Kept(prompted=False)
VARIANTS: Mapping[str, Kept] = {
    "all of it": WHOLE,
    "no object pointers": NO_POINTERS,
    "no recent frames": NO_RECENT,
    "no memory": NOTHING,
}


class _WithoutPointers(MemoryBank):
    """A bank that gives out no pointers."""

    def pointing(self, frame: int, step: int) -> list[tuple[int, Memory]]:
        return []


def looked_at(tracker: Tracker, frame: int, *, prompted: int) -> list[int]:
    """Which frames' features the tracker looks at in a frame, where one before it was prompted and all since were followed, in order."""
    bank = tracker.bank(frame + 1)
    for number in range(prompted, frame):
        bank.keep(number, cast("Memory", number), prompted=number == prompted)
    return sorted(cast("int", memory) for _, memory in bank.spatial(frame, 1))


@torch.no_grad()
def follow_box(tracker: Tracker, frames: Tensor, box_xyxy: Tensor, kept: Kept = WHOLE) -> list[Masks]:
    """Masks of one thing in every frame, from its box in the first.

    Args:
        tracker: SAM2.
        frames: uint8 [frame, 3, h, w].
        box_xyxy: in [0,1] of the frame [4].
        kept: of the memory.
    """
    seen, bank = tracker.encode(frames), tracker.bank(len(frames))
    recent = bank.recent if kept.recent is None else kept.recent
    bank = (MemoryBank if kept.pointers else _WithoutPointers)(recent, bank.pointers)
    prompt = tracker.prompt_boxes(box_xyxy[None] * tracker.image_size)
    rows = [seen.rows(slice(number, number + 1)) for number in range(len(frames))]
    if not kept.prompted:
        return [tracker.segment(row, prompt) for row in rows]
    first = tracker.start(0, rows[0], prompt, bank)
    return [first, *(masks for _, masks in tracker.track(list(enumerate(rows))[1:], bank))]


def shown_masks(masks: Sequence[Masks], size: tuple[int, int]) -> Tensor:
    """The masks of one thing as they are shown, bool [frame, h, w] of a size."""
    logits = torch.stack([each.shown[0] for each in masks])[:, None]
    return functional.interpolate(logits.float(), size, mode="bilinear", align_corners=False)[:, 0] > 0


def mask_ious(predicted: Tensor, truth: Tensor) -> list[float]:
    """IoU of masks, bool [frame, h, w], frame by frame; NaN where the thing is not to be seen."""
    shared, either = (predicted & truth).flatten(1).sum(1), (predicted | truth).flatten(1).sum(1)
    ious = (shared / either.clamp(min=1)).tolist()
    return [iou if seen else math.nan for iou, seen in zip(ious, truth.flatten(1).any(1).tolist(), strict=True)]


def finite_means(rows: Sequence[Sequence[float]]) -> list[float]:
    """Column by column, the mean of the values that are finite; NaN where none is."""
    values = torch.tensor(rows, dtype=torch.float64)
    return values.masked_fill(~values.isfinite(), math.nan).nanmean(0).tolist()


def hidden_for_a_while(samples: Sequence[Sample], count: int) -> list[Sample]:
    """The samples with masks whose thing is to be seen at first and at last, and hides the most in between; each thing once.

    Args:
        samples: any.
        count: how many at most, best first.
    """
    found: dict[tuple[str, str], tuple[float, Sample]] = {}
    for sample in samples:
        areas = _areas(sample)
        largest = max(areas, default=0)
        if largest and min(areas[0], areas[-1]) >= _SEEN * largest:
            key = sample.media.path, str(sample.meta.get("things"))
            found.setdefault(key, (min(areas) / largest, sample))
    return [sample for _, sample in sorted(found.values(), key=lambda pair: pair[0])[:count]]


def _areas(sample: Sample) -> list[int]:
    mask = sample.targets.mask
    return [] if mask is None else [0 if rle is None else int(decode_rle("mask", rle.model_dump()).sum()) for rle in mask.rle]


def as_answer(masks: Tensor, clip: ClipInfo) -> dict[str, Any]:
    """Masks of one thing, bool [frame, h, w], as `mask_picture` takes them."""
    return {"times_sec": list(clip.times_sec), "masks": [[encode_rle(mask.cpu().numpy()) if mask.any() else None for mask in masks]]}
