"""The mask head: prompt tokens from the task embedding, SAM2's masks from those, on every frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from tpo_lab.boxes import mask_boxes, order_corners
from tpo_lab.heads.base import ClipInfo, Head, HeadSettings, Visual, require_finite
from tpo_lab.heads.mask.settings import SHIPPED, MaskSettings, PointingMaskSettings, PromptedBy
from tpo_lab.heads.mask.targets import MaskItem, MaskTargets, collate_items, encode_item
from tpo_lab.heads.patches import Pointing, patch_coverage
from tpo_lab.losses import BoxL1, SoftCrossEntropy, dice_values, mask_bce_values
from tpo_lab.rle import encode_rle
from tpo_lab.sam2.objective import sam2_terms, there_values
from tpo_lab.sam2.tracker import FrameFeatures, Masks, Memory, MemoryBank, Tracker

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

PROMPT_TOKENS = 3
"""A box is two corners and one token that says "no more points" to SAM2."""
LARGEST_TARGET = 256
"""Masks are compared at SAM2's own image size, at most at this."""
TERMS = {"mask": ("bce", "dice", "there"), "sam2": ("focal", "dice", "iou", "there"), "distill": ("token", "box")}
"""By loss."""
FRAMES_AT_ONCE = 64
"""Frames that the image encoder sees at once."""


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
        pointing: of a head that points, logits over the patches of all frames [slot, frame, patch]; else None.
        task_embedding: of a head that points, what its boxes are read from [slot, d]; else None.
        features: of a head that points, those of the patches [slot, frame, patch, d_vision]; else None.
    """

    steps: tuple[Step, ...]
    condition: Tensor
    proposal: Proposal
    frame_valid: Tensor
    pointing: Tensor | None = None
    task_embedding: Tensor | None = None
    features: Tensor | None = None

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

    def propose(self, task_embedding: Tensor, visual: Visual, frame: Tensor) -> Proposal:
        """Tokens for one frame of each slot, LongTensor [slot]; here the same for all."""
        tokens, boxes = self.adapter(task_embedding)
        return Proposal(tokens, boxes, torch.zeros(len(tokens), device=tokens.device))

    def predict(self, task_embedding: Tensor, visual: Visual) -> MaskPrediction:
        """Masks on every frame; while the head trains, on `train_frames` of them."""
        rows = self._seen(visual)
        condition = self._condition(task_embedding, visual, rows)
        proposal = self.propose(task_embedding, visual, condition)
        if self.settings.prompt == "direct" and not self.training and visual.prompt_xyxy is not None:
            condition, proposal = self._pointed(condition, proposal, visual.prompt_xyxy)
        prompt = self.tracker.prompt_tokens(proposal.tokens)
        slots = torch.arange(len(condition), device=condition.device)
        first = self.tracker.segment(rows(slots, condition), prompt)
        steps = [Step(slots, condition, first)]
        memory = self.tracker.remember(rows(slots, condition), first, prompted=True)
        ages = self._ages(visual.frame_valid.shape[1])
        for sign in (1, -1):
            steps += self._follow(rows, condition, memory, ages, sign, visual.frame_valid.shape[1])
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
            parts = [self.tracker.encode(part) for part in torch.split(flat, FRAMES_AT_ONCE)]
        seen = FrameFeatures(*(torch.cat(levels) for levels in zip(*((p.fine, p.middle, p.coarse) for p in parts), strict=True)))
        return _Rows(seen, clip, frames.shape[1])

    def _condition(self, task_embedding: Tensor, visual: Visual, rows: _Rows) -> Tensor:
        count = visual.frame_valid.sum(1)
        if self.settings.condition == "first":
            return torch.zeros_like(count)
        slots = torch.arange(len(count), device=count.device)
        share = torch.linspace(0, 1, self.settings.candidates, device=count.device)
        frames = (share[:, None] * (count - 1).clamp(min=0)).round().long()
        scores = []
        with torch.no_grad():
            for frame in frames:
                proposal = self.propose(task_embedding, visual, frame)
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

    def _follow(self, rows: _Rows, condition: Tensor, memory: Memory, ages: Sequence[int], sign: int, frames: int) -> list[Step]:
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
            masks = self.tracker.follow(seen, bank, number)
            bank.keep(number, self.tracker.remember(seen, masks, prompted=False), prompted=False)
            steps.append(Step(slots, frame, masks))
        return steps

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


class PointingMaskHead(MaskHead):
    """The mask head of a small language model: the task embedding points at a patch of a frame, and the box around it prompts SAM2.

    The tokens are those that SAM2's prompt encoder makes of that box, through which gradients flow, plus what the paper's mask adapter
    makes of the task embedding, which is nothing before training.

    Source: `MaskHead`; the pointing is that of `tpo_lab.heads.region_dense`.
    Differs in: looks at patches, and learns to point: a language model of a million parameters does not spell coordinates.
    """

    variant: ClassVar[str] = "sam2-pointing"
    needs: ClassVar[frozenset[str]] = frozenset({"frames", "frame_features", "frame_states"})
    Settings: ClassVar[type[HeadSettings]] = PointingMaskSettings
    settings: PointingMaskSettings

    def make_adapter(self, embed_dim: int) -> nn.Module:
        """The pointing, and the paper's adapter beside it."""
        return PointingAdapter(embed_dim, self.settings.vision_dim, int(self.sam.hidden_dim), self.settings.adapter_layers)

    def propose(self, task_embedding: Tensor, visual: Visual, frame: Tensor) -> Proposal:
        """Tokens of the box at the patch that is pointed at most in the frame."""
        adapter, features = self.adapter, visual.frame_features
        assert isinstance(adapter, PointingAdapter) and features is not None
        logits = adapter.point(task_embedding, features.float(), visual)
        slot = torch.arange(len(frame), device=frame.device)
        here = logits[slot, frame]
        boxes = adapter.patch_boxes(task_embedding, features[slot, frame].float())[slot, here.argmax(-1)]
        corners = order_corners(boxes).clamp(0, 1) * self.tracker.image_size
        tokens = self.tracker.prompt_boxes(corners).sparse + adapter.beside(task_embedding)
        return Proposal(tokens, boxes, here.logsumexp(-1))

    def predict(self, task_embedding: Tensor, visual: Visual) -> MaskPrediction:
        """Masks on every frame, and where the task embedding points."""
        found = super().predict(task_embedding, visual)
        assert isinstance(self.adapter, PointingAdapter) and visual.frame_features is not None
        features = visual.frame_features.float()
        pointing = self.adapter.point(task_embedding, features, visual)
        return MaskPrediction(found.steps, found.condition, found.proposal, found.frame_valid, pointing, task_embedding, features)

    def losses(self, prediction: MaskPrediction, target: MaskTargets) -> dict[str, Tensor]:
        """The terms of `MaskHead`; "patches" per slot whose object can be seen in some frame: the cross-entropy of where it points, in all
        frames at once, with the share of each patch that the object's box covers; and "box", of one of those frames, at the patches that
        the true box covers.
        """
        found = super().losses(prediction, target)
        assert prediction.pointing is not None and prediction.features is not None and prediction.task_embedding is not None
        adapter = self.adapter
        assert isinstance(adapter, PointingAdapter)
        seen = target.visible & target.known & prediction.frame_valid
        rows = seen.any(1).nonzero()[:, 0]
        slots, frames, patches = prediction.pointing.shape
        covered = patch_coverage(target.boxes_xyxy.flatten(0, 1), round(patches**0.5)).reshape(slots, frames, patches)
        covered = covered * seen[..., None]
        share = (covered / covered.sum((1, 2), keepdim=True).clamp(min=1e-6))[rows].flatten(1)
        valid = prediction.frame_valid[rows, :, None].expand(-1, -1, patches).flatten(1)
        found["patches"] = SoftCrossEntropy()(prediction.pointing[rows].flatten(1), share, valid)
        frame = torch.multinomial(seen[rows].float(), 1)[:, 0] if len(rows) else rows
        wanted = target.boxes_xyxy[rows, frame]
        boxes = adapter.patch_boxes(prediction.task_embedding[rows], prediction.features[rows, frame])
        weight = covered[rows, frame] / covered[rows, frame].sum(-1, keepdim=True).clamp(min=1e-6)
        apart = BoxL1()(boxes.flatten(0, 1), wanted.repeat_interleave(patches, 0)).reshape(len(rows), patches)
        found["box"] = (apart * weight).sum(-1)
        return found

    def weights(self) -> Mapping[str, float]:
        """The weights of the terms of the chosen loss, of "patches" and of "box"."""
        chosen = self.settings
        return {**super().weights(), "patches": chosen.weight_patches, "box": chosen.weight_box}


