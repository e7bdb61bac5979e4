"""Videos longer than the clips of a temporal head: read in overlapping windows, the answers joined in seconds of the whole video.

Here a *window* is a run of frames that the head reads at once, and a *moment* what the head finds ("windows_sec" of its answer).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from tpo_lab.axes import require_axes
from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.heads.base import ClipInfo, Head, Visual
from tpo_lab.spans import frame_cells, span_nms

Scores = Literal["head", "saliency"]
CURVES = ("saliency", "attention")
"""Keys of an answer that hold [time, value] for each frame."""
SLACK = 1 / 8
"""So far, as a share of the overlap, a moment's middle may lie outside the part that its window answers for."""


@dataclass(frozen=True)
class Sliding:
    """How a long video is cut, and how the answers are joined.

    Attributes:
        frames: of a window; as many as the head was trained with.
        overlap: frames that a window shares with the next one, 0 to frames - 1. A moment that is no longer than the overlap is seen as a
            whole by one window at least; a longer one may be cut at a window's end, and one longer than a window comes in pieces.
        nms_iou: a moment is left out if its IoU with a better one is above this.
        max_windows: most moments that the answer may list.
        scores: "head" ranks moments by the head's own scores: right where a score says by itself whether something happens, as CG-DETR's
            probability of the foreground. "saliency" multiplies them by the mean saliency of the moment: right where a head ranks the
            moments of one window against each other and finds a best one also where nothing happens. None takes what the head says of
            itself: "saliency" where it has `scores_within_clip = True`, as the simple head, else "head".
        at_once: windows that the head reads in one pass.
    """

    frames: int
    overlap: int
    nms_iou: float = 0.5
    max_windows: int = 10
    scores: Scores | None = None
    at_once: int = 16

    def __post_init__(self) -> None:
        for name in ("frames", "max_windows", "at_once"):
            if getattr(self, name) < 1:
                raise UsageError(name, expected="at least 1", got=getattr(self, name))
        if not 0 <= self.overlap < self.frames:
            raise UsageError("overlap", expected=f"frames from 0 to {self.frames - 1}, fewer than a window has", got=self.overlap)
        if not 0 <= self.nms_iou <= 1:
            raise UsageError("nms_iou", expected="an IoU in [0, 1]", got=self.nms_iou)
        if self.scores is not None and self.scores not in get_args(Scores):
            raise unknown_name("scores", self.scores, get_args(Scores))


def plan_windows(count: int, frames: int, overlap: int) -> list[range]:
    """The frames of each window, in order; together they hold all of 0 to count - 1.

    Neighbours share exactly `overlap` frames, but the last window is moved back to end with the video, so that it has as many frames as
    the others and may share more. At most `frames` frames are one window.

    Args:
        count: frames of the video.
        frames: of a window, above the overlap.
        overlap: frames that neighbours share.
    """
    if count <= frames:
        return [range(count)]
    starts = [*range(0, count - frames, frames - overlap), count - frames]
    return [range(start, start + frames) for start in starts]


@torch.no_grad()
def slide(head: Head[Any, Any], task_embedding: Tensor, visual: Visual, clip: ClipInfo, sliding: Sliding | None) -> dict[str, Any]:
    """Let a temporal head answer about a video of any length: one decoded answer, in seconds of the video.

    A video of at most `sliding.frames` frames is read as it is: the answer is the head's own, whatever it holds. Else the head reads each
    window as a clip of its own, whose time starts at 0, and the answers are joined by `join_answers`.

    Args:
        head: in evaluation mode; its answers have "windows_sec", "scores", and "saliency" with one [time, score] per frame.
        task_embedding: of the slots of one answer [slot, d]; every window is asked with the same.
        visual: the whole video, one row per slot, every row about the same frames.
        clip: the whole video.
        sliding: the windows, and how to join; None reads any video at once.

    Raises:
        UsageError: no slot, rows that differ in their times, or an answer of the head that lacks a key or a frame.
    """
    slots = require_axes("task_embedding", task_embedding, slot=None, d=None)[0]
    require_axes("visual.answer", visual.validate(head.needs).answer, slot=slots)
    if not slots:
        raise UsageError("task_embedding", expected="one slot or more", got=0)
    if (visual.times_sec != visual.times_sec[:1]).any() or (visual.frame_valid != visual.frame_valid[:1]).any():
        raise UsageError("visual.times_sec", expected="the same frames in every row: the slots of one answer", got="rows that differ")
    valid = visual.frame_valid[0].nonzero()[:, 0]
    if sliding is None or len(valid) <= sliding.frames:
        return head.decode(head(task_embedding, visual), [clip], torch.zeros(slots, dtype=torch.long))[0]
    plan = plan_windows(len(valid), sliding.frames, sliding.overlap)
    times_sec = visual.times_sec[0, valid].double().cpu()
    cells_sec = frame_cells(times_sec[None], torch.tensor([clip.duration_sec], dtype=torch.float64), torch.ones(1, len(valid)).bool())[0]
    bounds_sec = torch.stack([torch.stack([cells_sec[window[0], 0], cells_sec[window[-1], 1]]) for window in plan])
    answers: list[dict[str, Any]] = []
    for start in range(0, len(plan), sliding.at_once):
        chosen = plan[start : start + sliding.at_once]
        places = valid[torch.tensor([list(window) for window in chosen], device=valid.device)]
        cut = cut_visual(visual, places, bounds_sec[start : start + sliding.at_once])
        clips = [
            replace(clip, duration_sec=float(end - begin), times_sec=tuple((times_sec[window.start : window.stop] - begin).tolist()))
            for window, (begin, end) in zip(chosen, bounds_sec[start : start + sliding.at_once], strict=True)
        ]
        answers += head.decode(head(task_embedding.repeat(len(chosen), 1), cut), clips, cut.answer)
    own: Scores = "saliency" if getattr(head, "scores_within_clip", False) else "head"
    return join_answers(answers, plan, times_sec, cells_sec, replace(sliding, scores=sliding.scores or own))


