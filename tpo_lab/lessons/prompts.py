"""Asks the same question of other places: what a model makes of a prompt that is moved, misread or drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType

import torch
from torch import Tensor

from tpo_lab.batch import Batch
from tpo_lab.boxes import box_iou, order_corners, xyxy_to_cxcywh
from tpo_lab.errors import UsageError
from tpo_lab.media import Frames, media_key
from tpo_lab.model import TPOModel
from tpo_lab.prompts import Pointed
from tpo_lab.sample import Sample

QUESTION = "Where is <prompt:0> at the end?"
Strokes = Sequence[Sequence[Sequence[float]]]
"""Per question the corners of a box as ((x0, y0, x1, y1),) or the points of a stroke as ((x, y), ...), in [0,1] of the frame."""


def _thousandths(boxes: Tensor, size_wh: Tensor) -> Tensor:
    return boxes * 1000


def _pixels(boxes: Tensor, size_wh: Tensor) -> Tensor:
    return boxes * torch.cat([size_wh, size_wh], -1)


MISREADINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "as it should be": lambda boxes, size_wh: boxes,
        "pixels, not divided": _pixels,
        "thousandths": _thousandths,
        "centre and size": lambda boxes, size_wh: xyxy_to_cxcywh(boxes),
        "x and y swapped": lambda boxes, size_wh: boxes[:, [1, 0, 3, 2]],
    }
)
"""Conventions that are taken for corners in [0,1]: boxes [prompt, 4] and frame sizes [prompt, 2] in pixels to what arrives."""


@dataclass(frozen=True)
class Reading:
    """What a model makes of questions with one prompt each.

    Attributes:
        embedded: what the language model gets for the prompt [question, d].
        task_embedding: e_i of the region head, which is asked whatever the model would say [question, d].
        boxes_xyxy: what the head answers, in [0,1] of the frame [question, 4].
    """

    embedded: Tensor
    task_embedding: Tensor
    boxes_xyxy: Tensor


@dataclass(frozen=True)
class Sweep:
    """A box that moves from one thing to another, and the answers.

    Attributes:
        share: of the way, from 0 to 1 [step].
        prompts_xyxy: where it points, in [0,1] of the frame [pair, step, 4].
        answers_xyxy: in [0,1] of the frame [pair, step, 4].
        first: IoU of the answer with where the first thing is at the end [pair, step].
        second: with where the second one is [pair, step].
        alike: cosine of the task embedding with that of the first step [pair, step].
    """

    share: Tensor
    prompts_xyxy: Tensor
    answers_xyxy: Tensor
    first: Tensor
    second: Tensor
    alike: Tensor

    def clearest(self) -> int:
        """The pair whose answer goes from the one thing to the other most clearly."""
        return int((self.first[:, 0] + self.second[:, -1] - self.first[:, -1] - self.second[:, 0]).argmax())


def pointing_questions(samples: Sequence[Sample], question: str = QUESTION) -> list[Sample]:
    """A question for the region head from each sample that points at a thing with a box and knows where that thing is at the end.

    These are samples with a track. The answer is the track's last box; a thing that cannot be seen then is left out.
    """
    found = []
    for sample in samples:
        track = sample.targets.track
        if track is None or track.xyxy[-1] is None or [prompt.type for prompt in sample.prompts] != ["box"]:
            continue
        record = sample.model_dump(mode="json")
        record["conversation"] = [{"role": "user", "text": question}, {"role": "assistant", "text": "<region>"}]
        record["targets"] = {"region": [{"time_sec": track.times_sec[-1], "xyxy": list(track.xyxy[-1])}]}
        asked = Sample.model_validate(record)
        found.append(asked if sample.root is None else asked.at(sample.root))
    return found


def pairs_in_clips(questions: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """Each two questions that point into the same clip."""
    clips: dict[str, list[Sample]] = {}
    for question in questions:
        clips.setdefault(media_key(question), []).append(question)
    return [pair for asked in clips.values() for pair in combinations(asked, 2)]


def batch_of(model: TPOModel, questions: Sequence[Sample]) -> Batch:
    """The samples as a batch, one row each, on the model's device."""
    frames = Frames(model.backbone, features=model.feature_files)
    return model.collate([frames.row([question]) for question in questions]).to(model.backbone.device)


def sizes_wh(batch: Batch) -> Tensor:
    """Width and height in pixels of the frames that the batch's prompts lie on [prompt, 2]."""
    clips = [batch.rows[row].clip for row in batch.prompts.row.tolist()]
    return torch.tensor([(clip.width, clip.height) for clip in clips], dtype=torch.float32).reshape(-1, 2)


