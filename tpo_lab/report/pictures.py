"""Predictions over the frames of a clip beside the ground truth, as in the paper's Figures 4 and 7; used by notebooks and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from tpo_lab.drawing import (
    GROUND_TRUTH,
    POINTED,
    PREDICTION,
    VEIL,
    Box,
    Mask,
    Stroke,
    contact_sheet,
    draw_boxes,
    draw_masks,
    draw_strokes,
    timeline,
)
from tpo_lab.errors import UsageError
from tpo_lab.rle import decode_rle

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from tpo_lab.backbones import Backbone
    from tpo_lab.sample import Sample

TRUTH, MODEL = "truth", "model"
_FRAME_WIDTH, _FILM_WIDTH = 128, 60
_TILE_WIDTH = 96
_FRAMES = 8
_ROW_OF_TILES = 5
_DARK = 0.2
"""Of full light, where nothing points."""


@dataclass(frozen=True)
class _AsStored:
    """Asks `Frames` for the pixels as they are, in place of a backbone that resizes them."""

    num_frames: int
    image_size: int = 0

    def resize(self, frames: Tensor) -> Tensor:
        return frames


@dataclass(frozen=True)
class Strip:
    """Frames of a clip for looking at.

    Attributes:
        frames: uint8 RGB [frame, h, w, 3], made smaller where the clip is large.
        times_sec: when each is shown, from the start of the clip.
        duration_sec: of the clip.
        scale: how many pixels of these frames one pixel of the original is.
    """

    frames: NDArray[np.uint8]
    times_sec: tuple[float, ...]
    duration_sec: float
    scale: float

    def nearest(self, time_sec: float) -> int:
        """The frame shown closest to that time."""
        return min(range(len(self.times_sec)), key=lambda place: abs(self.times_sec[place] - time_sec))


def strip(sample: Sample, count: int = _FRAMES, *, longest: int = 256) -> Strip:
    """Frames at the centres of `count` equal parts of a sample's clip, no side longer than `longest` pixels.

    Raises:
        UsageError: the clip cannot be read.
    """
    from PIL import Image

    from tpo_lab.media import Frames

    row = Frames(cast("Backbone", _AsStored(count)), keep=False).row([sample])
    frames = row.frames.permute(0, 2, 3, 1).numpy()
    scale = min(1.0, longest / max(row.clip.width, row.clip.height))
    if scale < 1:
        size = max(1, round(row.clip.width * scale)), max(1, round(row.clip.height * scale))
        frames = np.stack([np.asarray(Image.fromarray(frame).resize(size)) for frame in frames])
    return Strip(np.ascontiguousarray(frames), row.clip.times_sec, row.clip.duration_sec, scale)


def clip_sheet(samples: Sequence[Sample], count: int = _FRAMES) -> Image:
    """A contact sheet: a row of frames for each sample's clip, below its question and answer."""
    from PIL import Image

    rows, captions = [], []
    for sample in samples:
        shown = strip(sample, count, longest=_FRAME_WIDTH)
        rows.append([Image.fromarray(frame) for frame in shown.frames])
        captions.append("  ".join(turn.text for turn in sample.conversation))
    return contact_sheet(rows, captions)


def box_picture(sample: Sample, predicted: Mapping[str, Any] | None, *, count: int = 4) -> Image:
    """Frames of a clip, and the true and predicted boxes on the one that was asked about.

    Args:
        sample: its region target is drawn where it has one, and what its user points at on the first frame.
        predicted: what the region head answers ("boxes_xyxy" in pixels of the original frame), or None where it was not asked.
        count: frames from the first to the one with the boxes.

    Source: Figure 4 of the paper. Differs in: the frames before are shown too, because what is asked for moves.
    """
    shown = strip(sample)
    true = sample.targets.region or ()
    asked = shown.nearest(true[0].time_sec) if true else len(shown.frames) - 1
    boxes = [(shown.scale * np.array(target.xyxy), "", GROUND_TRUTH) for target in true]
    boxes += [(shown.scale * np.array(xyxy), "", PREDICTION) for xyxy in (predicted or {}).get("boxes_xyxy", ())]
    enlarged = _enlargement(shown)
    places = sorted({round(place) for place in np.linspace(0, asked, count)})
    tiles = []
    for place in places:
        drawn = [(list(xyxy), label, colour) for xyxy, label, colour in boxes] if place == asked else []
        tile = draw_boxes(shown.frames[place], drawn, scale=enlarged)
        tiles.append(_pointed(tile, sample, shown, enlarged) if place == 0 and asked else tile)
    return beside(tiles)