def cut_visual(visual: Visual, places: Tensor, bounds_sec: Tensor) -> Visual:
    """Windows of a video as a batch: the rows of window 0, then those of window 1, ...

    Args:
        visual: the whole video, one row per slot of one answer.
        places: which frames each window has, LongTensor [window, frame].
        bounds_sec: (start, end) of each window in seconds of the video [window, 2].

    Returns:
        Rows [window * slot] whose seconds count from the start of their window; `answer` is the number of the window.
    """
    windows, slots = len(places), len(visual.answer)

    def frames_of(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[:, places].transpose(0, 1).flatten(0, 1)

    def again(values: Tensor | None) -> Tensor | None:
        return None if values is None else values.repeat(windows, *[1] * (values.ndim - 1))

    start, end = bounds_sec.to(visual.times_sec.device).repeat_interleave(slots, 0).unbind(-1)
    times_sec = visual.times_sec[:, places].transpose(0, 1).flatten(0, 1).double() - start[:, None]
    return replace(
        visual,
        times_sec=times_sec.to(visual.times_sec.dtype),
        frame_valid=visual.frame_valid[:, places].transpose(0, 1).flatten(0, 1),
        duration_sec=(end - start).to(visual.duration_sec.dtype),
        size_wh=visual.size_wh.repeat(windows, 1),
        answer=torch.arange(windows, device=visual.answer.device).repeat_interleave(slots),
        frames=frames_of(visual.frames),
        frame_features=frames_of(visual.frame_features),
        frame_states=frames_of(visual.frame_states),
        query_features=again(visual.query_features),
        query_valid=again(visual.query_valid),
        # the windows of a clip show different frames, and a box lies on the first of all
        clip=None,
        prompt_xyxy=None,
    )


def join_answers(
    answers: Sequence[Mapping[str, Any]], plan: Sequence[range], times_sec: Tensor, cells_sec: Tensor, sliding: Sliding
) -> dict[str, Any]:
    """Join the answers about two windows or more into one about the video: "windows_sec" best first, "scores", and the curves.

    *Moments.* Each window answers for a part of the video, which ends in the middle of the overlap with the next window; the first part
    begins and the last one ends with the video. A moment counts where its middle lies in the part of its window, or outside by at most
    `SLACK` of the overlap, since two windows never agree to the frame. So a moment no longer than the overlap comes from a window that
    sees all of it, and what a neighbour saw of it, cut at its end, is left out whatever its score, unless it is almost the whole (an IoU
    of 1 - 2 * `SLACK` or more). What is found twice then goes by non-maximum suppression, the one inside its part first where scores are
    equal.

    *Scores* stay those of the head or are weighted by saliency (`Sliding.scores`), nothing else: all windows have equally many frames, so
    that a softmax over the frames means the same in each.

    *Curves* (`CURVES`, where the answers have them) are averaged where windows overlap. The highest instead would lift frames that are
    seen twice above those that are seen once. Other keys of the answers are left out: nobody knows how to join them.

    Args:
        answers: of the head, one per window, in seconds of the window.
        plan: the frames of each window, as `plan_windows` gives them.
        times_sec: seconds of the video's frames [frame].
        cells_sec: (start, end) in seconds of each frame's cell [frame, 2], as `frame_cells` gives them.
        sliding: with "head" or "saliency" as `scores`; None is "head".

    Raises:
        UsageError: an answer without "windows_sec" or "scores", or with a curve that has not one pair per frame.
    """
    curves = {name: _stitch(name, answers, plan, len(times_sec)) for name in CURVES if all(name in answer for answer in answers)}
    starts_sec = torch.tensor([float(cells_sec[window[0], 0]) for window in plan], dtype=torch.float64)
    ends_sec = torch.tensor([float(cells_sec[window[-1], 1]) for window in plan], dtype=torch.float64)
    borders_sec = [float(cells_sec[0, 0]), *((starts_sec[1:] + ends_sec[:-1]) / 2).tolist(), float(cells_sec[-1, 1])]
    inside: list[tuple[Tensor, Tensor]] = []
    near: list[tuple[Tensor, Tensor]] = []
    for number, (answer, part_sec) in enumerate(zip(answers, itertools.pairwise(borders_sec), strict=True)):
        moments_sec, scores = _moments(number, answer)
        moments_sec = (moments_sec + starts_sec[number]).clamp(float(cells_sec[0, 0]), float(cells_sec[-1, 1]))
        middle = moments_sec.mean(-1)
        overlaps_sec = [float(ends_sec[one] - starts_sec[one + 1]) for one in (number - 1, number) if 0 <= one < len(plan) - 1]
        slack_sec = SLACK * min(overlaps_sec)
        within = (part_sec[0] <= middle) & (middle <= part_sec[1])
        close = (part_sec[0] - slack_sec <= middle) & (middle <= part_sec[1] + slack_sec) & ~within
        inside.append((moments_sec[within], scores[within]))
        near.append((moments_sec[close], scores[close]))
    moments_sec, scores = (torch.cat(parts) for parts in zip(*inside, *near, strict=True))
    if sliding.scores == "saliency":
        scores = scores * mean_inside(_needed(curves, "saliency"), times_sec, cells_sec, moments_sec)
    kept = span_nms(moments_sec, scores, sliding.nms_iou, sliding.max_windows)
    found = {name: torch.stack([times_sec, values], dim=-1).tolist() for name, values in curves.items()}
    return {"windows_sec": moments_sec[kept].tolist(), "scores": scores[kept].tolist(), **found}


def mean_inside(values: Tensor, times_sec: Tensor, cells_sec: Tensor, moments_sec: Tensor) -> Tensor:
    """Mean over time of a curve of frames within each moment [moment]; a moment without length takes the frame nearest to it.

    Args:
        values: of the frames [frame], each holding in its cell.
        times_sec: seconds of the frames [frame].
        cells_sec: (start, end) of their cells [frame, 2].
        moments_sec: (start, end) [moment, 2].
    """
    shared = torch.minimum(moments_sec[:, None, 1], cells_sec[:, 1]) - torch.maximum(moments_sec[:, None, 0], cells_sec[:, 0])
    shared = shared.clamp(min=0)
    length = shared.sum(1)
    nearest = (moments_sec.mean(-1)[:, None] - times_sec).abs().argmin(1)
    return torch.where(length > 0, shared @ values / length.clamp(min=torch.finfo(length.dtype).tiny), values[nearest])


def _stitch(name: str, answers: Sequence[Mapping[str, Any]], plan: Sequence[range], count: int) -> Tensor:
    """The mean over windows of a curve [frame]."""
    total, times = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    for number, (answer, window) in enumerate(zip(answers, plan, strict=True)):
        values = torch.tensor(answer[name], dtype=torch.float64).reshape(-1, 2)[:, 1]
        if len(values) != len(window):
            raise UsageError(f"answer {number}, {name}", expected=f"[time, value] of each of the {len(window)} frames", got=len(values))
        total[window.start : window.stop] += values
        times[window.start : window.stop] += 1
    return total / times


def _moments(number: int, answer: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Moments [moment, 2] and scores [moment] of one window."""
    for key in ("windows_sec", "scores"):
        _needed(answer, key, f"answer {number}")
    moments_sec = torch.tensor(answer["windows_sec"], dtype=torch.float64).reshape(-1, 2)
    scores = torch.tensor(answer["scores"], dtype=torch.float64)
    if len(scores) != len(moments_sec):
        raise UsageError(f"answer {number}, scores", expected=f"one per moment, {len(moments_sec)}", got=len(scores))
    return moments_sec, scores


def _needed(found: Mapping[str, Any], key: str, where: str = "answers") -> Any:
    if key not in found:
        hint = "Only heads whose answers hold windows_sec, scores and saliency can slide."
        raise UsageError(f"{where}, {key}", expected="this key in the head's answers", got=sorted(found), hint=hint)
    return found[key]