def pointed_at(batch: Batch, prompts: Strokes | Tensor) -> Batch:
    """The batch with other prompts in the places of its own.

    Args:
        batch: with as many prompts.
        prompts: of each, or boxes [prompt, 4].

    Raises:
        UsageError: the counts differ.
    """
    given = [[box] for box in prompts.tolist()] if isinstance(prompts, Tensor) else prompts
    old = batch.prompts
    if len(given) != len(old):
        raise UsageError("prompts", expected=f"{len(old)}, as many as the batch has", got=len(given))
    places = list(zip(old.row.tolist(), old.token.tolist(), old.frame.tolist(), strict=True))
    return replace(batch, prompts=Pointed.collate(given, places).to(old.row.device))


@torch.no_grad()
def read_prompts(model: TPOModel, batch: Batch) -> Reading:
    """What the model makes of a batch of questions for the region head, one prompt each.

    Raises:
        UsageError: the batch has no question for the region head, or not one prompt for each.
    """
    asked = batch.slots.get("region")
    if asked is None or len(asked.row) != len(batch.prompts):
        got = "none" if asked is None else f"{len(asked.row)} questions, {len(batch.prompts)} prompts"
        raise UsageError("batch", expected="questions for the region head with one prompt each", got=got)
    # many questions may be about one clip, which is encoded once
    clips = {row.key: row for row in batch.rows}
    encoded = dict(zip(clips, model.encode_video(list(clips.values())), strict=True))
    video = [encoded[row.key] for row in batch.rows]
    embedded = model.inputs(batch, video)[1]
    assert embedded is not None
    forward = model(batch, video)
    return Reading(embedded, forward.task_embeddings["region"], forward.predictions["region"].boxes_xyxy)


def true_boxes(questions: Sequence[Sample], batch: Batch) -> Tensor:
    """The boxes that the questions' region targets name, in [0,1] of the frame [question, 4]."""
    pixels = torch.tensor([list((question.targets.region or ())[0].xyxy) for question in questions])
    size = sizes_wh(batch)
    return (pixels / torch.cat([size, size], -1)).to(batch.ids.device)


def between(start: Tensor, end: Tensor, count: int) -> Tensor:
    """Boxes from one to another in equal steps, both included: [4] and [4] to [count, 4]."""
    share = torch.linspace(0, 1, count, device=start.device)[:, None]
    return start + share * (end - start)


def sweep(model: TPOModel, pairs: Sequence[tuple[Sample, Sample]], steps: int) -> Sweep:
    """Moves the box of each pair's first question to that of its second one, all else equal, and asks at every step.

    Raises:
        UsageError: there is no pair, or fewer than two steps.
    """
    if not pairs or steps < 2:
        raise UsageError("pairs", expected="at least one, and two steps", got=f"{len(pairs)} pairs, {steps} steps")
    ends = batch_of(model, [question for pair in pairs for question in pair])
    boxes = ends.prompts.boxes_xyxy.reshape(len(pairs), 2, 4)
    wanted = true_boxes([question for pair in pairs for question in pair], ends).reshape(len(pairs), 2, 4)
    prompts = torch.stack([between(start, end, steps) for start, end in boxes])
    asked = batch_of(model, [first for first, _ in pairs for _ in range(steps)])
    reading = read_prompts(model, pointed_at(asked, prompts.flatten(0, 1)))
    answers, embeddings = reading.boxes_xyxy.reshape(prompts.shape), reading.task_embedding.reshape(len(pairs), steps, -1)
    overlap = box_iou(order_corners(answers)[:, None], wanted[:, :, None].expand(-1, -1, steps, -1))
    alike = torch.cosine_similarity(embeddings, embeddings[:, :1], dim=-1)
    return Sweep(torch.linspace(0, 1, steps), prompts, answers, overlap[:, 0], overlap[:, 1], alike)


def three_ways(box_xyxy: Sequence[float]) -> dict[str, list[list[float]]]:
    """The same thing pointed at with its box, a point at its middle, and a scribble across it, in the box's units."""
    x0, y0, x1, y1 = box_xyxy
    middle = [(x0 + x1) / 2, (y0 + y1) / 2]
    inner = [[x0 + s * (x1 - x0), y0 + t * (y1 - y0)] for s, t in ((0.25, 0.25), (0.75, 0.4), (0.25, 0.6), (0.75, 0.75))]
    return {"box": [[x0, y0, x1, y1]], "point": [middle], "scribble": inner}


def kinds_understood(model: TPOModel) -> tuple[str, ...]:
    """What the model can be pointed at things with."""
    return ("box",) if model.prompts.stroke is None else ("box", "point", "scribble")
