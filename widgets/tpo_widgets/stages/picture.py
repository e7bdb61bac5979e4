"""StageView as a picture: the table of the stages, and the losses of the run on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tpo_widgets.sheet import Sheet, text_width, wrapped
from tpo_widgets.stages.history import LOSS, Name
from tpo_widgets.stages.plan import Cell, StagePlan

if TYPE_CHECKING:
    from PIL.Image import Image

    from tpo_lab.stages import Stage
    from tpo_widgets.stages.content import StageContent

HEAD_COLOURS = ("#c05a93", "#b87800", "#1b9aaa", "#7a8a00", "#a0522d", "#5b7fd4")
"""The front end has the same in `front/stage_table.js`."""
_OWNER_COLOURS = {"mlm": "#3b8fc7", "assign": "#8c6bb1"}
_TRAINED, _FROZEN = "#b87800", "#5b9fcf"
_EDGE, _LABEL, _ROW, _LINE, _CHART = 12, 108, 34, 15, 190
_WORDS = {"trained": "trained", "partly": "partly", "frozen": "frozen", "absent": "none"}


def picture(content: StageContent, *, head: str, dark: bool, width: int) -> Image:
    """The table, and the loss curves below it.

    Args:
        content: of the view.
        head: whose row and curves stand out; "" for none.
        dark: whether on a dark ground.
        width: in pixels.
    """
    sentences = _sentences(content, width)
    names = [] if content.history is None else [name for name in content.history.names() if name.group == LOSS]
    table = 0 if content.plan is None else _table_height(content.plan, width)
    chart = _chart_height(names, width) if names else 0
    sheet = Sheet(width, 20 + _LINE * len(sentences) + table + chart, dark=dark)
    for number, sentence in enumerate(sentences):
        fill = None if number == 0 else sheet.theme.soft
        sheet.text(_EDGE, 10 + _LINE * number, sentence, anchor="la", size=13 if number == 0 else 12, fill=fill, width=width - 2 * _EDGE)
    top = 14 + _LINE * len(sentences)
    if content.plan is not None:
        _draw_table(sheet, content.plan, top, width, head)
    if names:
        _draw_losses(sheet, content, names, top + table, width, head)
    return sheet.image


def _sentences(content: StageContent, width: int) -> list[str]:
    found = [f"Recipe {content.plan.recipe.name}" if content.plan else "A run without a recipe"]
    if content.plan:
        found += content.plan.notes
    if content.history is not None:
        begun = ", ".join(
            f"stage {each['name']} {each['state']}, step {each['step']}" + (f" of {each['total']}" if each["total"] else "")
            for each in content.progress()
            if each["step"]
        )
        found.append(f"{content.status.label or 'run'}: {begun or 'no step yet'}")
        last = content.history.alarms(whole=not content.status.live)[-3:]
        found += [f"Alarm in stage {alarm.stage}, step {alarm.step}: {alarm.meaning}" for alarm in last]
    return [line for sentence in found for line in wrapped(sentence, width - 2 * _EDGE)]


def _column(plan: StagePlan, width: int) -> float:
    return (width - 2 * _EDGE - _LABEL) / len(plan.stages)


def _foot(stage: Stage) -> list[str]:
    """What stands below the parts."""
    mixture = sum(stage.data.values())
    data = [f"{task} {100 * share / mixture:.3g}%" for task, share in stage.data.items()]
    losses = [f"{term} x {weight:g}" for term, weight in stage.losses.items()]
    length = f"{stage.steps} steps" if stage.steps else f"{stage.epochs} epochs"
    return [*data, "", *losses, "", length, f"{stage.batch_size} rows", stage.precision]


def _table_height(plan: StagePlan, width: int) -> float:
    return 22 + _ROW * len(plan.rows) + 8 + _LINE * max(len(_foot(stage)) for stage in plan.stages) + 10


def _draw_table(sheet: Sheet, plan: StagePlan, top: float, width: int, head: str) -> None:
    column = _column(plan, width)
    for place, stage in enumerate(plan.stages):
        sheet.text(_EDGE + _LABEL + place * column + 6, top + 5, stage.name, anchor="la", size=13, width=column - 8)
    for number, ((key, label), cells) in enumerate(zip(plan.rows.items(), plan.cells, strict=True)):
        y = top + 22 + number * _ROW
        chosen = head != "" and key == f"heads.{head}"
        sheet.text(_EDGE, y + 4, label, anchor="la", fill=sheet.theme.ink if chosen else sheet.theme.soft, width=_LABEL - 6)
        for place, cell in enumerate(cells):
            _draw_cell(sheet, cell, (_EDGE + _LABEL + place * column, y, column, _ROW), outlined=chosen)
    y = top + 22 + len(plan.rows) * _ROW + 8
    sheet.text(_EDGE, y, "data, losses,", anchor="la", fill=sheet.theme.soft)
    sheet.text(_EDGE, y + _LINE, "length, rows", anchor="la", fill=sheet.theme.soft)
    for place, stage in enumerate(plan.stages):
        for number, words in enumerate(_foot(stage)):
            sheet.text(_EDGE + _LABEL + place * column + 6, y + number * _LINE, words, anchor="la", size=11, width=column - 8)


def _draw_cell(sheet: Sheet, cell: Cell, place: tuple[float, float, float, float], *, outlined: bool) -> None:
    x, y, width, height = place
    learns = cell.state in ("trained", "partly")
    outline = sheet.theme.ink if outlined else None
    fill, opacity = (_TRAINED, 0.24) if learns else (_FROZEN, 0.1)
    sheet.box((x + 1, y + 1, x + width - 1, y + height - 1), fill=fill, outline=outline, opacity=opacity)
    if cell.state != "absent":
        (_flame if learns else _flake)(sheet, x + 11, y + 10)
    ink = sheet.theme.ink if learns else sheet.theme.soft
    sheet.text(x + 20, y + 4, _WORDS[cell.state], anchor="la", size=12, fill=ink, width=width - 22)
    rates = f"lr {', '.join(f'{rate:g}' for rate in cell.rates)}" if learns else ""
    count = cell.trained if learns else cell.total
    words = "  ".join(word for word in (rates, "" if count is None else f"{count:,}") if word)
    sheet.text(x + 6, y + 19, words, anchor="la", size=11, fill=sheet.theme.soft, width=width - 8)


def _flake(sheet: Sheet, x: float, y: float) -> None:
    for turn in (0, 1, 2):
        dx, dy = 5 * math.sin(turn * math.pi / 3), 5 * math.cos(turn * math.pi / 3)
        sheet.line([(x - dx, y - dy), (x + dx, y + dy)], fill=_FROZEN)


def _flame(sheet: Sheet, x: float, y: float) -> None:
    sheet.dot(x, y + 2, 3.4, fill=_TRAINED)
    for rise in range(4):
        sheet.line([(x - 3 + rise * 0.9, y + 1 - rise * 1.7), (x + 3 - rise * 0.9, y + 1 - rise * 1.7)], fill=_TRAINED, width=2)


def _legend(names: Sequence[Name], width: int) -> list[tuple[float, float, Name]]:
    """Where each curve's name stands below the chart."""
    x, y, found = 54.0, 0.0, []
    for name in names:
        room = 22 + text_width(name.key, 11) + 12
        if x + room > width - _EDGE and x > 54:
            x, y = 54.0, y + _LINE
        found.append((x, y, name))
        x += room
    return found


