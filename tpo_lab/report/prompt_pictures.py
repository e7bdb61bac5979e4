"""What users point at, and what the model sees of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.drawing import GROUND_TRUTH, POINTED, PREDICTION, Box, contact_sheet, draw_boxes, draw_strokes
from tpo_lab.errors import UsageError
from tpo_lab.report.pictures import beside, strip

if TYPE_CHECKING:
    from PIL.Image import Image

    from tpo_lab.sample import Sample

_TILE = 160
_DARK = 0.25
"""Of full light, where nothing is drawn."""


def prompt_sheet(samples: Sequence[Sample]) -> Image:
    """The frame that each sample points into, with its boxes, points and scribbles in white, side by side below their kinds.

    Raises:
        UsageError: there is no sample, or one without a prompt.
    """
    bare = [sample.id for sample in samples if not sample.prompts]
    if not samples or bare:
        raise UsageError("samples", expected="at least one, each with a prompt", got=bare or "none")
    kinds = [", ".join(prompt.type for prompt in sample.prompts) for sample in samples]
    return beside([contact_sheet([[_pointed(sample)]], [kind]) for sample, kind in zip(samples, kinds, strict=True)])


def drawn_picture(sample: Sample, drawings: Mapping[str, NDArray[np.floating[Any]]]) -> Image:
    """One frame for each drawing, lit where it lies: how `tpo_lab.prompts` sees it.

    Args:
        sample: its first prompt says which frame.
        drawings: name -> share of each cell of the frame, from 0 up [y, x], a square.

    Raises:
        UsageError: there is none, or one is no square, or has a value that is negative or not finite.
    """
    from PIL import Image as Pictures

    if not drawings:
        raise UsageError("drawings", expected="at least one", got=0)
    large = Pictures.fromarray(_frame(sample)).resize((_TILE, _TILE), Pictures.Resampling.NEAREST)
    tiles = []
    for name, drawing in drawings.items():
        shares = np.asarray(drawing, dtype=np.float64)
        if shares.ndim != 2 or len(set(shares.shape)) != 1 or not np.isfinite(shares).all() or (shares < 0).any():
            raise UsageError(f"drawings[{name!r}]", expected="finite shares from 0 up [y, x], a square", got=shares.shape)
        light = _DARK + (1 - _DARK) * shares / max(shares.max(), np.finfo(np.float64).tiny)
        lamp = np.asarray(Pictures.fromarray(light.astype(np.float32)).resize(large.size, Pictures.Resampling.NEAREST))
        lit = Pictures.fromarray((np.asarray(large) * lamp[..., None]).astype(np.uint8))
        tiles.append(contact_sheet([[lit]], [name]))
    return beside(tiles)


def moved_picture(sample: Sample, prompts: Sequence[Sequence[float]], answers: Sequence[Sequence[float]], count: int = 5) -> Image:
    """A box that is moved, and the answers: above, where it points in the first frame; below, in the last one, the answer to it.

    Args:
        sample: about the clip; its region target, where it has one, is green in the lower row.
        prompts: boxes in [0,1] of the frame, white.
        answers: to each of them, in [0,1] of the frame, orange.
        count: how many of them are shown, evenly chosen from the first to the last.

    Raises:
        UsageError: the counts differ, or there are none.
    """
    if not len(prompts) or len(prompts) != len(answers):
        raise UsageError("answers", expected=f"{len(prompts)}, one for each prompt, at least one", got=len(answers))
    shown = strip(sample)
    height, width = shown.frames.shape[1:3]
    size = np.array([width, height, width, height])
    enlarged = max(1, round(_TILE / width))
    truth: list[Box] = [(list(shown.scale * np.array(box.xyxy)), "", GROUND_TRUTH) for box in sample.targets.region or ()]
    rows: list[list[Image]] = [[], []]
    for place in sorted({round(place) for place in np.linspace(0, len(prompts) - 1, count)}):
        rows[0].append(draw_boxes(shown.frames[0], [(_ordered(prompts[place], size), "", POINTED)], scale=enlarged))
        rows[1].append(draw_boxes(shown.frames[-1], [*truth, (_ordered(answers[place], size), "", PREDICTION)], scale=enlarged))
    return contact_sheet(
        rows, ["first frame: what is pointed at", "last frame: what is answered, and in green the thing of the first question"]
    )


def _ordered(box: Sequence[float], size: NDArray[np.floating[Any]]) -> list[float]:
    """In pixels, with corners in order: a head may answer with an inverted box."""
    pixels = np.asarray(box, dtype=np.float64) * size
    return [*np.minimum(pixels[:2], pixels[2:]).tolist(), *np.maximum(pixels[:2], pixels[2:]).tolist()]


def _frame(sample: Sample) -> NDArray[np.uint8]:
    shown = strip(sample)
    return np.asarray(shown.frames[shown.nearest(sample.prompts[0].time_sec) if sample.prompts else 0])


def _pointed(sample: Sample) -> Image:
    shown = strip(sample)
    enlarged = max(1, round(_TILE / shown.frames.shape[2]))
    boxes: list[Box] = [(list(shown.scale * np.array(p.xyxy)), "", POINTED) for p in sample.prompts if p.type == "box"]
    strokes = [((enlarged * shown.scale * np.array(p.points)).tolist(), "", POINTED) for p in sample.prompts if p.type != "box"]
    return draw_strokes(np.asarray(draw_boxes(_frame(sample), boxes, scale=enlarged)), strokes)