def pointing_picture(sample: Sample, attention: NDArray[np.floating[Any]]) -> Image:
    """The frames that a model saw, lit where a head points.

    Args:
        sample: about the clip.
        attention: share or weight of each patch, from 0 up [frame, patch], row-major patches of a square grid; the greatest is shown in
            full light.

    Raises:
        UsageError: other axes, a grid that is not square, or a weight that is negative or not finite.
    """
    from PIL import Image

    weights = np.asarray(attention, dtype=np.float64)
    side = round(weights.shape[-1] ** 0.5) if weights.ndim == 2 else 0
    if side < 1 or side**2 != weights.shape[-1] or not len(weights):
        raise UsageError("attention", expected="[frame, patch], patches of a square grid", got=weights.shape)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise UsageError("attention", expected="finite weights from 0 up", got=f"{weights.min()} to {weights.max()}")
    shown = strip(sample, len(weights))
    light = _DARK + (1 - _DARK) * weights / max(weights.max(), np.finfo(np.float64).tiny)
    tiles = []
    for frame, shares in zip(shown.frames, light.reshape(-1, side, side), strict=True):
        large = Image.fromarray(frame).resize((_TILE_WIDTH, max(1, round(frame.shape[0] * _TILE_WIDTH / frame.shape[1]))))
        lamp = np.asarray(Image.fromarray(shares.astype(np.float32)).resize(large.size, Image.Resampling.NEAREST))
        tiles.append(Image.fromarray((np.asarray(large) * lamp[..., None]).astype(np.uint8)))
    return beside(tiles)


def mask_picture(sample: Sample, predicted: Mapping[str, Any] | None) -> Image:
    """Frames of a clip with the true outline, or box, of an object, and the predicted mask.

    Args:
        sample: its mask or track target is drawn where it has one, and what its user points at on the first frame.
        predicted: what the mask head answers ("times_sec", "masks" and "track_xyxy", of which the first object's are drawn), or None where
            it was not asked.

    Source: Figure 5 of the paper. Differs in: what is true is an outline, so that one sees what of it the model covers.
    """
    shown = strip(sample)
    answer = predicted or {}
    enlarged = _enlargement(shown)
    mask, track = sample.targets.mask, sample.targets.track
    tiles = []
    for place, (frame, time_sec) in enumerate(zip(shown.frames, shown.times_sec, strict=True)):
        masks: list[Mask] = []
        boxes: list[Box] = []
        found = _at(answer.get("times_sec", ()), (answer.get("masks") or [()])[0], time_sec)
        if found is not None:
            masks.append((_mask(found, frame.shape[:2]), PREDICTION, VEIL))
        outline = _at(mask.times_sec, mask.rle, time_sec) if mask is not None else None
        box = _at(track.times_sec, track.xyxy, time_sec) if track is not None else None
        if outline is not None:
            masks.append((_mask(outline.model_dump(), frame.shape[:2]), GROUND_TRUTH, 0.0))
        if box is not None:
            boxes.append((list(shown.scale * np.array(box)), "", GROUND_TRUTH))
        drawn = draw_masks(frame, masks, scale=enlarged)
        tile = draw_boxes(np.asarray(drawn), [_larger(box, enlarged) for box in boxes])
        tiles.append(_pointed(tile, sample, shown, enlarged) if place == 0 else tile)
    half = (len(tiles) + 1) // 2
    return _below(beside(tiles[:half]), beside(tiles[half:])) if len(tiles) > _ROW_OF_TILES else beside(tiles)


