"""The mask head: prompt tokens from the task embedding, SAM2's masks from those, on every frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tpo_lab.boxes import mask_boxes
from tpo_lab.heads.base import ClipInfo, Head, HeadSettings, Visual, require_finite
from tpo_lab.heads.mask.adapter import MaskAdapter
from tpo_lab.heads.mask.kept import FollowedFrame, followed_bytes
from tpo_lab.heads.mask.prediction import MaskPrediction, Proposal, Proposer, Step
from tpo_lab.heads.mask.settings import SHIPPED, TERMS, MaskSettings, PromptedBy
from tpo_lab.heads.mask.targets import MaskItem, MaskTargets, collate_items, encode_item
from tpo_lab.losses import BoxL1, dice_values, mask_bce_values
from tpo_lab.rle import encode_rle
from tpo_lab.sam2.objective import sam2_terms, there_values
from tpo_lab.sam2.tracker import FrameFeatures, Masks, Memory, MemoryBank, Tracker

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

LARGEST_TARGET = 256
"""Masks are compared at SAM2's own image size, at most at this."""
LARGE_BYTES = 100 << 20
"""Weights whose loading takes long enough for a progress bar."""
FRAMES_AT_ONCE = 64
"""Most frames that the image encoder sees at once."""
PIXELS_AT_ONCE = 2 << 20
"""Most pixels that it sees at once: in hiera-large, a frame of 1024 x 1024 takes 600 MiB for a moment, 64 of them 38 GiB."""


