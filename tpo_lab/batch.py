"""Rows to tensors: one video prefix and the questions that share it, with a mask that keeps the questions apart.

A row is a clip and any number of conversations about it. Every conversation sees the video and itself, nothing else, so that
the result equals one row per conversation while the video is paid for once. A slot is a side branch: it sees what comes before
it, and nothing that comes after sees it, in training and in inference alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tpo_lab.conversation import ConversationEncoder, Encoded, Kind
from tpo_lab.errors import UsageError
from tpo_lab.heads.base import ClipInfo
from tpo_lab.precomputed import ClipFeatures
from tpo_lab.prompts import Pointed
from tpo_lab.sample import Sample


@dataclass(frozen=True)
class Row:
    """A clip and the samples about it.

    Attributes:
        frames: uint8 [frame, 3, image_size, image_size], already resized for the backbone.
        clip: what the heads need to know of the clip.
        samples: conversations about it.
        key: names the frames exactly (media and the state of its file, times, size); used by the feature cache.
        features: by head, what was read from files for those that look at such features; not for heads that no sample asks.

    Raises:
        UsageError: frames and times differ in number.
    """

    frames: Tensor
    clip: ClipInfo
    samples: tuple[Sample, ...]
    key: str
    features: Mapping[str, ClipFeatures] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.frames) != len(self.clip.times_sec):
            raise UsageError("row.clip.times_sec", expected=f"{len(self.frames)}, one of each frame", got=len(self.clip.times_sec))

    def clip_of(self, head: str) -> ClipInfo:
        """The clip as this head sees it: features from files have times of their own."""
        return replace(self.clip, times_sec=self.features[head].times_sec) if head in self.features else self.clip


@dataclass(frozen=True)
class HeadSlots:
    """The slots of one head in a batch.

    Attributes:
        row, token: where each slot is, [slot].
        answer: which answer each slot belongs to, [slot]; an answer is what one sample asks of one head.
        question: first and last (exclusive) token of the user's text, [slot, 2].
        clips, annotations: per answer.
        slots_per_answer: how many slots each answer has.
        prompt_xyxy: the first box that the user pointed at, in [0,1] of the frame, per answer [answer, 4]; NaN where there is none.
    """

    row: Tensor
    token: Tensor
    answer: Tensor
    question: Tensor
    clips: tuple[ClipInfo, ...]
    annotations: tuple[Any, ...]
    slots_per_answer: tuple[int, ...]
    prompt_xyxy: Tensor


@dataclass(frozen=True)
class Batch:
    """Everything a training step needs, on one device.

    Attributes:
        ids, positions: [row, token]; padded on the right.
        segment: [row, token]: 0 the shared prefix, 1.. the conversations, -1 padding.
        is_slot: [row, token].
        predictor: (row, token) of the states that predict a learned token, [target, 2].
        target: the learned tokens' ids, [target].
        is_route: which of them are routes, [target].
        prompts: what users pointed at, in row-major order of their places.
        slots: per head.
        rows: the rows that the batch was made of.
    """

    ids: Tensor
    positions: Tensor
    segment: Tensor
    is_slot: Tensor
    predictor: Tensor
    target: Tensor
    is_route: Tensor
    prompts: Pointed
    slots: dict[str, HeadSlots]
    rows: tuple[Row, ...]

    def attention_mask(self) -> Tensor:
        """Who may look at whom: bool [row, 1, token, key]. Padding looks at itself only."""
        count = self.ids.shape[1]
        here = torch.arange(count, device=self.ids.device)
        causal = here[:, None] >= here[None, :]
        itself = here[:, None] == here[None, :]
        key, query = self.segment[:, None, :], self.segment[:, :, None]
        together = (key == 0) | (key == query)
        mask = causal & together & (key >= 0) & (query >= 0) & ~self.is_slot[:, None, :]
        return (mask | itself)[:, None]

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device; frames stay where they are until the vision tower asks for them."""
        tensors = {name: getattr(self, name).to(device) for name in _TENSORS}
        places = ("row", "token", "answer", "question", "prompt_xyxy")
        slots = {head: replace(slot, **{name: getattr(slot, name).to(device) for name in places}) for head, slot in self.slots.items()}
        return Batch(**tensors, prompts=self.prompts.to(device), slots=slots, rows=self.rows)


_TENSORS = ("ids", "positions", "segment", "is_slot", "predictor", "target", "is_route")


@dataclass
class _Slots:
    row: list[int] = field(default_factory=list)
    token: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    question: list[tuple[int, int]] = field(default_factory=list)
    clips: list[ClipInfo] = field(default_factory=list)
    annotations: list[Any] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    prompts: list[list[float]] = field(default_factory=list)


