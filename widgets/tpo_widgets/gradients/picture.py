"""Norms and conflicts of one measurement of gradients as a picture, for where nothing can be selected."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tpo_lab.drawing import PALETTE
from tpo_widgets.gradients.content import GradientContent, most_interesting
from tpo_widgets.gradients.measurements import Measurement
from tpo_widgets.sheet import Sheet, fitted, text_width, wrapped

if TYPE_CHECKING:
    from PIL.Image import Image

AGREE, AGAINST = PALETTE[2], PALETTE[1]
MOST_ROWS = 24
MOST_DECADES = 6.0
"""From full shade to the palest: norms differ by powers of ten."""
_ROW, _MARGIN, _SMALL = 18, 16, 11
_SENTENCES = 3

Paint = Callable[[Sheet, Sequence[float], int, int], None]
"""Paints the cell of a row and a column into xyxy."""


@dataclass(frozen=True)
class _Matrix:
    title: str
    columns: Sequence[tuple[str, ...]]  # lines of each heading
    paint: Paint


def gradient_picture(content: GradientContent, measurement: Measurement, *, dark: bool, width: int, per_parameter: bool) -> Image:
    """The matrices below each other, or side by side where they fit, with the strongest conflicts in words."""
    modules = most_interesting(content, measurement, MOST_ROWS)
    matrices = [_norms(measurement, modules, per_parameter)]
    if measurement.table.pairs:
        matrices.append(_cosines(measurement, modules))
    name = min(max(text_width(module, _SMALL) for module in modules) + 8, width * 0.28)
    cells = (width - 2 * _MARGIN - name) / max(len(each.columns) for each in matrices)
    notes = [line for note in _notes(content, measurement, modules) for line in wrapped(note, width - 2 * _MARGIN)]
    heights = [_height(each, modules) for each in matrices]
    sheet = Sheet(width, 62 + sum(heights) + 17 * len(notes) + 8, dark=dark)
    sheet.text(_MARGIN, 26, content.title(measurement), size=15, width=width - 2 * _MARGIN)
    sheet.text(_MARGIN, 44, content.cost(measurement), fill=sheet.theme.soft, width=width - 2 * _MARGIN)
    top = 56.0
    for matrix, height in zip(matrices, heights, strict=True):
        _draw(sheet, matrix, modules, top, name, min(cells, 84.0))
        top += height
    for number, line in enumerate(notes):
        sheet.text(_MARGIN, top + 12 + 17 * number, line)
    return sheet.image


def _height(matrix: _Matrix, modules: Sequence[str]) -> float:
    return 24 + 13 * max(map(len, matrix.columns)) + 4 + _ROW * len(modules) + 12


def _draw(sheet: Sheet, matrix: _Matrix, modules: Sequence[str], top: float, name: float, width: float) -> None:
    sheet.text(_MARGIN, top + 16, matrix.title, size=13, width=sheet.image.width - 2 * _MARGIN)
    lines = max(map(len, matrix.columns))
    first = top + 24 + 13 * lines + 4
    for column, heading in enumerate(matrix.columns):
        middle = _MARGIN + name + (column + 0.5) * width
        for number, words in enumerate(heading):
            sheet.text(middle, top + 24 + 13 * (number + 1), fitted(words, width - 2, _SMALL), anchor="ms", size=_SMALL)
    for row, module in enumerate(modules):
        y = first + row * _ROW
        sheet.text(_MARGIN + name - 6, y + _ROW / 2, fitted(module, name - 8, _SMALL), anchor="rm", size=_SMALL)
        for column in range(len(matrix.columns)):
            x = _MARGIN + name + column * width
            matrix.paint(sheet, (x + 1, y + 1, x + width - 1, y + _ROW - 1), row, column)


def _norms(measurement: Measurement, modules: Sequence[str], per_parameter: bool) -> _Matrix:
    table = measurement.table
    rows = [table.modules.index(module) for module in modules]
    norms = table.norms[rows]
    if per_parameter:
        norms = norms / [[math.sqrt(max(table.parameters[row], 1))] for row in rows]
    finite = [value for value in norms.ravel().tolist() if math.isfinite(value) and value > 0]
    greatest = max(finite, default=1.0)
    decades = min(max(math.log10(greatest / min(finite, default=greatest)), 1.0), MOST_DECADES)

    def paint(sheet: Sheet, xyxy: Sequence[float], row: int, column: int) -> None:
        value = float(norms[row, column])
        if not math.isfinite(value):
            _words(sheet, xyxy, "not finite", outline=AGAINST)
        elif value == 0:
            sheet.box(xyxy, fill=sheet.theme.panel)
            sheet.text((xyxy[0] + xyxy[2]) / 2, (xyxy[1] + xyxy[3]) / 2, "o", anchor="mm", size=_SMALL, fill=sheet.theme.soft)
        else:
            _words(sheet, xyxy, f"{value:.2g}", AGREE, 0.06 + 0.54 * max(0.0, 1 + math.log10(value / greatest) / decades))

    title = "Norm of each loss's gradient by module" + (", divided by the square root of its parameters" if per_parameter else "")
    return _Matrix(f"{title} (o: it does not reach it)", [(owner,) for owner in table.owners], paint)


def _cosines(measurement: Measurement, modules: Sequence[str]) -> _Matrix:
    table = measurement.table
    cosines = table.cosines[[table.modules.index(module) for module in modules]]

    def paint(sheet: Sheet, xyxy: Sequence[float], row: int, column: int) -> None:
        value = float(cosines[row, column])
        if math.isfinite(value):
            _words(sheet, xyxy, f"{value:+.2f}" if abs(value) >= 0.005 else "0.00", AGREE if value > 0 else AGAINST, 0.62 * abs(value))
        else:
            _hatch(sheet, xyxy)

    return _Matrix("Cosines: blue together, orange against, hatched: does not reach", table.pairs, paint)


def _words(sheet: Sheet, xyxy: Sequence[float], words: str, colour: str | None = None, opacity: float = 0.0, **options: Any) -> None:
    sheet.box(xyxy, fill=sheet.theme.panel if colour is None else sheet.theme.paper)
    sheet.box(xyxy, fill=colour, opacity=opacity, **options)
    middle = (xyxy[0] + xyxy[2]) / 2, (xyxy[1] + xyxy[3]) / 2
    sheet.text(*middle, fitted(words, xyxy[2] - xyxy[0], _SMALL), anchor="mm", size=_SMALL)


def _hatch(sheet: Sheet, xyxy: Sequence[float]) -> None:
    """Lines that rise to the right, cut at the cell's edges."""
    x0, y0, x1, y1 = xyxy
    height = y1 - y0
    for place in range(int(x0 - height) + 6, int(x1), 7):
        start, end = max(place, x0), min(place + height, x1)
        if end > start:
            sheet.line([(start, y1 - (start - place)), (end, y1 - (end - place))], fill=sheet.theme.line)


def _notes(content: GradientContent, measurement: Measurement, modules: Sequence[str]) -> list[str]:
    found = content.conflicts(measurement)
    notes = [f"{conflict}." for conflict in found[:_SENTENCES]]
    if measurement.table.pairs and not found:
        notes.append("No two losses pull against each other.")
    if not measurement.table.pairs:
        notes.append("There is one loss only, so none that it could pull against.")
    left_out = sum(module not in content.groups for module in measurement.table.modules) - len(modules)
    if left_out:
        notes.append(f"{left_out} more modules are left out here: those with weaker conflicts and smaller norms.")
    return notes
