"""Pretraining of the nano SAM2: a promptable tracker of anything in the synthetic world, told by boxes and points, never by words."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tpo_lab.boxes import mask_boxes
from tpo_lab.datasets.world.tracks import TrackBatch, track_batches
from tpo_lab.losses import reduce_mean
from tpo_lab.runs import save_state
from tpo_lab.sam2.objective import WEIGHTS, sam2_terms, there_values
from tpo_lab.sam2.tracker import POSITIVE, FrameFeatures, Masks, Prompt, Tracker
from tpo_lab.schedules import lr_factor

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

JITTER = 0.1
"""Share of a box's sides by which its corners are off, at most, in training."""


@dataclass(frozen=True)
class Lesson:
    """A part of a round.

    Attributes:
        share: of the round's steps.
        frames: per clip.
        clips: per batch.
    """

    share: float
    frames: int
    clips: int


@dataclass(frozen=True)
class Round:
    """Steps whose learning rate rises once and falls once.

    Attributes:
        steps: of the round.
        lessons: in order; longer clips come with fewer in a batch.
        learning_rate: the highest.
    """

    steps: int
    lessons: tuple[Lesson, ...]
    learning_rate: float = 1e-3

    def lesson_at(self, step: int) -> Lesson:
        """The lesson that a step of the round belongs to."""
        done = 0.0
        for lesson in self.lessons:
            done += lesson.share
            if step < done * self.steps:
                return lesson
        return self.lessons[-1]


FIRST = Round(5000, (Lesson(0.25, 1, 16), Lesson(0.35, 3, 8), Lesson(0.4, 8, 4)))
"""First what a prompt means, on single frames, then to follow it."""
SECOND = Round(4000, (Lesson(1.0, 8, 4),), 7e-4)


@dataclass(frozen=True)
class TrackerPretraining:
    """Settings of the tracker's pretraining.

    Attributes:
        rounds: in order.
        things: most per clip. All that can be seen is best: what one prompt means is learned beside what the others do not.
        passed_over: share left out of the clips in which nothing hides, so that most of the longer ones show something that does.
        boxes: share of batches that are prompted by boxes, the others by one point each.
        held_clips: clips that the scores are taken on, of so many frames as the last lesson's.
    """

    rounds: tuple[Round, ...] = (FIRST, SECOND)
    things: int = 8
    passed_over: float = 0.9
    boxes: float = 0.7
    weight_decay: float = 0.02
    warmup_ratio: float = 0.03
    seed: int = 0
    checkpoint_every: int = 250
    held_clips: int = 64

    @property
    def steps(self) -> int:
        """In all."""
        return sum(each.steps for each in self.rounds)

    @property
    def held_frames(self) -> int:
        """Frames per clip of the last lesson."""
        return self.rounds[-1].lessons[-1].frames

    def at(self, step: int) -> tuple[Round, int]:
        """The round that a step belongs to, and its number there."""
        for each in self.rounds[:-1]:
            if step < each.steps:
                return each, step
            step -= each.steps
        return self.rounds[-1], step


class _Stream(torch.utils.data.IterableDataset[TrackBatch]):
    def __init__(self, settings: TrackerPretraining, start: int) -> None:
        self.settings, self.start = settings, start

    def __iter__(self) -> Iterator[TrackBatch]:
        chosen = self.settings
        for step in range(self.start, chosen.steps):
            # a step's clips depend on nothing but the step, so that a resumed run goes on as it would have
            course, place = chosen.at(step)
            lesson = course.lesson_at(place)
            seed, most = chosen.seed + 1 + step, chosen.things
            yield next(track_batches(lesson.clips, frames=lesson.frames, things=most, seed=seed, passed_over=chosen.passed_over))


def box_prompt(tracker: Tracker, masks: Tensor, *, jitter: float = 0.0, random: torch.Generator | None = None) -> Prompt:
    """A prompt by the boxes of masks, bool [thing, y, x], their corners off by at most a share of the box's sides."""
    boxes = mask_boxes(masks)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    off = (2 * torch.rand(boxes.shape, generator=random) - 1) * jitter * sides
    return tracker.prompt_boxes((boxes + off) * tracker.image_size / masks.shape[-1])