class Collator:
    """Builds batches for one backbone and one set of tokens.

    Args:
        encoder: turns conversations into token ids.
        placeholder: gives the token ids that stand for a clip, from the times of its frames.
        pad: the id that fills rows.
    """

    def __init__(self, encoder: ConversationEncoder, placeholder: Any, pad: int) -> None:
        self.encoder, self.placeholder, self.pad = encoder, placeholder, pad

    def prefix(self, times_sec: Sequence[float]) -> list[int]:
        """Tokens that every conversation about a clip with frames at these times starts with."""
        return [*self.encoder.opening(), *self.placeholder(times_sec)]

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """Collate rows.

        Raises:
            UsageError: for no rows, or a mention of a prompt that the sample has not.
        """
        if not rows:
            raise UsageError("rows", expected="at least one row", got=0)
        ids: list[list[int]] = []
        positions: list[list[int]] = []
        segment: list[list[int]] = []
        slot_flags: list[list[bool]] = []
        predictor: list[tuple[int, int]] = []
        target: list[int] = []
        is_route: list[bool] = []
        pointed: list[list[list[float]]] = []
        pointed_on: list[tuple[int, int, int]] = []
        slots: dict[str, _Slots] = {}
        for index, row in enumerate(rows):
            prefix = self.prefix(row.clip.times_sec)
            line, places, parts, flags = list(prefix), list(range(len(prefix))), [0] * len(prefix), [False] * len(prefix)
            for number, sample in enumerate(row.samples, 1):
                encoded = self.encoder.encode([(turn.role, turn.text) for turn in sample.conversation])
                offset = len(line)
                _add_slots(slots, encoded, sample, row, index, offset)
                pointed += [_normalised(sample, prompt, row.clip) for prompt in encoded.prompts]
                mentions = [offset + token for token, token_id in enumerate(encoded.ids) if token_id == self.encoder.ids.prompt]
                shown = [_shown_at(row.clip, sample.prompts[prompt].time_sec) for prompt in encoded.prompts]
                pointed_on += [(index, token, frame) for token, frame in zip(mentions, shown, strict=True)]
                place, last = len(prefix), -1
                for token, (token_id, kind) in enumerate(zip(encoded.ids, encoded.kinds, strict=True)):
                    places.append(place)
                    if kind is Kind.SLOT:
                        continue
                    if kind in (Kind.TEXT, Kind.ROUTE) and last >= 0:
                        predictor.append((index, offset + last))
                        target.append(token_id)
                        is_route.append(kind is Kind.ROUTE)
                    place, last = place + 1, token
                line += encoded.ids
                parts += [number] * len(encoded.ids)
                flags += [kind is Kind.SLOT for kind in encoded.kinds]
            ids.append(line)
            positions.append(places)
            segment.append(parts)
            slot_flags.append(flags)
        return Batch(
            ids=_pad(ids, self.pad),
            positions=_pad(positions, 0),
            segment=_pad(segment, -1),
            is_slot=_pad([[int(flag) for flag in flags] for flags in slot_flags], 0).bool(),
            predictor=torch.tensor(predictor, dtype=torch.long).reshape(-1, 2),
            target=torch.tensor(target, dtype=torch.long),
            is_route=torch.tensor(is_route, dtype=torch.bool),
            prompts=Pointed.collate(pointed, pointed_on),
            slots={head: _head_slots(found) for head, found in slots.items()},
            rows=tuple(rows),
        )


def _pad(lines: list[list[int]], value: int) -> Tensor:
    longest = max(len(line) for line in lines)
    return torch.tensor([line + [value] * (longest - len(line)) for line in lines], dtype=torch.long)


def _add_slots(slots: dict[str, _Slots], encoded: Encoded, sample: Sample, row: Row, place: int, offset: int) -> None:
    counts: dict[str, int] = {}
    for slot in encoded.slots:
        found = slots.setdefault(slot.head, _Slots())
        if slot.head not in counts:
            found.clips.append(row.clip_of(slot.head))
            found.annotations.append(_annotation(sample, slot.marker))
            found.counts.append(0)
            found.prompts.append(first_box(sample, row.clip))
        counts[slot.head] = counts.get(slot.head, 0) + 1
        found.counts[-1] += 1
        found.row.append(place)
        found.token.append(offset + slot.token)
        found.answer.append(len(found.counts) - 1)
        found.question.append((offset + slot.question[0], offset + slot.question[1]))


def _annotation(sample: Sample, marker: str) -> Any:
    """The annotation for a marker, in plain JSON types."""
    value: Any = dict(sample.targets).get(marker)
    if isinstance(value, tuple):
        return [item.model_dump(mode="json") if hasattr(item, "model_dump") else item for item in value]
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def first_box(sample: Sample, clip: ClipInfo) -> list[float]:
    """The first box that a sample's user points at, xyxy in [0,1] of the frame; NaN where there is none."""
    places = [place for place, prompt in enumerate(sample.prompts) if prompt.type == "box"]
    return _normalised(sample, places[0], clip)[0] if places else [math.nan] * 4


def _normalised(sample: Sample, prompt: int, clip: ClipInfo) -> list[list[float]]:
    """The corners of a box in one list, or the points of a stroke, in [0,1] of the frame."""
    if prompt >= len(sample.prompts):
        raise UsageError(f"sample {sample.id}: prompts", expected=f"an entry for <prompt:{prompt}>", got=len(sample.prompts))
    given = sample.prompts[prompt]
    if given.type == "box":
        x1, y1, x2, y2 = given.xyxy
        return [[x1 / clip.width, y1 / clip.height, x2 / clip.width, y2 / clip.height]]
    return [[x / clip.width, y / clip.height] for x, y in given.points]


def _shown_at(clip: ClipInfo, time_sec: float) -> int:
    """The frame shown nearest to a time."""
    return min(range(len(clip.times_sec)), key=lambda frame: abs(clip.times_sec[frame] - time_sec))


def _head_slots(found: _Slots) -> HeadSlots:
    return HeadSlots(
        row=torch.tensor(found.row),
        token=torch.tensor(found.token),
        answer=torch.tensor(found.answer),
        question=torch.tensor(found.question).reshape(-1, 2),
        clips=tuple(found.clips),
        annotations=tuple(found.annotations),
        slots_per_answer=tuple(found.counts),
        prompt_xyxy=torch.tensor(found.prompts, dtype=torch.float32).reshape(-1, 4),
    )