class MaskHead(Head[MaskPrediction, MaskTargets]):
    """SAM2 prompted by the task embedding: a mask adapter turns it into the three tokens that SAM2's prompt encoder makes of a box.

    The tokens prompt one frame; SAM2 follows the object from there through all others, forward and backward in time. Slots are SAM2's
    objects, so that several, of one clip or of several, cost little more than one.

    Source: TPO section 3 (mask head) and the released code; SAM2 (arXiv 2408.00714).
    Differs in: the prompted frame need not be the first (`condition`), and masks are propagated both ways; what comes out of SAM2 can be
    trained (`loss`), as the paper says and the released code does not.

    Args:
        embed_dim: width of the task embedding.
        settings: of the head.
        sam: the SAM2 model; `settings.sam` names it where None.
    """

    name: ClassVar[str] = "mask"
    variant: ClassVar[str] = "sam2"
    needs: ClassVar[frozenset[str]] = frozenset({"frames"})
    given: ClassVar[tuple[str, ...]] = ("sam.",)
    Settings: ClassVar[type[HeadSettings]] = MaskSettings
    settings: MaskSettings

    def __init__(self, embed_dim: int, settings: MaskSettings | None = None, sam: Sam2VideoModel | None = None) -> None:
        super().__init__(embed_dim, settings)
        self.sam = load_named(self.settings.sam, self.settings.image_size) if sam is None else sam
        self.tracker = Tracker(self.sam)
        self.target_side = min(self.tracker.image_size, LARGEST_TARGET)
        self.adapter = self.make_adapter(embed_dim)
        for parameter in self.sam.parameters():
            parameter.requires_grad_(False)
        self.train(self.training)

    def make_adapter(self, embed_dim: int) -> nn.Module:
        """The part between language model and SAM2; the only one that learns, unless a recipe names others."""
        return MaskAdapter(embed_dim, int(self.sam.hidden_dim), self.settings.adapter_layers)

    def train(self, mode: bool = True) -> MaskHead:
        """SAM2 stays in evaluation mode, without dropout; while the head trains, the tracker is soft."""
        super().train(mode)
        self.sam.train(False)
        self.tracker.soft = mode
        return self

    @contextmanager
    def prompted(self, by: PromptedBy) -> Iterator[None]:
        """For a while, another setting `prompt`."""
        before = self.settings
        self.settings = replace(before, prompt=by)
        try:
            yield
        finally:
            self.settings = before

    def proposer(self, task_embedding: Tensor, visual: Visual) -> Proposer:
        """What the task embeddings say of any frame; here the same of all."""
        tokens, boxes = self.adapter(task_embedding)
        same = Proposal(tokens, boxes, tokens.new_zeros(len(tokens)))
        return lambda frame: same

    def predict(self, task_embedding: Tensor, visual: Visual) -> MaskPrediction:
        """Masks on every frame; while the head trains, on `train_frames` of them."""
        return self.follow(self.proposer(task_embedding, visual), visual)

    def follow(self, propose: Proposer, visual: Visual) -> MaskPrediction:
        """Prompt one frame of each slot, and follow what is there."""
        rows = self._seen(visual)
        condition = self._condition(propose, visual, rows)
        proposal = propose(condition)
        if self.settings.prompt == "direct" and not self.training and visual.prompt_xyxy is not None:
            condition, proposal = self._pointed(condition, proposal, visual.prompt_xyxy)
        slots = torch.arange(len(condition), device=condition.device)
        prompted = rows(slots, condition)
        first = self.tracker.segment(prompted, self.tracker.prompt_tokens(proposal.tokens))
        memory = self.tracker.remember(prompted, first, prompted=True)
        frames = visual.frame_valid.shape[1]
        ages = self._ages(frames)
        steps = [Step(slots, condition, first)]
        for sign in (1, -1):
            steps += self._propagate(rows, condition, memory, ages, sign, frames)
        return MaskPrediction(tuple(steps), condition, proposal, visual.frame_valid)

    def _pointed(self, condition: Tensor, proposal: Proposal, prompt_xyxy: Tensor) -> tuple[Tensor, Proposal]:
        """The same, and for slots whose user pointed at a box the first frame and the box."""
        pointed = prompt_xyxy.isfinite().all(-1)
        boxes = torch.where(pointed[:, None], prompt_xyxy, proposal.boxes_xyxy)
        own = self.tracker.prompt_boxes(prompt_xyxy.nan_to_num() * self.tracker.image_size).sparse
        tokens = torch.where(pointed[:, None, None], own, proposal.tokens)
        return torch.where(pointed, 0, condition), Proposal(tokens, boxes, proposal.logit)

    def _seen(self, visual: Visual) -> _Rows:
        """Features of every frame, encoded once per clip."""
        frames = visual.frames
        assert frames is not None
        clips = torch.arange(len(frames), device=frames.device) if visual.clip is None else visual.clip
        _, clip = torch.unique(clips, return_inverse=True)
        first = torch.stack([(clip == number).nonzero()[0, 0] for number in range(int(clip.max()) + 1)]) if len(clip) else clip
        flat = frames[first].flatten(0, 1)
        train = any(parameter.requires_grad for parameter in self.sam.vision_encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and train):
            bf16 = self.settings.encoder_precision == "bf16" and not train
            parts = [self.tracker.encode(part, bf16=bf16) for part in torch.split(flat, frames_at_once(self.tracker.image_size))]
        seen = FrameFeatures(*(torch.cat(levels) for levels in zip(*((p.fine, p.middle, p.coarse) for p in parts), strict=True)))
        return _Rows(seen, clip, frames.shape[1])

    def candidates(self, propose: Proposer, visual: Visual) -> Tensor:
        """Frames that "best" chooses from, LongTensor [candidate, slot]: evenly spread from the first to the last."""
        count = visual.frame_valid.sum(1)
        share = torch.linspace(0, 1, self.settings.candidates, device=count.device)
        return (share[:, None] * (count - 1).clamp(min=0)).round().long()

    def _condition(self, propose: Proposer, visual: Visual, rows: _Rows) -> Tensor:
        slots = torch.arange(len(visual.frame_valid), device=visual.frame_valid.device)
        if self.settings.condition == "first":
            return torch.zeros_like(slots)
        frames = self.candidates(propose, visual)
        scores = []
        with torch.no_grad():
            for frame in frames:
                proposal = propose(frame)
                masks = self.tracker.segment(rows(slots, frame), self.tracker.prompt_tokens(proposal.tokens))
                scores.append(functional.logsigmoid(masks.object_logit) + masks.iou.clamp(min=1e-3).log() + proposal.logit)
        return frames[torch.stack(scores).argmax(0), slots]

    def _ages(self, frames: int) -> list[int]:
        """How far from the prompted frame the object is followed: everywhere, or, in training, to some places."""
        chosen = self.settings.train_frames
        places = range(1, frames)
        if not self.training or chosen is None or chosen >= frames:
            return list(places)
        # torch's own random numbers, so that a resumed run goes on as it would have
        order = torch.randperm(frames - 1).tolist()
        return sorted(places[place] for place in order[: chosen - 1])

    def _propagate(self, rows: _Rows, condition: Tensor, memory: Memory, ages: Sequence[int], sign: int, frames: int) -> list[Step]:
        room = frames - 1 - condition if sign > 0 else condition
        order = room.argsort(descending=True, stable=True)
        bank = self.tracker.bank(len(ages) + 1)
        bank.keep(0, memory.rows(order), prompted=True)
        steps = []
        for number, age in enumerate(ages, 1):
            slots = order[room[order] >= age]
            if not len(slots):
                break
            _shorten(bank, len(slots))
            frame = condition[slots] + sign * age
            seen = rows(slots, frame)
            masks, memory = self._followed(seen, bank, number)
            bank.keep(number, memory, prompted=False)
            steps.append(Step(slots, frame, masks))
        return steps

    def _followed(self, seen: FrameFeatures, bank: MemoryBank, number: int) -> tuple[Masks, Memory]:
        """Masks of one frame and what is remembered of it; with `checkpointing` the rest is computed again in the backward pass.

        A frame of 1024 x 1024 keeps more than half a GiB for each object otherwise.
        """
        # by then the bank will hold other frames
        now = replace(bank, prompted=dict(bank.prompted), followed=dict(bank.followed))

        def follow() -> tuple[Masks, Memory]:
            masks = self.tracker.follow(seen, now, number)
            return masks, self.tracker.remember(seen, masks, prompted=False)

        if not (self.checkpointing and self.training and torch.is_grad_enabled()):
            return follow()
        found: tuple[Masks, Memory] = checkpoint(follow, use_reentrant=False)
        return found

    def kept_bytes(self, answers: int, frames: int, *, checkpointing: bool = False) -> int:
        """What following one object for each answer keeps, or encoding some frames takes for a moment, whichever is more."""
        chosen = self.settings.train_frames
        followed = frames if chosen is None else min(frames, chosen)
        frame = FollowedFrame(self.sam.config, self.tracker.grid**2)
        seen = answers * frames * frame.features
        encoded = min(answers * frames, frames_at_once(self.tracker.image_size)) * frame.encoding
        return seen + max(encoded, answers * followed_bytes(frame, followed, checkpointing=checkpointing))

    def losses(self, prediction: MaskPrediction, target: MaskTargets) -> dict[str, Tensor]:
        """The terms of the chosen loss.

        "mask": "bce" and "dice" per slot and frame in which the object can be seen, "there" per annotated one. "sam2": "focal", "dice",
        "iou" and "there" alike. "distill": "token" and "box" per slot whose object can be seen in the prompted frame.
        """
        target.validate()
        if self.settings.loss == "distill":
            return self._distilled(prediction, target)
        found: dict[str, list[Tensor]] = {name: [] for name in self._terms()}
        for step in prediction.steps:
            place = (step.slot, step.frame)
            known = target.known[place] & prediction.frame_valid[place]
            masks, visible = step.masks.rows(known), target.visible[place][known]
            drawn = visible & target.has_masks[step.slot][known]
            truth = target.masks[place][known][drawn]
            outlined = sam2_terms if self.settings.loss == "sam2" else mask_terms
            for name, values in {**outlined(masks.rows(drawn), truth), "there": there_values(masks, visible)}.items():
                found[name].append(values)
        return {name: torch.cat(values) for name, values in found.items()}

    def _terms(self) -> tuple[str, ...]:
        return TERMS[self.settings.loss]

    def _distilled(self, prediction: MaskPrediction, target: MaskTargets) -> dict[str, Tensor]:
        slots = torch.arange(len(prediction.condition), device=prediction.condition.device)
        seen = target.visible[slots, prediction.condition]
        boxes = target.boxes_xyxy[slots, prediction.condition][seen]
        wanted = self.tracker.prompt_boxes(boxes * self.tracker.image_size).sparse.detach()
        token = (prediction.proposal.tokens[seen] - wanted).abs().mean((1, 2))
        return {"token": token, "box": BoxL1()(prediction.proposal.boxes_xyxy[seen], boxes)}

    def weights(self) -> Mapping[str, float]:
        """The weights of the terms of the chosen loss."""
        named = super().weights()
        return {term: named[term] for term in self._terms()}

    def encode_target(self, annotation: Mapping[str, Any], clip: ClipInfo) -> MaskItem:
        """Read masks, or boxes, of one answer; see `encode_item`."""
        return encode_item(annotation, clip, self.target_side)

    def collate_targets(self, items: Sequence[MaskItem], slots_per_answer: Sequence[int], device: torch.device | str) -> MaskTargets:
        """Pad frames to the longest; every slot of an answer gets the same."""
        return collate_items(items, slots_per_answer, device)

    def decode(self, prediction: MaskPrediction, clips: Sequence[ClipInfo], answer: Tensor) -> list[dict[str, Any]]:
        """Per answer: "times_sec" of the frames; per object and frame "masks" as run lengths, "track_xyxy", the box of the mask in pixels,
        both None where the object is not visible, and "scores" in (0, 1), the probability that it is; and "prompted_sec" per object.
        """
        logits, there, _ = prediction.dense()
        there = require_finite(self.name, there.masked_fill(~prediction.frame_valid, 0))
        answer, decoded = answer.cpu(), []
        for index, clip in enumerate(clips):
            slots = (answer == index).nonzero()[:, 0].tolist()
            count = len(clip.times_sec)
            found: dict[str, Any] = {"times_sec": list(clip.times_sec), "masks": [], "track_xyxy": [], "scores": [], "prompted_sec": []}
            for slot in slots:
                large = functional.interpolate(
                    logits[slot, :count, None].detach().float().cpu(), (clip.height, clip.width), mode="bilinear", align_corners=False
                )
                inside = (large[:, 0] > 0) & (there[slot, :count, None, None] > 0)
                boxes = mask_boxes(inside)
                visible = inside.flatten(1).any(1).tolist()
                found["masks"].append([encode_rle(mask.numpy()) if seen else None for mask, seen in zip(inside, visible, strict=True)])
                found["track_xyxy"].append([box.tolist() if seen else None for box, seen in zip(boxes, visible, strict=True)])
                found["scores"].append(there[slot, :count].sigmoid().tolist())
                found["prompted_sec"].append(clip.times_sec[int(prediction.condition[slot])])
            decoded.append(found)
        return decoded

    def diagnostics(self, prediction: MaskPrediction, target: MaskTargets) -> dict[str, float]:
        """Mean IoU of the masks where the object can be seen, and how often the object score is right."""
        with torch.no_grad():
            logits, there, _ = prediction.dense()
            followed = there.isfinite() & target.known & prediction.frame_valid
            seen = followed & target.visible & target.has_masks[:, None]
            found = {"there_rate": float(((there > 0) == target.visible)[followed].float().mean())} if followed.any() else {}
            if seen.any():
                large = functional.interpolate(logits[seen][:, None], target.masks.shape[-2:], mode="bilinear", align_corners=False)
                large, truth = large[:, 0] > 0, target.masks[seen] > 0.5
                iou = (large & truth).sum((1, 2)) / (large | truth).sum((1, 2)).clamp(min=1)
                found["mean_iou"] = float(iou.mean())
        return found