class MaskAdapter(nn.Module):
    """From the task embedding [slot, d] to prompt tokens [slot, 3, c], and to a box [slot, 4] in [0,1] by an MLP of its own.

    Source: TPO section 4 (mask adapter); the released `track_embed` and `track_embed_decode2`.
    """

    def __init__(self, embed_dim: int, width: int, layers: int) -> None:
        super().__init__()
        self.tokens = mlp(embed_dim, PROMPT_TOKENS * width, layers)
        self.box = mlp(embed_dim, 4, 2)

    def forward(self, task_embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and box."""
        tokens = self.tokens(task_embedding)
        return tokens.reshape(len(tokens), PROMPT_TOKENS, -1), self.box(task_embedding)


class PointingAdapter(Pointing):
    """Points at patches and reads boxes there, and has the paper's adapter beside it, which starts at nothing."""

    def __init__(self, embed_dim: int, vision_dim: int, width: int, layers: int) -> None:
        super().__init__()
        self.add_pointing(embed_dim, vision_dim, None, corners=True)
        self.tokens = mlp(embed_dim, PROMPT_TOKENS * width, layers)
        for parameter in self.tokens[-1].parameters():
            nn.init.zeros_(parameter)

    def beside(self, task_embedding: Tensor) -> Tensor:
        """What is added to the box's tokens [slot, 3, c]."""
        tokens: Tensor = self.tokens(task_embedding)
        return tokens.reshape(len(tokens), PROMPT_TOKENS, -1)


@dataclass(frozen=True)
class _Rows:
    """Features of single frames: called with slots and a frame of each, one row per slot."""

    seen: FrameFeatures
    clip: Tensor
    frames: int

    def __call__(self, slot: Tensor, frame: Tensor) -> FrameFeatures:
        return self.seen.rows(self.clip[slot] * self.frames + frame)  # type: ignore[no-any-return]


def mlp(width: int, out: int, layers: int) -> nn.Sequential:
    """One linear layer, or two with ReLU in between."""
    return nn.Sequential(nn.Linear(width, out)) if layers == 1 else nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))


def mask_terms(masks: Masks, truth: Tensor) -> dict[str, Tensor]:
    """ "bce" and "dice" of the chosen mask with the true one in [0,1] [row, h, w].

    Source: LISA (arXiv 2308.00692).
    """
    logits = functional.interpolate(masks.logits[:, None], truth.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return {"bce": mask_bce_values(logits, truth), "dice": dice_values(logits, truth)}


def load_named(name: str, image_size: int | None) -> Sam2VideoModel:
    """The shipped SAM2, or one from a folder, the hub or an official file."""
    from tpo_lab.backbones import shipped
    from tpo_lab.sam2.weights import load_sam2

    return load_sam2(shipped(SHIPPED) if name == SHIPPED else name, image_size=image_size)


def _shorten(bank: MemoryBank, rows: int) -> None:
    """Keep the memories of the first rows alone."""
    for memories in (bank.prompted, bank.followed):
        for number, memory in memories.items():
            if len(memory.pointer) > rows:
                memories[number] = memory.rows(slice(0, rows))
