"""Samples, answers and frames for HeadView whose axes all differ: 7 frames of 57 x 31 pixels over 5 seconds."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tpo_lab.records import Record
from tpo_lab.rle import encode_rle
from tpo_lab.sample import Sample
from tpo_widgets.heads.cases import record_of

WIDTH, HEIGHT, COUNT, DURATION_SEC = 57, 31, 7, 5.0
TIMES = [0.0, 0.5, 1.25, 2.0, 3.0, 4.0, 4.5]
TRUE_BOX, MODEL_BOX = [8.0, 5.0, 41.0, 19.0], [12.0, 3.0, 47.0, 23.0]
TRUE_WINDOW, MODEL_WINDOW = [1.3, 2.9], [0.7, 3.4]


def frames(count: int = COUNT, *, width: int = WIDTH, height: int = HEIGHT) -> Any:
    """Grey pictures, each with a brightness of its own."""
    shades = (60 + 100 * np.arange(count) / max(count - 1, 1)).astype(np.uint8)
    return np.broadcast_to(shades[:, None, None, None], (count, height, width, 3)).copy()


def ell(left: int, top: int, *, width: int = WIDTH, height: int = HEIGHT) -> Any:
    """The mask [h, w] of an L: 5 wide and 14 high, with a foot 16 wide and 4 high."""
    mask = np.zeros((height, width), dtype=bool)
    mask[top : top + 14, left : left + 5] = True
    mask[top + 10 : top + 14, left : left + 16] = True
    return mask


def ell_corners(left: int, top: int) -> list[tuple[int, int]]:
    """Its corners in order."""
    return [(left, top), (left + 5, top), (left + 5, top + 10), (left + 16, top + 10), (left + 16, top + 14), (left, top + 14)]


def sample(
    name: str = "one", answer: str = "<region> <temporal>", prompts: Any = (), question: str = "Where and when?", **targets: Any
) -> Sample:
    """A sample about a clip that is nowhere."""
    return Sample.model_validate(
        {
            "id": name,
            "media": {"path": "nowhere.mp4", "end_sec": DURATION_SEC},
            "conversation": [{"role": "user", "text": question}, {"role": "assistant", "text": answer}],
            "prompts": list(prompts),
            "targets": targets,
        }
    )


def boxed(name: str = "one") -> Sample:
    """One true box at 3 s, and one true window with saliency."""
    saliency = {"step_sec": 1.0, "scores": [0.0, 4.0, 3.0, 1.0, 0.0]}
    region = [{"time_sec": 3.0, "xyxy": TRUE_BOX}]
    return sample(name, region=region, temporal={"windows_sec": [TRUE_WINDOW], "saliency": saliency})


def boxed_answer(box: Any = MODEL_BOX) -> dict[str, Any]:
    """What a model says of it."""
    temporal = {"windows_sec": [MODEL_WINDOW, [3.5, 4.5]], "scores": [0.75, 0.25], "saliency": [[0.5, 0.1], [2.0, 0.9], [4.0, 0.3]]}
    structured = {"region": {"boxes_xyxy": [box]}, "temporal": temporal}
    return {"text": "There <region> and then <temporal>", "structured": structured, "route_probability": {"region": 0.9, "temporal": 0.05}}


def masked(name: str = "masked") -> Sample:
    """An L that moves right by 3 pixels a frame, and is hidden in frames 3 and 4; pointed at on the first frame."""
    rle = [None if number in (3, 4) else encode_rle(ell(4 + 3 * number, 6)) for number in range(COUNT)]
    prompt = {"type": "box", "time_sec": 0.0, "xyxy": [4, 6, 20, 20]}
    return sample(name, "<mask>", [prompt], "Follow <prompt:0>.", mask={"times_sec": TIMES, "rle": rle})


def masked_answer(shift: int = 1, hidden: tuple[int, ...] = (4,), down: int = 0) -> dict[str, Any]:
    """The same L a few pixels to the right and lower, hidden in other frames."""
    masks = [None if number in hidden else encode_rle(ell(4 + 3 * number + shift, 6 + down)) for number in range(COUNT)]
    boxes = [None if number in hidden else [4.0 + 3 * number + shift, 6.0, 20.0 + 3 * number + shift, 20.0] for number in range(COUNT)]
    mask = {"times_sec": TIMES, "masks": [masks], "track_xyxy": [boxes], "scores": [[0.9] * COUNT]}
    return {"text": "<mask>", "structured": {"mask": mask}, "route_probability": {"mask": 0.8}}


def tracked(name: str = "tracked") -> Sample:
    """A box that moves right, hidden in frame 2."""
    boxes = [None if number == 2 else [4.0 + 3 * number, 6.0, 20.0 + 3 * number, 20.0] for number in range(COUNT)]
    return sample(name, "<track>", track={"times_sec": TIMES, "xyxy": boxes})


def fifty(name: str = "fifty") -> tuple[Sample, dict[str, Any]]:
    """Fifty true boxes at 2 s, and as many predicted ones, each a pixel off."""
    true = [[1.0 + 5 * (place % 10), 1.0 + 6 * (place // 10), 5.0 + 5 * (place % 10), 6.0 + 6 * (place // 10)] for place in range(50)]
    region = [{"time_sec": 2.0, "xyxy": box} for box in true]
    found = [[x0 + 1, y0, x1 + 1, y1] for x0, y0, x1, y1 in true]
    return sample(name, "<region>", region=region), {"text": "<region>", "structured": {"region": {"boxes_xyxy": found}}}


def forced_only(given: Sample, answer: dict[str, Any]) -> Record:
    """A record of a model that asks no head by itself."""
    record = record_of(given, answer)
    return dataclasses.replace(record, text="It is red.", emitted=(), routed={}, forced=record.routed)