def point_prompt(tracker: Tracker, masks: Tensor, *, random: torch.Generator | None = None) -> Prompt:
    """A prompt by one pixel of each mask, bool [thing, y, x], drawn at random."""
    chosen = torch.multinomial(masks.flatten(1).float(), 1, generator=random)[:, 0]
    points = torch.stack([chosen % masks.shape[-1], chosen // masks.shape[-1]], -1)
    return tracker.prompt_points(points[:, None] * tracker.image_size / masks.shape[-1], torch.full((len(points), 1), POSITIVE))


def follow_clips(tracker: Tracker, frames: Tensor, clip: Tensor, prompt: Prompt, present: Tensor | None = None) -> list[Masks]:
    """Masks of each frame, from a prompt on the first.

    Args:
        frames: uint8 [clip, frame, 3, h, w].
        clip: of each thing [thing].
        prompt: one row per thing.
        present: whether each thing is in the frames [thing, frame]; None: the tracker judges for itself.
    """
    count = frames.shape[1]
    seen = tracker.encode(frames.flatten(0, 1))

    def rows(number: int) -> FrameFeatures:
        return seen.rows(clip * count + number)

    bank = tracker.bank(count)
    found = [tracker.start(0, rows(0), prompt, bank, present=None if present is None else present[:, 0])]
    known = None if present is None else (lambda number: present[:, number])
    found += [masks for _, masks in tracker.track(((number, rows(number)) for number in range(1, count)), bank, present=known)]
    return found


def objective(found: list[Masks], truth: Tensor) -> dict[str, Tensor]:
    """The terms of SAM2's objective, each a mean over things and frames; truth bool [thing, frame, y, x]."""
    terms = []
    for number, masks in enumerate(found):
        here = truth[:, number]
        visible = here.flatten(1).any(1)
        drawn = sam2_terms(masks.rows(visible), here[visible].to(masks.logits.dtype))
        terms.append({**drawn, "there": there_values(masks, visible)})
    return {name: reduce_mean(torch.cat([each[name] for each in terms])) for name in WEIGHTS}


@torch.no_grad()
def scores(tracker: Tracker, held: list[TrackBatch]) -> dict[str, float]:
    """Mean IoU in frames after the first where the thing is to be seen, told by boxes and by points, and of the first frame; and how often
    the object score is right in the others.
    """
    found: dict[str, list[Tensor]] = {}
    random = torch.Generator().manual_seed(0)
    training = tracker.sam.training
    tracker.sam.train(False)
    tracker = Tracker(tracker.sam)
    for batch in held:
        truth, clip, frames = torch.from_numpy(batch.masks), torch.from_numpy(batch.clip), torch.from_numpy(batch.frames)
        prompts = {"box": box_prompt(tracker, truth[:, 0]), "point": point_prompt(tracker, truth[:, 0], random=random)}
        for name, prompt in prompts.items():
            followed = follow_clips(tracker, frames, clip, prompt)
            ious = torch.stack([_ious(masks, truth[:, number]) for number, masks in enumerate(followed)], 1)
            there = truth.flatten(2).any(2)
            said = torch.stack([masks.object_logit > 0 for masks in followed], 1)
            found.setdefault(f"{name}/first", []).append(ious[:, 0])
            found.setdefault(name, []).append(ious[:, 1:][there[:, 1:]])
            found.setdefault(f"{name}/there", []).append((said == there)[:, 1:].flatten().float())
            found.setdefault(f"{name}/gone", []).append(~said[:, 1:][~there[:, 1:]])
    tracker.sam.train(training)
    return {name: float(torch.cat(values).float().mean()) for name, values in found.items()}


def _ious(masks: Masks, truth: Tensor) -> Tensor:
    logits = nn.functional.interpolate(masks.shown[:, None], truth.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    inside = logits > 0
    return (inside & truth).sum((1, 2)) / (inside | truth).sum((1, 2)).clamp(min=1)


def pretrain_tracker(
    sam: Sam2VideoModel,
    settings: TrackerPretraining,
    *,
    out: Path,
    workers: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, float]:
    """Train the model in place; writes metrics.jsonl and a resumable tracker.pt under `out`.

    Memories are kept of what is truly there, whatever the object score says, so that both can be learned at once.

    Args:
        sam: see `untrained`.
        settings: of the training.
        out: a folder; where it has a tracker.pt, the training goes on from there.
        workers: processes that make clips.
        progress: called with the steps done, their number, and the last scores in words.

    Returns:
        `scores` on clips of the validation split.
    """
    torch.manual_seed(settings.seed)
    out.mkdir(parents=True, exist_ok=True)
    tracker = Tracker(sam, soft=True)
    parameters = list(sam.parameters())
    optimizer = torch.optim.AdamW(parameters, weight_decay=settings.weight_decay, betas=(0.9, 0.98))
    stream = track_batches(16, frames=settings.held_frames, things=settings.things, seed=settings.seed, split="val")
    held = [next(stream) for _ in range(max(1, settings.held_clips // 16))]
    checkpoint, start = out / "tracker.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        sam.load_state_dict(state["sam"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    loader = iter(torch.utils.data.DataLoader(_Stream(settings, start), batch_size=None, num_workers=workers))
    began, reached = time.monotonic(), {}
    if start >= settings.steps:
        reached = scores(tracker, held)
    sam.train()
    for step in range(start, settings.steps):
        losses = _step(tracker, next(loader), settings, step)
        course, place = settings.at(step)
        for group in optimizer.param_groups:
            group["lr"] = course.learning_rate * lr_factor(place, course.steps, settings.warmup_ratio, 0.02)
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum())
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
            reached = scores(tracker, held)
            row: dict[str, Any] = {"step": step + 1, "seconds": round(time.monotonic() - began, 1)}
            row |= {f"loss/{name}": float(value.detach()) for name, value in losses.items()}
            with (out / "metrics.jsonl").open("a") as log:
                log.write(json.dumps({**row, **reached}) + "\n")
            save_state(checkpoint, {"sam": sam.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1})
        if progress is not None:
            progress(step + 1, settings.steps, f"IoU {reached['box']:.2f} by boxes, {reached['point']:.2f} by points" if reached else "")
    sam.train(False)
    return reached


def _step(tracker: Tracker, batch: TrackBatch, settings: TrackerPretraining, step: int) -> dict[str, Tensor]:
    truth, clip, frames = torch.as_tensor(batch.masks), torch.as_tensor(batch.clip), torch.as_tensor(batch.frames)
    chance = torch.Generator().manual_seed(settings.seed + step)
    told_by_box = random.Random(f"{settings.seed}/{step}").random() < settings.boxes
    first = truth[:, 0]
    prompt = box_prompt(tracker, first, jitter=JITTER, random=chance) if told_by_box else point_prompt(tracker, first, random=chance)
    return objective(follow_clips(tracker, frames, clip, prompt, truth.flatten(2).any(2)), truth)
