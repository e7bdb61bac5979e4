"""The simple temporal head: start, end and actionness of every frame from the one task embedding and the frame's time.

Not here: CG-DETR, which looks at the video's features, and the graded saliency of annotations, which only CG-DETR learns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tpo_lab.axes import require_axes
from tpo_lab.errors import UsageError
from tpo_lab.heads.base import ClipInfo, Head, HeadSettings, Visual, require_answers, require_finite
from tpo_lab.heads.windows import pad_windows, pool_windows, read_windows
from tpo_lab.losses import BinaryCrossEntropy, SoftCrossEntropy, masked_log_softmax
from tpo_lab.spans import boundary_weights, coverage, frame_cells, span_nms


@dataclass(frozen=True)
class SimpleTemporalSettings(HeadSettings):
    """Settings of the simple temporal head.

    Attributes:
        hidden_dim: width of the hidden layer; None is that of the task embedding, as published (4096 -> 4096).
        time_dim: width of the embedding of a frame's time, even.
        max_cycles: highest frequency of that embedding in cycles per clip; it tells frames apart that are 1 / (4 * max_cycles) of the
            clip from each other.
        max_windows: most windows that an answer may list.
        nms_iou: a window is left out if its IoU with a better one is above this.
        weight_start: weight of the term "start".
        weight_end: weight of the term "end".
        weight_actionness: weight of the term "actionness".
    """

    hidden_dim: int | None = None
    time_dim: int = 32
    max_cycles: float = 32.0
    max_windows: int = 5
    nms_iou: float = 0.5
    weight_start: float = 1.0
    weight_end: float = 1.0
    weight_actionness: float = 1.0

    def __post_init__(self) -> None:
        if self.time_dim < 2 or self.time_dim % 2:
            raise UsageError("time_dim", expected="an even width of at least 2", got=self.time_dim)
        if self.max_windows < 1:
            raise UsageError("max_windows", expected="at least 1", got=self.max_windows)


@dataclass(frozen=True)
class TemporalPrediction:
    """Logits of every frame, and the piece of the timeline that the frame stands for.

    Attributes:
        start_logits: [slot, frame]; a softmax over the valid frames gives where a window starts.
        end_logits: [slot, frame]; the same for where a window ends.
        actionness_logits: [slot, frame]; the sigmoid is the share of the frame's cell inside a window.
        times_sec: seconds of the frames [slot, frame].
        cells_sec: (start, end) of each frame's cell in seconds [slot, frame, 2]; the valid ones tile the clip.
        frame_valid: which frames exist [slot, frame]; logits of the others mean nothing.
    """

    start_logits: Tensor
    end_logits: Tensor
    actionness_logits: Tensor
    times_sec: Tensor
    cells_sec: Tensor
    frame_valid: Tensor

    def validate(self) -> TemporalPrediction:
        """Return itself, or raise a `UsageError`."""
        slot, frame = require_axes("prediction.start_logits", self.start_logits, slot=None, frame=None)
        for field in ("end_logits", "actionness_logits", "times_sec", "frame_valid"):
            require_axes(f"prediction.{field}", getattr(self, field), slot=slot, frame=frame)
        require_axes("prediction.cells_sec", self.cells_sec, slot=slot, frame=frame, ends=2)
        return self


@dataclass(frozen=True)
class TemporalTarget:
    """The annotated windows of each slot, padded.

    Attributes:
        windows_sec: (start, end) in seconds of the clip, the end exclusive [slot, window, 2].
        window_valid: which windows exist [slot, window]; none in a row means that nothing happens in the clip.
    """

    windows_sec: Tensor
    window_valid: Tensor

    def validate(self) -> TemporalTarget:
        """Return itself, or raise a `UsageError`."""
        slot, window, _ = require_axes("target.windows_sec", self.windows_sec, slot=None, window=None, ends=2)
        require_axes("target.window_valid", self.window_valid, slot=slot, window=window)
        return self


class SimpleTemporalHead(Head[TemporalPrediction, TemporalTarget]):
    """Two-layer MLP over [task embedding ; embedding of the frame's time], Linear - ReLU - Linear to three logits per frame.

    The number of frames is free. A frame's time enters as a share of the clip's duration, so one head serves clips of any length.

    Source: TPO Table 11, "replace by simple head"; the released `temporal_embed` and `action_embed`.
    Differs in: the official modules are dead code that wants one task token per frame, applies dropout to its own output, forbids
    windows of one frame and ignores actionness when it decodes. Here one task token serves all frames through their times, there is
    no dropout, windows of one frame are allowed, and actionness takes part in the decoding.
    """

    name: ClassVar[str] = "temporal"
    variant: ClassVar[str] = "simple"
    scores_within_clip: ClassVar[bool] = True
    """Scores rank the windows of one clip: start and end are softmaxes over its frames, and have a maximum where nothing happens too."""
    Settings: ClassVar[type[HeadSettings]] = SimpleTemporalSettings
    settings: SimpleTemporalSettings

    def __init__(self, embed_dim: int, settings: SimpleTemporalSettings | None = None) -> None:
        super().__init__(embed_dim, settings)
        hidden_dim = embed_dim if self.settings.hidden_dim is None else self.settings.hidden_dim
        if hidden_dim < 1:
            raise UsageError("hidden_dim", expected="a width of at least 1", got=hidden_dim)
        self.mlp = nn.Sequential(nn.Linear(embed_dim + self.settings.time_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, 3))

    def predict(self, task_embedding: Tensor, visual: Visual) -> TemporalPrediction:
        """Predict start, end and actionness logits of every frame; only times and durations of `visual` are looked at."""
        times_sec, valid, duration_sec = visual.times_sec.float(), visual.frame_valid, visual.duration_sec.float()
        share = torch.where(valid, times_sec / duration_sec.clamp(min=torch.finfo(torch.float32).tiny)[:, None], 0)
        time = embed_time(share, self.settings.time_dim, self.settings.max_cycles)
        repeated = task_embedding[:, None].expand(-1, time.shape[1], -1)
        start, end, actionness = self.mlp(torch.cat([repeated, time], dim=-1)).unbind(-1)
        return TemporalPrediction(start, end, actionness, times_sec, frame_cells(times_sec, duration_sec, valid), valid)

    def losses(self, prediction: TemporalPrediction, target: TemporalTarget) -> dict[str, Tensor]:
        """Values of "start" and "end" [slots with a window] and of "actionness" [valid frames of all slots].

        Start and end: cross-entropy over frames, the mass of a boundary split linearly between the two frames around it and alike
        among several windows. Actionness: binary cross-entropy with the share of the frame's cell that lies in any window.
        A clip without windows teaches actionness 0 and nothing about boundaries.
        """
        slots = len(prediction.validate().start_logits)
        windows, present = target.validate().windows_sec, target.window_valid
        require_axes("target.window_valid", present, slot=slots, window=None)
        valid, some = prediction.frame_valid, present.any(-1) & prediction.frame_valid.any(-1)

        def boundary(logits: Tensor, moments_sec: Tensor) -> Tensor:
            wanted = boundary_weights(prediction.times_sec, valid, moments_sec, present)
            return SoftCrossEntropy()(logits[some], wanted[some], valid[some])

        inside = coverage(prediction.cells_sec, windows, present)
        return {
            "start": boundary(prediction.start_logits, windows[..., 0]),
            "end": boundary(prediction.end_logits, windows[..., 1]),
            "actionness": BinaryCrossEntropy()(prediction.actionness_logits, inside, valid),
        }

    def encode_target(self, annotation: Mapping[str, Any], clip: ClipInfo) -> Tensor:
        """Turn {"windows_sec": [[start, end], ...]} into seconds [window, 2], cut to the clip; "saliency" is not used.

        Raises:
            UsageError: no "windows_sec", or a window that is empty, inverted or outside the clip.
        """
        if "windows_sec" not in annotation:
            raise UsageError("temporal.windows_sec", expected="a list of [start, end], empty if nothing happens", got=sorted(annotation))
        return read_windows(annotation["windows_sec"], clip)

    def collate_targets(self, items: Sequence[Tensor], slots_per_answer: Sequence[int], device: torch.device | str) -> TemporalTarget:
        """Pad the windows of all answers to the longest list; every slot of an answer gets all of its windows."""
        require_answers(items, slots_per_answer)
        windows, present = pad_windows(items)
        repeats = torch.tensor(slots_per_answer, dtype=torch.long)
        return TemporalTarget(windows.repeat_interleave(repeats, 0).to(device), present.repeat_interleave(repeats, 0).to(device))

    def decode(self, prediction: TemporalPrediction, clips: Sequence[ClipInfo], answer: Tensor) -> list[dict[str, Any]]:
        """Per answer: "windows_sec" best first, their "scores" in (0, 1], and "saliency" as [seconds, actionness] of each frame.

        Every pair of a first and a last frame is a candidate; `score_pairs` ranks them and `refine` gives their seconds. Windows that
        overlap a better one are left out (`nms_iou`). Several slots of an answer pool their windows, and the higher actionness counts.
        """
        slots = [self._decode_slot(prediction.validate(), slot) for slot in range(len(answer))]
        answer = answer.cpu()
        return [self._pool([slots[slot] for slot in (answer == index).nonzero()[:, 0]]) for index in range(len(clips))]

    def _decode_slot(self, prediction: TemporalPrediction, slot: int) -> tuple[Tensor, Tensor, Tensor]:
        valid = prediction.frame_valid[slot]
        rows = (prediction.start_logits, prediction.end_logits, prediction.actionness_logits, prediction.times_sec)
        start, end, actionness, times = (require_finite(self.name, row[slot][valid]) for row in rows)
        saliency = torch.stack([times, actionness.sigmoid()], dim=-1)
        if not len(times):
            return times.new_zeros(0, 2), times.new_zeros(0), saliency
        windows = refine(prediction.cells_sec[slot][valid].detach().cpu(), actionness.sigmoid())
        ordered = torch.ones(len(times), len(times), dtype=torch.bool).triu()
        windows, scores = windows[ordered], score_pairs(start, end, actionness)[ordered]
        kept = span_nms(windows, scores, self.settings.nms_iou, self.settings.max_windows)
        return windows[kept], scores[kept], saliency

    def _pool(self, slots: Sequence[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Any]:
        if not slots:
            return {"windows_sec": [], "scores": [], "saliency": []}
        found = [(windows, scores) for windows, scores, _ in slots]
        windows, scores = pool_windows(found, nms_iou=self.settings.nms_iou, count=self.settings.max_windows)
        highest = torch.stack([saliency for *_, saliency in slots]).amax(0)
        return {"windows_sec": windows, "scores": scores, "saliency": highest.tolist()}

    def diagnostics(self, prediction: TemporalPrediction, target: TemporalTarget) -> dict[str, float]:
        """Rate of slots whose likeliest start lies after their likeliest end: boundaries that do not know of each other."""
        start, end = (
            masked_log_softmax(logits.detach(), prediction.frame_valid).argmax(-1)
            for logits in (prediction.start_logits, prediction.end_logits)
        )
        return {"inverted_rate": float((start > end).float().mean()) if len(start) else 0.0}


def embed_time(share: Tensor, dim: int, max_cycles: float) -> Tensor:
    """Sines and cosines [..., dim] of a time given as a share of the clip [...].

    The frequencies grow geometrically from half a cycle per clip, on which the cosine alone orders all times, to `max_cycles`.
    """
    cycles = torch.logspace(math.log10(0.5), math.log10(max_cycles), dim // 2, device=share.device, dtype=share.dtype)
    angle = 2 * math.pi * share[..., None] * cycles
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def score_pairs(start_logits: Tensor, end_logits: Tensor, actionness_logits: Tensor) -> Tensor:
    """Score in (0, 1] of every pair of frames (first, last), first <= last, from the logits [frame] of one clip: [first, last].

    The pair's likelihood is p_start(first) * p_end(last) times that of the actionness: a for a frame between the two, 1 - a for one
    outside, and the larger of both for the two themselves, whose cells a window may cover in part. The score is the geometric mean of
    all factors. Entries with first > last mean nothing.
    """
    # Against "no frame inside" each frame between adds log a - log(1 - a), which is its logit; the ends add it where it is positive.
    before = torch.cat([actionness_logits.new_zeros(1), actionness_logits.cumsum(0)])
    ends = actionness_logits.relu()
    inside = before[None, :-1] - before[1:, None] + ends[:, None] + ends[None]
    inside.diagonal().copy_(ends)
    nothing = nn.functional.logsigmoid(-actionness_logits).sum()
    total = start_logits.log_softmax(0)[:, None] + end_logits.log_softmax(0)[None] + inside + nothing
    return (total / (len(actionness_logits) + 2)).exp()


def refine(cells_sec: Tensor, actionness: Tensor) -> Tensor:
    """Seconds (start, end) of every pair of frames (first, last) of one clip: [first, last, 2].

    The actionness of a boundary frame is taught as the share of its cell inside the window, so a window that enters in a cell covers
    that share at the cell's end, and one that leaves at the cell's beginning. The result never leaves the cells of the pair. Within a
    single cell the share says how long the window is and not where; it is put in the middle.
    """
    lengths = cells_sec[:, 1] - cells_sec[:, 0]
    start, end = cells_sec[:, 1] - actionness * lengths, cells_sec[:, 0] + actionness * lengths
    pairs = (len(lengths), len(lengths))
    windows = torch.stack([start[:, None].expand(pairs), end[None].expand(pairs)], dim=-1)
    middle, half = cells_sec.mean(-1), actionness * lengths / 2
    windows.diagonal(dim1=0, dim2=1).copy_(torch.stack([middle - half, middle + half]))
    return windows
