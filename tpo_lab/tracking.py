"""Objects followed through every frame of a video, from what a user points at or from what a language model is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tpo_lab.answer import Answer
from tpo_lab.asking import ask
from tpo_lab.boxes import mask_boxes
from tpo_lab.errors import TPOError, UsageError, unknown_name
from tpo_lab.heads.base import ClipInfo
from tpo_lab.heads.mask import MaskHead, PointingMaskPrediction
from tpo_lab.heads.mask.prediction import MaskPrediction
from tpo_lab.model import TPOModel
from tpo_lab.prompts import spread_along
from tpo_lab.rle import encode_rle
from tpo_lab.sam2.footage import POLICIES, Followed, Prompter, follow_footage
from tpo_lab.sam2.tracker import POSITIVE, Prompt, Tracker
from tpo_lab.sample import BoxPrompt, ScribblePrompt
from tpo_lab.video import Source, displayed_frames, open_source

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

    from tpo_lab.sample import Prompt as UserPrompt

STROKE_POINTS = 5
"""A stroke prompts by so many points, evenly spread along it."""


@dataclass(frozen=True)
class Pursuit:
    """Objects of a video that are ready to be followed; iterating does it and yields what is found, frame by frame.

    Frames come from the prompted one to the last, and then from there back to the first. Each iteration begins anew.

    Attributes:
        tracker: that follows them.
        source: the opened video.
        prompter: makes the prompts of frame `at`.
        objects: how many there are.
        at: number of the prompted frame.
        first: the earliest frame that they are followed to.
        last: the latest.
        on_corrupt: "raise", or "drop", which leaves corrupt frames out.
        shown: what prompts each object, in pixels of frame `at`; empty where tokens do that no picture shows.
        answer: of the language model, where that was asked.
    """

    tracker: Tracker
    source: Source
    prompter: Prompter
    objects: int
    at: int
    first: int
    last: int
    on_corrupt: str = "raise"
    shown: tuple[UserPrompt, ...] = ()
    answer: Answer | None = None

    def __len__(self) -> int:
        """How many frames there are to follow through, corrupt ones among them."""
        return self.last - self.first + 1

    def __iter__(self) -> Iterator[Followed]:
        """Follow the objects; raises what `follow_footage` raises."""
        return follow_footage(
            self.tracker, self.source, self.prompter, at=self.at, first=self.first, last=self.last, on_corrupt=self.on_corrupt
        )


def track(
    model: TPOModel | Sam2VideoModel,
    video: str | Path,
    prompts: Sequence[UserPrompt] = (),
    *,
    question: str | None = None,
    start_sec: float = 0.0,
    end_sec: float | None = None,
    on_corrupt: str = "raise",
) -> Pursuit:
    """Prepare to follow objects through every frame of a video, in memory that does not grow with its length.

    Without a question each prompt is one object and goes straight to SAM2. With one, the language model answers it about the few frames
    that it sees, and its mask head prompts SAM2 on the frame of its choice; prompts then belong to the question, boxes first.

    Args:
        model: a SAM2, or a model with a mask head; it is put into evaluation mode.
        video: a video, an image, a folder of images or a pattern of them, one a second.
        prompts: in pixels of the frame on display at their `time_sec`, which is the same for all and counts from the start of the file;
            with a question, in pixels of the first frame shown, whatever their `time_sec`.
        question: what to segment; for a model with a mask head alone.
        start_sec: where to begin, from the start of the file.
        end_sec: where to end; the end of the video where None.
        on_corrupt: "raise", or "drop", which leaves corrupt frames out.

    Raises:
        UsageError: no prompt and no question, a model without what they need, a file that cannot be read, or a time outside of it.
        TPOError: the language model did not ask its mask head; the message holds what it wrote.
    """
    if on_corrupt not in POLICIES:
        raise unknown_name("on_corrupt", on_corrupt, POLICIES)
    if question is None and not prompts:
        raise UsageError("prompts", expected="a box, a point, a stroke or a question", got="none of them")
    if question is not None and not isinstance(model, TPOModel):
        raise UsageError("question", expected="a checkpoint with a mask head to answer it", got="a SAM2, which knows no words")
    if isinstance(model, TPOModel):
        _mask_head(model)
    source = open_source(video)
    first, last = _part(source, str(video), start_sec, end_sec, strict=on_corrupt == "raise")
    model.eval()
    if question is not None and isinstance(model, TPOModel):
        head = _mask_head(model)
        boxes = [prompt.xyxy for prompt in prompts if isinstance(prompt, BoxPrompt)]
        strokes = [prompt.points for prompt in prompts if not isinstance(prompt, BoxPrompt)]
        with _overheard(head) as heard:
            answer, clip = ask(
                model, video, question, boxes=boxes, strokes=strokes, start_sec=start_sec, end_sec=end_sec, on_corrupt=on_corrupt
            )
        if not heard:
            raise TPOError(f"There is nothing to follow: the model answered {answer.text!r} and did not ask its mask head.")
        chosen, tokens, shown = _chosen(heard[-1], clip)
        at = _frame_at(source, clip.times_sec[chosen] + start_sec)
        prompter = _token_prompter(head.tracker, tokens)
        return Pursuit(head.tracker, source, prompter, len(tokens), at, min(first, at), max(last, at), on_corrupt, shown, answer)
    tracker = _mask_head(model).tracker if isinstance(model, TPOModel) else Tracker(model)
    at = _prompted_frame(source, [prompt.time_sec for prompt in prompts], first, last)
    return Pursuit(tracker, source, pixel_prompter(tracker, prompts), len(prompts), at, first, last, on_corrupt, tuple(prompts))


def pixel_prompter(tracker: Tracker, prompts: Sequence[UserPrompt]) -> Prompter:
    """Prompts SAM2 by boxes, points and strokes in pixels of the frame, one object each.

    A point alone leaves open what it means, so SAM2 proposes several masks and takes the best; several points, as of a stroke, do not.
    """

    def make(size: tuple[int, int]) -> list[Prompt]:
        return [_prompt(tracker, prompt, size) for prompt in prompts]

    return make


def to_line(followed: Followed) -> dict[str, Any]:
    """What was found in one frame, JSON-ready: "frame", "time_sec", and "objects", for each "rle" as COCO has it and "xyxy" in pixels, with
    the upper edges not included, both None where the object is not in the frame, and "score", the probability that it is.
    """
    masks = followed.masks()
    seen = masks.flatten(1).any(1).tolist()
    objects = [
        {"rle": encode_rle(mask.numpy()) if visible else None, "xyxy": box.tolist() if visible else None, "score": score}
        for mask, box, visible, score in zip(masks, mask_boxes(masks), seen, followed.there.float().sigmoid().tolist(), strict=True)
    ]
    return {"frame": followed.frame, "time_sec": followed.time_sec, "objects": objects}


def _mask_head(model: TPOModel) -> MaskHead:
    head = dict(model.heads.items()).get("mask")
    if not isinstance(head, MaskHead):
        heads = ", ".join(model.heads) or "no heads"
        raise UsageError("model", expected="a SAM2, or a checkpoint with a mask head", got=f"a checkpoint with {heads}")
    return head


@contextmanager
def _overheard(head: MaskHead) -> Iterator[list[MaskPrediction]]:
    """What the head predicts while the block runs."""
    heard: list[MaskPrediction] = []
    handle = head.register_forward_hook(lambda module, given, found: heard.append(found))
    try:
        yield heard
    finally:
        handle.remove()


def _chosen(prediction: MaskPrediction, clip: ClipInfo) -> tuple[int, Tensor, tuple[UserPrompt, ...]]:
    """The frame to prompt among those that the language model saw, the tokens of all objects there, and the boxes that they came from.

    Where the objects would begin on different frames, it is the one of those on which the least certain object is seen best.
    """
    frames = torch.tensor(sorted(set(prediction.condition.tolist())), device=prediction.condition.device)
    proposal = prediction.proposal
    best = frames[prediction.dense()[1][:, frames].min(0).values.argmax()]
    if not isinstance(prediction, PointingMaskPrediction):
        return int(best), proposal.tokens, ()
    if len(frames) > 1:
        with torch.no_grad():
            proposal = prediction.pointed(best.expand(len(prediction.condition)))
    size = proposal.boxes_xyxy.new_tensor([clip.width, clip.height] * 2)
    corners = (proposal.boxes_xyxy * size).tolist()
    # not validated: a head without training may point at a box without any area
    shown = tuple(BoxPrompt.model_construct(xyxy=tuple(edges)) for edges in corners)
    return int(best), proposal.tokens, shown


def _token_prompter(tracker: Tracker, tokens: Tensor) -> Prompter:
    return lambda size: [tracker.prompt_tokens(tokens)]


def _prompt(tracker: Tracker, prompt: UserPrompt, size: tuple[int, int]) -> Prompt:
    height, width = size
    device = tracker.sam.no_memory_embedding.device
    scale = torch.tensor([tracker.image_size / width, tracker.image_size / height], device=device)
    if isinstance(prompt, BoxPrompt):
        x0, y0, x1, y1 = prompt.xyxy
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise UsageError("box", expected=f"x0 < x1 and y0 < y1 inside the frame of {width} x {height} pixels", got=list(prompt.xyxy))
        return tracker.prompt_boxes(torch.tensor([prompt.xyxy], device=device) * scale.repeat(2))
    points = prompt.points
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise UsageError(prompt.type, expected=f"points inside the frame of {width} x {height} pixels", got=[x, y])
    if isinstance(prompt, ScribblePrompt):
        points = tuple((float(x), float(y)) for x, y in spread_along(points, STROKE_POINTS))
    placed = torch.tensor([points], device=device) * scale
    return tracker.prompt_points(placed, torch.full((1, len(points)), POSITIVE, device=device))


def _part(source: Source, name: str, start_sec: float, end_sec: float | None, *, strict: bool) -> tuple[int, int]:
    """The first and the last frame on display in a part of the video."""
    duration = source.duration_sec
    if not (math.isfinite(start_sec) and 0 <= start_sec < duration):
        raise UsageError("start_sec", expected=f"a time from 0 s, before the end of {name} at {duration:.3f} s", got=start_sec)
    if end_sec is not None and not end_sec >= start_sec:
        raise UsageError("end_sec", expected=f"a time of at least start_sec ({start_sec} s)", got=end_sec)
    if strict and source.notes and (end_sec is None or end_sec > duration):
        raise UsageError(name, expected="a complete file", got=source.notes[0], hint='on_corrupt="drop" uses what decodes.')
    first = _frame_at(source, start_sec)
    if end_sec is None:
        return first, len(source.times_sec) - 1
    return first, max(first, int(np.searchsorted(source.times_sec, end_sec - 1e-6)) - 1)


def _prompted_frame(source: Source, times_sec: Sequence[float], first: int, last: int) -> int:
    time_sec, duration = times_sec[0], source.duration_sec
    at = _frame_at(source, time_sec)
    if any(other != time_sec for other in times_sec) or not 0 <= time_sec < duration or not first <= at <= last:
        begin, end = source.times_sec[first], source.times_sec[last + 1] if last + 1 < len(source.times_sec) else duration
        expected = f"one time for all, from {begin:.3f} s and before {end:.3f} s, where the frames to follow end"
        raise UsageError("time of the prompts", expected=expected, got=sorted(set(times_sec)))
    return at


def _frame_at(source: Source, time_sec: float) -> int:
    return int(displayed_frames(source.times_sec, np.array([time_sec]))[0])