def _chart_height(names: Sequence[Name], width: int) -> float:
    return 30 + _CHART + 34 + _legend(names, width)[-1][1] + _LINE + 8


def _draw_losses(sheet: Sheet, content: StageContent, names: Sequence[Name], top: float, width: int, head: str) -> None:
    assert content.history is not None
    stages = [stage for stage in content.history.stages.values() if stage.step]
    offsets, total = content.history.offsets(), sum(stage.step for stage in stages)
    drawn = {name: [(offsets[s.name], s.curves[name.key].points(200)) for s in stages if name.key in s.curves] for name in names}
    positive = [value for parts in drawn.values() for _, (_, values, _) in parts for value in values.tolist() if value > 0]
    if not positive:
        return
    left, right, high, low = 54, width - _EDGE, top + 38, top + 30 + _CHART
    ends = math.log10(min(positive)) - 0.05, math.log10(max(positive)) + 0.05
    sheet.text(_EDGE, top + 6, "Losses, before their weights; running median of 50 steps", anchor="la", size=13, width=width - 2 * _EDGE)

    def across(step: float) -> float:
        return left + (right - left) * step / max(total, 1)

    def up(value: float) -> float:
        return low - (low - high) * (math.log10(value) - ends[0]) / (ends[1] - ends[0])

    for number, stage in enumerate(stages):
        x0, x1 = across(offsets[stage.name]), across(offsets[stage.name] + stage.step)
        if number % 2 == 0:
            sheet.box((x0, high, x1, low), fill=sheet.theme.panel)
        if x1 - x0 > text_width(stage.name, 11) + 4:
            sheet.text(x0 + 3, high - 13, stage.name, anchor="la", size=11, fill=sheet.theme.soft)
    powers = range(math.ceil(ends[0]), math.floor(ends[1]) + 1)
    for power in powers if len(powers) > 1 else ():
        if (power - powers[0]) % max(1, len(powers) // 6) == 0:
            sheet.line([(left, up(10.0**power)), (right, up(10.0**power))], fill=sheet.theme.line)
            sheet.text(left - 6, up(10.0**power), f"{10.0**power:g}", anchor="rm", size=11, fill=sheet.theme.soft)
    if len(powers) < 2:
        for value in (min(positive), max(positive)):
            sheet.text(left - 6, up(value), f"{value:.2g}", anchor="rm", size=11, fill=sheet.theme.soft)
    heads = _heads(content)
    for name, parts in drawn.items():
        colour = _colour(name.owner, heads, sheet, faint=head in heads and name.owner in heads and name.owner != head)
        for offset, (steps, _, medians) in parts:
            points = [(across(offset + step), up(value)) for step, value in zip(steps.tolist(), medians.tolist(), strict=True) if value > 0]
            if len(points) > 1:
                sheet.line(points, fill=colour, width=2 if name.key == name.owner else 1)
    for alarm in content.history.alarms(whole=not content.status.live):
        if alarm.stage in offsets:
            x = across(offsets[alarm.stage] + alarm.step)
            sheet.line([(x, high), (x, low)], fill="#c2410c")
            sheet.text(x, high - 2, "!", anchor="ms", size=13, fill="#c2410c")
    sheet.line([(left, low), (right, low)], fill=sheet.theme.soft)
    sheet.text(left, low + 4, "0", anchor="ma", size=11, fill=sheet.theme.soft)
    sheet.text(right, low + 4, f"{total:,} steps", anchor="ra", size=11, fill=sheet.theme.soft)
    for x, y, name in _legend(names, width):
        colour = _colour(name.owner, heads, sheet)
        sheet.line([(x, low + 30 + y), (x + 16, low + 30 + y)], fill=colour, width=2)
        sheet.text(x + 20, low + 30 + y, name.key, anchor="lm", size=11)


def _heads(content: StageContent) -> list[str]:
    """In the order of their colours."""
    planned = list(content.plan.heads) if content.plan else []
    owners = [name.owner for name in content.history.names()] if content.history else []
    return list(dict.fromkeys((*planned, *(owner for owner in owners if owner not in ("", "loss", "mlm", "assign")))))


def _colour(owner: str, heads: Sequence[str], sheet: Any, *, faint: bool = False) -> str:
    if faint:
        return str(sheet.theme.line)
    if owner in heads:
        return HEAD_COLOURS[heads.index(owner) % len(HEAD_COLOURS)]
    return _OWNER_COLOURS.get(owner, str(sheet.theme.ink))
