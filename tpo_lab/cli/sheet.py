"""The contact sheet of `tpo-lab data show`: each sample's frames with its question, its answer and what is true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tpo_lab.sample import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

    from tpo_lab.backbones import Backbone
    from tpo_lab.drawing import Box, Stroke

_SAMPLED, _SHOWN = 16, 6
_HEIGHT = 144
_TIMELINE_WIDTH = 260


@dataclass(frozen=True)
class _AsFilmed:
    """Stands where `Frames` asks for a backbone: so many frames, in the size of the file."""

    num_frames: int
    image_size: int = 0

    def resize(self, frames: Any) -> Any:
        return frames


def contact_sheet(samples: Sequence[Sample]) -> Image:
    """A row of pictures per sample: frames with true boxes and prompts, and a timeline where there are windows.

    Raises:
        UsageError: no samples, or media that cannot be read.
    """
    from tpo_lab import drawing
    from tpo_lab.errors import UsageError
    from tpo_lab.media import Frames

    if not samples:
        raise UsageError("samples", expected="at least one", got=0)
    frames = Frames(cast("Backbone", _AsFilmed(_SAMPLED)), keep=False)
    rows = []
    for sample in samples:
        row = frames.row([sample])
        pixels = np.ascontiguousarray(row.frames.permute(0, 2, 3, 1).numpy())
        boxes, strokes = _drawn(sample, row.clip.duration_sec)
        shown = sorted({*np.linspace(0, _SAMPLED - 1, _SHOWN).round().astype(int).tolist(), *boxes, *strokes})
        pictures = [_frame(pixels[place], boxes.get(place, []), strokes.get(place, [])) for place in shown]
        if sample.targets.temporal is not None:
            pictures.append(_timeline(sample, row.clip.duration_sec))
        rows.append(pictures)
    return drawing.contact_sheet(rows, [caption(sample) for sample in samples])


def caption(sample: Sample) -> str:
    """Name, task, question and answer."""
    kind = "/".join(str(sample.meta[name]) for name in ("task", "kind") if name in sample.meta)
    turns = "\n".join(f"{'Q' if turn.role == 'user' else 'A'}: {turn.text}" for turn in sample.conversation)
    return f"{sample.id}  {kind}\n{turns}"


def _drawn(sample: Sample, duration_sec: float) -> tuple[dict[int, list[Box]], dict[int, list[Stroke]]]:
    """What is drawn on which of the sampled frames: each box and stroke on the frame of the part of the clip that its time lies in."""
    from tpo_lab.drawing import GROUND_TRUTH, PREDICTION

    boxes: dict[int, list[Box]] = {}
    strokes: dict[int, list[Stroke]] = {}

    def place(time_sec: float) -> int:
        return min(int(time_sec * _SAMPLED / duration_sec + 1e-6), _SAMPLED - 1)

    for index, prompt in enumerate(sample.prompts):
        if prompt.type == "box":
            boxes.setdefault(place(prompt.time_sec), []).append((prompt.xyxy, f"prompt {index}", PREDICTION))
        else:
            strokes.setdefault(place(prompt.time_sec), []).append((prompt.points, f"prompt {index}", PREDICTION))
    for index, target in enumerate(sample.targets.region or ()):
        boxes.setdefault(place(target.time_sec), []).append((target.xyxy, str(index), GROUND_TRUTH))
    if (track := sample.targets.track) is not None:
        for time_sec, box in zip(track.times_sec, track.xyxy, strict=True):
            if box is not None:
                boxes.setdefault(place(time_sec), []).append((box, "", GROUND_TRUTH))
    return boxes, strokes


def _frame(frame: Any, boxes: Sequence[Box], strokes: Sequence[Stroke]) -> Image:
    from tpo_lab.drawing import draw_boxes, draw_strokes

    scale = max(1, round(_HEIGHT / frame.shape[0]))
    larger = [([(scale * x, scale * y) for x, y in points], label, colour) for points, label, colour in strokes]
    image = draw_strokes(np.asarray(draw_boxes(frame, boxes, scale=scale)), larger)
    if image.height > 2 * _HEIGHT:
        image.thumbnail((4 * _HEIGHT, 2 * _HEIGHT))
    return image


def _timeline(sample: Sample, duration_sec: float) -> Image:
    from tpo_lab.drawing import GROUND_TRUTH, Curve, timeline

    target = sample.targets.temporal
    assert target is not None
    curves: list[Curve] = []
    if target.saliency is not None:
        times = [index * target.saliency.step_sec for index in range(len(target.saliency.scores))]
        curves.append(("saliency", times, target.saliency.scores, GROUND_TRUTH))
    return timeline(_TIMELINE_WIDTH, duration_sec, [("true", target.windows_sec, GROUND_TRUTH)], curves)
