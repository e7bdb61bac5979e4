"""The pictures of an answer: boxes and masks over the frames, windows and saliency over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from tpo_lab.drawing import Box, Mask, Stroke

_READABLE = 240
"""Clips with a shorter side below this many pixels are enlarged, so that labels do not hide them."""
_THUMBNAIL = 160
_TIMELINE_WIDTH = 720


def write_overlays(
    document: Mapping[str, Any],
    folder: Path,
    window_sec: tuple[float, float],
    *,
    prompts: Sequence[Sequence[float]],
    num_frames: int,
    on_corrupt: str,
    strokes: Sequence[Sequence[Sequence[float]]] = (),
) -> list[str]:
    """Writes answer.json, frames.png, and timeline.png where the answer has windows or saliency.

    Args:
        document: the answer of `tpo-lab predict`.
        folder: created where it is missing.
        window_sec: the part of the video that was shown to the model.
        prompts: boxes the user pointed at, xyxy in pixels of the first frame.
        strokes: points (x, y) of each point or scribble, in the same pixels.
        num_frames: how many frames the model was shown.
        on_corrupt: as for the reader.

    Returns:
        the files, in the order of writing; answer.json holds the list as well.
    """
    from tpo_lab.drawing import PREDICTION, timeline
    from tpo_lab.runs import write_json
    from tpo_lab.video import read_clip

    start, end = window_sec
    clip = read_clip(document["video"], num_frames=num_frames, start_sec=start, end_sec=end, on_corrupt=on_corrupt)
    # A prompt lies on the very first frame, which the frames that the model is shown need not include.
    asked = bool(prompts or strokes)
    first = read_clip(document["video"], num_frames=1, start_sec=start, end_sec=start, on_corrupt=on_corrupt).frames[0] if asked else None
    times = [float(time) - start for time in clip.times_sec]
    pictures = {"frames.png": frames_picture(clip.frames, times, document, first, prompts, strokes)}
    if document["windows_sec"] or document["saliency"]:
        curve = [("saliency", [pair[0] for pair in document["saliency"]], [pair[1] for pair in document["saliency"]], PREDICTION)]
        bars = [("predicted", document["windows_sec"], PREDICTION)]
        pictures["timeline.png"] = timeline(_TIMELINE_WIDTH, document["duration_sec"], bars, curve if document["saliency"] else ())
    folder.mkdir(parents=True, exist_ok=True)
    files = [str(folder / name) for name in ("answer.json", *pictures)]
    for name, picture in pictures.items():
        picture.save(folder / name)
    write_json(folder / "answer.json", {**document, "files": files})
    return files


def frames_picture(
    frames: NDArray[np.uint8],
    times_sec: Sequence[float],
    document: Mapping[str, Any],
    first: NDArray[np.uint8] | None = None,
    prompts: Sequence[Sequence[float]] = (),
    strokes: Sequence[Sequence[Sequence[float]]] = (),
) -> Image:
    """The answer over the frames in their own resolution, and below it, small, all frames that the model was shown.

    Predicted boxes mean the last frame; masks are veils, each in the frame that it belongs to.

    Args:
        frames: uint8 RGB [frame, h, w, 3].
        times_sec: of the frames, from the start of the clip.
        document: the answer.
        first: the frame on which the prompts lie, uint8 RGB [h, w, 3].
        prompts: xyxy in pixels of it.
        strokes: points (x, y) of each point or scribble in pixels of it.
    """
    import numpy as np

    from tpo_lab.drawing import GROUND_TRUTH, PREDICTION, contact_sheet, draw_boxes, draw_masks, draw_strokes

    scale = scale_of(*frames.shape[1:3])
    asked: list[Box] = [(box, f"prompt {index}", GROUND_TRUTH) for index, box in enumerate(prompts)]
    found: list[Box] = [(ordered(box), f"box {index}", PREDICTION) for index, box in enumerate(document["boxes_xyxy"])]
    large = []
    if first is not None:
        lines: list[Stroke] = [
            ([(scale * x, scale * y) for x, y in points], f"prompt {len(prompts) + index}", GROUND_TRUTH)
            for index, points in enumerate(strokes)
        ]
        large.append(draw_strokes(np.asarray(draw_boxes(first, asked, scale=scale)), lines))
    veiled = [draw_masks(frame, _masks(document, place)) for place, frame in enumerate(frames)]
    large.append(draw_boxes(np.asarray(veiled[-1]), found, scale=scale))
    small = []
    for frame, time_sec in zip(veiled, times_sec, strict=True):
        inside = any(start <= time_sec < end for start, end in document["windows_sec"])
        small.append(_thumbnail(frame, PREDICTION if inside else None))
    saw = f"{len(small)} frames, {times_sec[0]:.2f} to {times_sec[-1]:.2f} s" + (", framed: in a window" if document["windows_sec"] else "")
    return contact_sheet([large, small], [f"{document['question']}\n{document['text']}", saw])


def _masks(document: Mapping[str, Any], frame: int) -> list[Mask]:
    """What is drawn of the objects in one of the frames that the model was shown; each has a colour of its own."""
    from tpo_lab.drawing import VEIL
    from tpo_lab.rle import decode_rle

    shown = [(place, masks[frame]) for place, masks in enumerate(document.get("masks", ())) if masks[frame] is not None]
    return [(decode_rle("masks", rle), colour_of(place), VEIL) for place, rle in shown]


def colour_of(place: int) -> str:
    """The colour of an object, by its number."""
    from tpo_lab.drawing import PALETTE

    # the first colour means what is true
    return PALETTE[1 + place % (len(PALETTE) - 1)]


def scale_of(height: int, width: int) -> int:
    """How many times a frame is enlarged so that labels do not hide it."""
    return max(1, _READABLE // min(height, width))


def ordered(xyxy: Sequence[float]) -> list[float]:
    """An untrained head may answer with corners that are swapped; they are drawn, not hidden."""
    left, right = sorted((xyxy[0], xyxy[2]))
    top, bottom = sorted((xyxy[1], xyxy[3]))
    return [left, top, right, bottom]


def _thumbnail(image: Image, colour: str | None) -> Image:
    from PIL import ImageOps

    small = image.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return ImageOps.expand(small, border=3, fill=colour or "#FFFFFF")
