"""A `TokenView` as one picture: routes as bars, where a task token looks, and how alike the task tokens are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tpo_lab.errors import TPOError
from tpo_widgets.sheet import DARK, LIGHT, Sheet, fitted, wrapped
from tpo_widgets.tokens.heat import Heat, coloured, word_heat

if TYPE_CHECKING:
    from PIL.Image import Image

    from tpo_widgets.content import Moment
    from tpo_widgets.tokens.content import TokenContent

PAD, LINE, GAP = 16, 18, 12
MOST_PLACES, MOST_FRAMES, MOST_SLOTS = 4, 8, 24
OPACITY = 0.6
BLUE, PINK, TRUTH, MODEL = {False: "#0072b2", True: "#56b4e9"}, "#cc79a7", "#009e73", "#d55e00"


def draw(content: TokenContent, moment: Moment, *, dark: bool, width: int) -> Image:
    """See `TokenContent.picture`."""
    place = content.place_of(moment.sample)
    sheet = Sheet(width, 4000, dark=dark)
    top = _head(sheet, content, place, width)
    top = _routes(sheet, content.sample(place)["places"], top, width, dark)
    top = _strip(sheet, content, place, moment, top, width)
    top = _matrix(sheet, content, top, width, dark)
    return sheet.image.crop((0, 0, width, min(top + GAP, 4000)))


def _head(sheet: Sheet, content: TokenContent, place: int, width: int) -> float:
    sample = content.trace.samples[place]
    sheet.text(PAD, PAD, f"Tokens of {sample.id}", anchor="la", size=15, width=width - 2 * PAD)
    lines = wrapped(sample.question, width - 2 * PAD)[:2]
    for number, line in enumerate([*lines, f"The model writes: {sample.routes.text or 'nothing'}"]):
        sheet.text(PAD, PAD + 24 + LINE * number, line, anchor="la", fill=sheet.theme.soft, width=width - 2 * PAD)
    return PAD + 24 + LINE * (len(lines) + 1) + GAP


def _routes(sheet: Sheet, places: Sequence[dict[str, Any]], top: float, width: int, dark: bool) -> float:
    """Bars in one or two columns; the places before the last ones are left out where there are many."""
    columns = 2 if width >= 640 else 1
    wide = (width - 2 * PAD - (columns - 1) * 2 * GAP) / columns
    shown = places[-MOST_PLACES:]
    tall = LINE * (1 + max(len(place["probability"]) for place in shown)) + GAP
    for number, place in enumerate(shown):
        _bars(sheet, place, PAD + number % columns * (wide + 2 * GAP), top + number // columns * tall, wide, dark)
    return top + tall * -(-len(shown) // columns) + GAP


def _bars(sheet: Sheet, place: dict[str, Any], left: float, top: float, wide: float, dark: bool) -> None:
    title = "The model's own answer begins" if place["token"] is None else f"Route due at token {place['token']}"
    sheet.text(left, top, title, anchor="la", width=wide)
    name_wide, mark_wide = 72.0, 128.0
    room = wide - name_wide - mark_wide - 48
    for number, (name, value) in enumerate(place["probability"], start=1):
        y = top + LINE * number
        sheet.text(left, y, name, anchor="la", fill=sheet.theme.soft, width=name_wide - 6)
        sheet.box((left + name_wide, y + 2, left + name_wide + room, y + 13), fill=sheet.theme.panel)
        if value is not None:
            sheet.box((left + name_wide, y + 2, left + name_wide + max(1.0, room * value), y + 13), fill=BLUE[dark])
        sheet.text(left + name_wide + room + 6, y, "-" if value is None else f"{value:.3f}", anchor="la")
        marks = [(word, fill) for key, word, fill in (("expected", "expected", TRUTH), ("written", "written", MODEL)) if place[key] == name]
        x = left + name_wide + room + 48
        for word, fill in marks:
            sheet.dot(x + 4, y + 7, 4, fill=fill)
            sheet.text(x + 12, y, word, anchor="la")
            x += 68


def selected_heat(content: TokenContent, place: int, moment: Moment) -> tuple[str, Heat] | None:
    """What a moment's token has over the frames, or the first slot, route or word of its sample; None where there is nothing."""
    looks, sample = list(content.looks(place)), content.trace.samples[place]
    words = [word for word in sample.words if word.token == moment.token]
    chosen = [look for look in looks if moment.token in (look["shows"], look["token"])]
    if not chosen and not words:
        of_head = [look for look in looks if look["head"] == moment.head]
        chosen = sorted([*(of_head or looks)], key=lambda look: look["kind"] != "SLOT")
        words = list(sample.words)
    if chosen:
        look = chosen[0]
        which = f"slot of {look['head']}" if look["kind"] == "SLOT" else f"token before the route of {look['head']}"
        kept = ", ".join(map(str, content.trace.activations.layers))
        title = f"Where the {which} (token {look['token']}) looks: mean over layers {kept}"
        return title, content.heat_of_attention(int(look["name"].partition("/")[2]))
    if words:
        return f"Where the word “{words[0].text.strip()}” is seen, in logits", word_heat(words[0])
    return None