def _pointed(tile: Image, sample: Sample, shown: Strip, enlarged: int) -> Image:
    """A frame, enlarged, with the boxes, points and scribbles of a sample's prompts."""
    boxes: list[Box] = []
    strokes: list[Stroke] = []
    for prompt in sample.prompts:
        if prompt.type == "box":
            boxes.append((list(shown.scale * np.array(prompt.xyxy)), "", POINTED))
        else:
            strokes.append(((enlarged * shown.scale * np.array(prompt.points)).tolist(), "", POINTED))
    framed = draw_boxes(np.asarray(tile), [_larger(box, enlarged) for box in boxes])
    return draw_strokes(np.asarray(framed), strokes)


def _at(times_sec: Sequence[float], values: Sequence[Any], time_sec: float) -> Any:
    """The value at the nearest time; None where there is none."""
    return min(zip(times_sec, values, strict=True), key=lambda pair: abs(pair[0] - time_sec))[1] if len(values) else None


def _mask(rle: Mapping[str, Any], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask brought to the size (h, w) of a frame."""
    from PIL import Image

    mask = decode_rle("mask", rle)
    return mask if mask.shape == size else np.asarray(Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST))


def _larger(box: Box, scale: int) -> Box:
    return [scale * edge for edge in box[0]], box[1], box[2]


def window_picture(sample: Sample, predicted: Mapping[str, Any] | None) -> Image:
    """Frames of a clip over a time axis with the true and predicted windows and the predicted saliency.

    Args:
        sample: its temporal target is drawn where it has one.
        predicted: what the temporal head answers ("windows_sec" best first, of which the first is drawn, and "saliency" as pairs of
            time and score), or None where it was not asked.

    Source: Figure 7 of the paper. Differs in: colours that are told apart with every common form of colour blindness.
    """
    shown = strip(sample)
    answer = predicted or {}
    target = sample.targets.temporal
    windows = [(MODEL, [list(window) for window in answer.get("windows_sec", ())[:1]], PREDICTION)]
    if target is not None:
        windows.insert(0, (TRUTH, [list(window) for window in target.windows_sec], GROUND_TRUTH))
    saliency = answer.get("saliency") or ()
    curves = [("saliency", [pair[0] for pair in saliency], [pair[1] for pair in saliency], PREDICTION)] if saliency else []
    tiles = [draw_boxes(frame, [], scale=1) for frame in shown.frames]
    film = beside([tile.resize((_FILM_WIDTH, max(1, round(tile.height * _FILM_WIDTH / tile.width)))) for tile in tiles])
    return _below(film, timeline(film.width, shown.duration_sec, windows, curves))


def _enlargement(shown: Strip) -> int:
    width: int = shown.frames.shape[2]
    return max(1, round(_FRAME_WIDTH / width))


def beside(tiles: Sequence[Image], gap: int = 4) -> Image:
    """Pictures in one row, with a gap in pixels between them."""
    from PIL import Image

    size = sum(tile.width for tile in tiles) + gap * (len(tiles) - 1), max(tile.height for tile in tiles)
    joined = Image.new("RGB", size, "#FFFFFF")
    left = 0
    for tile in tiles:
        joined.paste(tile, (left, 0))
        left += tile.width + gap
    return joined


def _below(upper: Image, lower: Image, gap: int = 4) -> Image:
    from PIL import Image

    joined = Image.new("RGB", (max(upper.width, lower.width), upper.height + gap + lower.height), "#FFFFFF")
    joined.paste(upper, (0, 0))
    joined.paste(lower, (0, upper.height + gap))
    return joined
