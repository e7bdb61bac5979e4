"""A HeadView as one picture: question, answers, frames with what lies over them, and the timeline below.

Source: Figures 4 to 7 of the paper. Differs in: what is true is drawn too, and in colours that are told apart with every common form of
colour blindness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tpo_lab.drawing import GROUND_TRUTH, POINTED, PREDICTION, VEIL, Box, Mask, Stroke, draw_boxes, draw_masks, draw_strokes
from tpo_lab.rle import decode_rle
from tpo_widgets.content import Moment
from tpo_widgets.film import Film
from tpo_widgets.heads.bars import Bars, Line, Spans
from tpo_widgets.heads.cases import Case
from tpo_widgets.heads.overlays import TRUTH, Moving, Source, boxes_of, items_on, moving_of, sources_of, windows_of
from tpo_widgets.heads.scores import hidden_spans, saliency_of, scores_of
from tpo_widgets.sheet import Sheet, wrapped

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE_COLOURS = (PREDICTION, "#0072B2")
"""Of the first checkpoint and of the one that it is compared with."""
MOST_SCORED = 300
"""Frames whose scores are computed for a picture."""
_MARGIN, _GAP, _LINE = 16, 6, 18
_MOST_FRAMES, _LEAST_TILE, _LARGEST_TILE = 5, 128, 320


@dataclass(frozen=True)
class _Shown:
    """What is drawn, and where."""

    case: Case
    film: Film
    truth: Source
    sides: Sequence[tuple[str, str, Source]]
    moment: Moment
    size: tuple[int, int] = (0, 0)

    def has(self, head: str) -> bool:
        return self.moment.head in ("", head)


def head_picture(case: Case, film: Film, names: Sequence[str], how: str, moment: Moment, *, dark: bool, width: int) -> Image:
    """Question, answers, up to five frames around a moment, and the timeline.

    Args:
        case: what is drawn.
        film: its frames.
        names: of the checkpoints.
        how: "routed" or "forced".
        moment: the frame on display is among the frames; `head` leaves the other heads out.
        dark: whether on a dark ground.
        width: in pixels, from 240.
    """
    truth, *said = sources_of(case)
    sides = [(name, SIDE_COLOURS[side], source) for side, name in enumerate(names) for source in said if source.name == f"{side}.{how}"]
    lines = [(line, colour) for words, colour in _words(case, names) for line in wrapped(words, width - 2 * _MARGIN - 10)]
    room = width - 2 * _MARGIN
    frames = chosen_frames(case, film, moment, min(_MOST_FRAMES, max(1, room // _LEAST_TILE)))
    wide = min((room - _GAP * (len(frames) - 1)) // len(frames), _LARGEST_TILE)
    size = wide, max(1, round(wide * film.size_wh[1] / film.size_wh[0]))
    shown = _Shown(case, film, truth, sides, moment, size)
    bars = _bars(shown)
    rows = list(sides) or [("", GROUND_TRUTH, truth)]
    named = _LINE if len(rows) > 1 else 0
    height = 2 * _MARGIN + _LINE * len(lines) + len(rows) * (size[1] + named + _LINE) + 2 * _GAP + bars.height
    sheet = Sheet(width, height, dark=dark)
    top = _write(sheet, lines)
    for name, colour, source in rows:
        if named:
            sheet.text(_MARGIN, top + _LINE / 2, name, anchor="lm")
        _lay(sheet, shown, source, colour, frames, top + named)
        top += named + size[1] + _LINE
    bars.draw(sheet, top + _GAP, width)
    return sheet.image


def chosen_frames(case: Case, film: Film, moment: Moment, count: int) -> list[int]:
    """Frames of a contact row: the one on display, those that targets and prompts are about, and others spread over the clip."""
    regions = [item.time_sec for item in case.sample.targets.region or ()][:2]
    prompts = [prompt.time_sec for prompt in case.sample.prompts][:1]
    asked = not regions and any("region" in record.routed or "region" in record.forced for record in case.records if record is not None)
    wanted = [film.nearest(time) for time in (*((moment.time_sec,) if moment.time_sec else ()), *regions, *prompts)]
    wanted += [len(film) - 1] if asked else []
    wanted += [round(place) for place in np.linspace(0, len(film) - 1, max(count, 2))]
    return sorted(list(dict.fromkeys(wanted))[:count])


def _words(case: Case, names: Sequence[str]) -> list[tuple[str, str]]:
    """Question and answers, each with its colour."""
    lines = [(case.question or case.sample.id, "")]
    if case.answer:
        lines.append((f"truth: {case.answer}", GROUND_TRUTH))
    for name, colour, record in zip(names, SIDE_COLOURS, case.records, strict=False):
        words = "not asked" if record is None else f"{record.text or '(nothing)'}   (route: {' + '.join(record.emitted) or 'none'})"
        lines.append((f"{name}: {words}", colour))
    return lines


def _write(sheet: Sheet, lines: Sequence[tuple[str, str]]) -> float:
    """The words, and where they end."""
    top = _MARGIN
    for words, colour in lines:
        if colour:
            sheet.box((_MARGIN, top + 3, _MARGIN + 4, top + _LINE - 3), fill=colour)
        sheet.text(_MARGIN + (10 if colour else 0), top + _LINE / 2, words, anchor="lm")
        top += _LINE
    return top + _GAP


def _lay(sheet: Sheet, shown: _Shown, source: Source, colour: str, frames: Sequence[int], top: float) -> None:
    """A row of frames, each above its time."""
    for place, number in enumerate(frames):
        left = _MARGIN + place * (shown.size[0] + _GAP)
        sheet.paste(_tile(shown, source, colour, number), left, top)
        words = f"{shown.film.times_sec[number]:.3g} s"
        sheet.text(left, top + shown.size[1] + _LINE / 2, words, anchor="lm", fill=sheet.theme.soft, size=11)


def _tile(shown: _Shown, source: Source, colour: str, number: int) -> Image:
    """One frame with all that lies over it, the truth on top."""
    from PIL import Image

    enlarged = shown.film.size_wh[0] < shown.size[0]
    picture = shown.film.picture(number).resize(shown.size, Image.Resampling.NEAREST if enlarged else Image.Resampling.BILINEAR)
    masks: list[Mask] = []
    boxes: list[Box] = []
    said = [] if source is shown.truth else [(source, colour, VEIL)]
    for each, tone, veil in (*said, (shown.truth, GROUND_TRUTH, 0.0)):
        for part in moving_of(each, shown.film) if shown.has("mask") else ():
            _add(part, shown, number, tone, veil, masks, boxes)
        here = [box for box in boxes_of(each, shown.film, shown.truth) if box["at"] == number] if shown.has("region") else []
        boxes += [(_scaled(box["box"], shown), str(box["object"] + 1) if len(here) > 1 else "", tone) for box in here]
    drawn = draw_boxes(np.asarray(draw_masks(np.asarray(picture), masks)), boxes)
    return _pointed(np.asarray(drawn), shown, number)


def _add(part: Moving, shown: _Shown, number: int, tone: str, veil: float, masks: list[Mask], boxes: list[Box]) -> None:
    """What one object shows in a frame."""
    from PIL import Image

    item = items_on(part, shown.film, [number])[0]
    if item < 0 or part.hidden(item):
        return
    if part.masks:
        inside = Image.fromarray(decode_rle("mask", part.masks[item])).resize(shown.size, Image.Resampling.NEAREST)
        masks.append((np.asarray(inside, dtype=bool), tone, veil))
    else:
        boxes.append((_scaled(part.boxes[item], shown), "", tone))


def _pointed(tile: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], shown: _Shown, number: int) -> Image:
    """What the user points at on a frame."""
    prompts = [prompt for prompt in shown.case.sample.prompts if shown.film.nearest(prompt.time_sec) == number]
    boxes: list[Box] = [(_scaled(prompt.xyxy, shown), "", POINTED) for prompt in prompts if prompt.type == "box"]
    share = shown.size[0] / shown.film.size_wh[0]
    strokes: list[Stroke] = [((share * np.array(prompt.points)).tolist(), "", POINTED) for prompt in prompts if prompt.type != "box"]
    return draw_strokes(np.asarray(draw_boxes(tile, boxes)), strokes)


def _scaled(xyxy: Sequence[float], shown: _Shown) -> list[float]:
    """A box in pixels of a tile; inverted corners are put in order."""
    x0, y0, x1, y1 = (edge * shown.size[0] / shown.film.size_wh[0] for edge in xyxy)
    return [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]


def _bars(shown: _Shown) -> Bars:
    """The timeline."""
    film, moment = shown.film, shown.moment
    bars = Bars(film.duration_sec, moment.time_sec or None)
    sources = [(TRUTH, GROUND_TRUTH, shown.truth), *shown.sides]
    timed = shown.has("temporal") and any("temporal" in source.heads for _, _, source in sources)
    for name, colour, source in sources if timed else ():
        best = windows_of(source, shown.truth)[: None if source is shown.truth else 1]
        bars.rows.append(Spans(name, colour, [each["window"] for each in best]))
        if curve := saliency_of(source, film):
            bars.lines.append(Line(f"saliency, {name}", colour, curve["times"], curve["values"]))
    for name, colour, source in sources if shown.has("mask") else ():
        spans = [span for part in moving_of(source, film)[:1] for span in hidden_spans(part, film.duration_sec)]
        if spans:
            bars.rows.append(Spans(f"hidden, {name}", colour, spans, 0.45))
        scored = scores_of(source, film)["frames"] if len(film) <= MOST_SCORED else {}
        for kind, curve in scored.items():
            bars.lines.append(Line(f"{'J' if kind == 'mask' else 'IoU'}, {name}", colour, curve["times"], curve["values"], (0.0, 1.0)))
    return bars