@dataclass(frozen=True)
class _Rows:
    """Features of single frames: called with slots and a frame of each, one row per slot."""

    seen: FrameFeatures
    clip: Tensor
    frames: int

    def __call__(self, slot: Tensor, frame: Tensor) -> FrameFeatures:
        return self.seen.rows(self.clip[slot] * self.frames + frame)


def mask_terms(masks: Masks, truth: Tensor) -> dict[str, Tensor]:
    """ "bce" and "dice" of the chosen mask with the true one in [0,1] [row, h, w].

    Source: LISA (arXiv 2308.00692).
    """
    logits = functional.interpolate(masks.logits[:, None], truth.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return {"bce": mask_bce_values(logits, truth), "dice": dice_values(logits, truth)}


def frames_at_once(image_size: int) -> int:
    """How many frames the image encoder sees at once, which are squares of so many pixels a side once it sees them."""
    return min(FRAMES_AT_ONCE, max(1, PIXELS_AT_ONCE // image_size**2))


def load_named(name: str, image_size: int | None) -> Sam2VideoModel:
    """The shipped SAM2, or one from a folder, the hub or an official file."""
    from tpo_lab.backbones import shipped
    from tpo_lab.sam2.weights import load_sam2

    place = shipped(SHIPPED) if name == SHIPPED else name
    with _bar_for_large_files(Path(place)):
        return load_sam2(place, image_size=image_size)


@contextmanager
def _bar_for_large_files(folder: Path) -> Iterator[None]:
    """A bar for a file of a few megabytes says nothing, and stays on the screen."""
    from transformers.utils import logging

    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else LARGE_BYTES
    turn: dict[str, Callable[[], None]] = {"off": logging.disable_progress_bar, "on": logging.enable_progress_bar}
    was_on = logging.is_progress_bar_enabled()
    if size < LARGE_BYTES:
        turn["off"]()
    try:
        yield
    finally:
        if was_on:
            turn["on"]()


def _shorten(bank: MemoryBank, rows: int) -> None:
    """Keep the memories of the first rows alone."""
    for memories in (bank.prompted, bank.followed):
        for number, memory in memories.items():
            if len(memory.pointer) > rows:
                memories[number] = memory.rows(slice(0, rows))