def _strip(sheet: Sheet, content: TokenContent, place: int, moment: Moment, top: float, width: int) -> float:
    found = selected_heat(content, place, moment)
    sample = content.trace.samples[place]
    title = found[0] if found else "No attention was kept (attention=False), and no words were mapped (words=True)."
    sheet.text(PAD, top, title, anchor="la", width=width - 2 * PAD)
    top += LINE + 4
    frames = np.unique(np.linspace(0, len(sample.times_sec) - 1, MOST_FRAMES).round().astype(int)).tolist()
    wide = min((width - 2 * PAD + GAP) / len(frames) - GAP, 180.0)
    tall = max(1.0, wide * sample.size_wh[1] / sample.size_wh[0])
    for number, frame in enumerate(frames):
        left = PAD + number * (wide + GAP)
        try:
            picture = content.film(place).picture(frame)
            sheet.paste(heated(picture, found[1] if found else None, frame, (round(wide), round(tall))), left, top)
        except (TPOError, OSError):  # the clip has gone; the rest of the picture stands
            sheet.box((left, top, left + wide, top + tall), outline=sheet.theme.line)
            sheet.text(left + wide / 2, top + tall / 2, "no frame", anchor="mm", fill=sheet.theme.soft, width=wide)
        sheet.text(left, top + tall + 3, f"{frame}: {sample.times_sec[frame]:.2f} s", anchor="la", size=11, width=wide + GAP / 2)
        if found and found[1].shares:
            share = 100 * float(np.nansum(found[1].values[0, frame], dtype=np.float64))
            sheet.text(left, top + tall + 17, f"{share:.1f} %", anchor="la", fill=sheet.theme.soft, size=11, width=wide + GAP / 2)
    top += tall + 2 * LINE + 2
    return _legend(sheet, found[1], top) if found else top + GAP


def heated(frame: Image, heat: Heat | None, number: int, size: tuple[int, int]) -> Image:
    """A frame of a size with its map over it."""
    from PIL import Image

    picture = frame.resize(size)
    if heat is None or not heat.values.shape[2]:
        return picture
    side = round(heat.values.shape[2] ** 0.5)
    cells = heat.values[0, number].reshape(side, side) / (heat.most() or 1.0)
    return Image.blend(picture, Image.fromarray(coloured(cells)).resize(size, Image.Resampling.NEAREST), OPACITY)


def _legend(sheet: Sheet, heat: Heat, top: float) -> float:
    most, wide = heat.most(), 160
    ramp = coloured(np.linspace(0, 1, wide))
    for x in range(wide):
        sheet.box((PAD + 30 + x, top + 2, PAD + 31 + x, top + 12), fill="#{:02x}{:02x}{:02x}".format(*ramp[x]))
    sheet.text(PAD, top, "0", anchor="la", size=11)
    unit = "of the attention, each cell" if heat.shares else "logits"
    sheet.text(PAD + 36 + wide, top, f"{'-' if most is None else f'{most:.3g}'} {unit}", anchor="la", size=11)
    return top + LINE + GAP


def _matrix(sheet: Sheet, content: TokenContent, top: float, width: int, dark: bool) -> float:
    slots = content.trace.activations.slots[:MOST_SLOTS]
    if not slots:
        sheet.text(PAD, top, "No sample has a task token.", anchor="la", fill=sheet.theme.soft)
        return top + LINE
    sheet.text(PAD, top, "Cosines between task tokens after the final norm", anchor="la", width=width - 2 * PAD)
    top += LINE + 4
    name_wide, cosines = min(200.0, width / 3), content.cosines[-1]
    side = min(44.0, (width - 2 * PAD - name_wide) / len(slots))
    back = DARK.paper if dark else LIGHT.paper
    for row, (place, head, token) in enumerate(slots):
        label = fitted(f"{row}  {head}, sample {place}, token {token}", name_wide - 8, 11)
        if side >= 12:
            sheet.text(PAD, top + (row + 0.5) * side, label, anchor="lm", size=11)
        for column in range(len(slots)):
            value = float(cosines[row, column])
            box = (PAD + name_wide + column * side, top + row * side, PAD + name_wide + (column + 1) * side - 1, top + (row + 1) * side - 1)
            sheet.box(box, fill=back)
            if np.isfinite(value):
                sheet.box(box, fill=BLUE[dark] if value >= 0 else PINK, opacity=min(1.0, abs(value)) * 0.75)
            if side >= 34:
                text = f"{value:.2f}" if np.isfinite(value) else "-"
                sheet.text((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, text, anchor="mm", size=11)
    left_out = len(content.trace.activations.slots) - len(slots)
    if left_out:
        sheet.text(PAD, top + len(slots) * side + 4, f"and {left_out} more", anchor="la", fill=sheet.theme.soft)
    return top + len(slots) * side + (LINE if left_out else 0)
