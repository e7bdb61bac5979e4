"""PromptPad as a picture, for where nothing can be drawn on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tpo_lab.drawing import POINTED, PREDICTION
from tpo_widgets.prompts.drawn import corners
from tpo_widgets.sheet import Sheet, fitted, text_width, wrapped

if TYPE_CHECKING:
    from PIL.Image import Image

    from tpo_widgets.prompts.content import PromptPadContent

_EDGE, _LINE, _ROW, _MOST_HEIGHT = 12, 18, 20, 420
_SHADE = "#1f2328"
"""Around what is white, so that it is seen on light frames too."""


def pad_picture(content: PromptPadContent, time_sec: float, *, dark: bool, width: int) -> Image:
    """The frame on display at a time with its prompts and the answer, and below it windows, prompts, question and answer as text."""
    film = content.clip.film
    number = film.nearest(time_sec)
    scale = min((width - 2 * _EDGE) / film.size_wh[0], _MOST_HEIGHT / film.size_wh[1])
    across, down = (max(1, round(side * scale)) for side in film.size_wh)
    lines = [line for words in _words(content, number) for line in wrapped(words, width - 2 * _EDGE)]
    windows = content.drawing.document["windows"] if content.drawing else []
    height = down + 3 * _EDGE + (_ROW if windows else 0) + _LINE * len(lines)
    sheet = Sheet(width, height, dark=dark)
    sheet.paste(_frame(content, number, (across, down)), _EDGE, _EDGE)
    _draw_answer(sheet, content, scale)
    for place, prompt in enumerate(content.prompts):
        if film.nearest(prompt.time_sec) == number:
            _draw_prompt(sheet, prompt, str(place), scale)
    top = down + 2 * _EDGE
    if windows:
        _draw_windows(sheet, windows, film.duration_sec, film.times_sec[number], top)
        top += _ROW
    for place, line in enumerate(lines):
        sheet.text(_EDGE, top + _LINE * place, line, anchor="la")
    return sheet.image


def _words(content: PromptPadContent, number: int) -> list[str]:
    film, found = content.clip.film, content.drawing
    lines = [f"{content.clip.name}, frame {number + 1} of {len(film)}, {film.times_sec[number]:.2f} s"]
    for place, prompt in enumerate(content.prompts):
        numbers = " ".join(f"{edge:.6g}" for point in corners(prompt)[:6] for edge in point)
        more = " ..." if len(corners(prompt)) > 6 else ""
        lines.append(f"<prompt:{place}> {prompt.type} at {prompt.time_sec:.2f} s: {numbers}{more}")
    if content.question.text.strip():
        lines.append(f"Question: {content.question.full_text}")
    return [*lines, *([f"Answer: {found.answer.text or '(no words)'}"] if found else [])]


def _frame(content: PromptPadContent, number: int, size: tuple[int, int]) -> Any:
    """One frame with the masks of the answer, enlarged by nearest pixels or made smaller."""
    from PIL import Image

    frame = content.clip.film.picture(number).resize(size, Image.Resampling.NEAREST)
    found = content.drawing
    place = found.at(content.clip.film.times_sec[number]) if found else -1
    masks = found.overlay(place) if found and place >= 0 else None
    if masks is not None:
        large = masks.resize(size, Image.Resampling.NEAREST)
        frame.paste(large, (0, 0), large)
    return frame


def _draw_answer(sheet: Sheet, content: PromptPadContent, scale: float) -> None:
    for place, box in enumerate(content.drawing.document["boxes"] if content.drawing else []):
        placed = [_EDGE + edge * scale for edge in box]
        sheet.box(placed, outline=PREDICTION, width=2)
        _tag(sheet, placed[0], placed[1], f"answer {place + 1}", PREDICTION, "#ffffff")


def _draw_prompt(sheet: Sheet, prompt: Any, name: str, scale: float) -> None:
    points = [(_EDGE + x * scale, _EDGE + y * scale) for x, y in corners(prompt)]
    if prompt.type == "box":
        (x0, y0), (x1, y1) = points
        sheet.box((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=_SHADE, width=4)
        sheet.box((x0, y0, x1, y1), outline=POINTED, width=2)
    elif prompt.type == "scribble":
        sheet.line(points, fill=_SHADE, width=5)
        sheet.line(points, fill=POINTED, width=3)
    else:
        sheet.dot(*points[0], 7, fill=_SHADE)
        sheet.dot(*points[0], 5, fill=POINTED)
    left, top = points[0]
    shift = 0 if prompt.type == "box" else 8
    _tag(sheet, left + shift, top - shift, name, POINTED, _SHADE)


def _tag(sheet: Sheet, left: float, top: float, words: str, ground: str, ink: str) -> None:
    """Words on a patch above a place, or below it where there is no room."""
    wide = text_width(words) + 8
    left = min(max(left, _EDGE), sheet.image.width - _EDGE - wide)
    top = top - 16 if top - 16 >= _EDGE else top
    sheet.box((left, top, left + wide, top + 16), fill=ground)
    sheet.text(left + 4, top + 8, fitted(words, wide), anchor="lm", fill=ink)


def _draw_windows(sheet: Sheet, windows: Sequence[Sequence[float]], duration_sec: float, now_sec: float, top: float) -> None:
    wide = sheet.image.width - 2 * _EDGE

    def place(time_sec: float) -> float:
        return _EDGE + wide * min(max(time_sec / duration_sec, 0), 1)

    sheet.box((_EDGE, top, _EDGE + wide, top + 12), fill=sheet.theme.panel)
    for rank, (start, end) in reversed(list(enumerate(windows))):
        sheet.box((place(start), top + 1, place(end), top + 11), fill=PREDICTION, opacity=1.0 if rank == 0 else 0.4)
    sheet.line([(place(now_sec), top - 2), (place(now_sec), top + 14)], width=2)
