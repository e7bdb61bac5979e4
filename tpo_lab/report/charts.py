"""Charts as SVG text: they need no script and no font, so a report that holds them opens offline, and Jupyter shows them as they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, TypeAlias

from tpo_lab.drawing import PALETTE
from tpo_lab.errors import UsageError

_Lines: TypeAlias = dict[str, tuple[list[float], list[float]]]  # name -> steps, values

INK, FAINT, BAND = "#222222", "#d9dde3", "#f3f5f8"
_WIDTH, _HEIGHT = 500, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 26, 34
_SMOOTHING = 0.9
_MOST_LINES = 6
"""In one panel of losses: more have a legend longer than the panel, and colours that repeat."""


class Svg(str):
    """SVG source that Jupyter shows as a picture."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Panel:
    """One small chart of lines over steps.

    Attributes:
        title: what is drawn.
        lines: name -> (steps, values), drawn faint as they are and bold as a running mean.
        bands: (first step, last step, name) of each stage, drawn behind.
    """

    title: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    bands: Sequence[tuple[float, float, str]] = ()


def loss_chart(metrics: Iterable[Mapping[str, Any]], *, columns: int = 2) -> Svg:
    """One panel per part of the objective ("mlm", "assign", each head), over the steps of all stages one after another.

    A head with more terms than one panel can tell apart has a panel for each family of them: "saliency_margin" and "saliency_rank"
    are the lines "margin" and "rank" of "temporal saliency".

    Args:
        metrics: the lines of metrics.jsonl files, in the order in which they were trained.

    Raises:
        UsageError: no line holds a loss.
    """
    panels: dict[str, _Lines] = {}
    bands: list[tuple[float, float, str]] = []
    place = 0
    for line in metrics:
        place += 1
        stage = f"stage {line['stage']}"
        if bands and bands[-1][2] == stage:
            bands[-1] = (bands[-1][0], place, stage)
        else:
            bands.append((place, place, stage))
        for name, value in line.items():
            owner, _, term = name.partition("/")
            if owner in ("stage", "step", "seconds", "lr", "loss", "gradient") or not isinstance(value, float):
                continue
            steps, values = panels.setdefault(owner, {}).setdefault(term or owner, ([], []))
            steps.append(place)
            values.append(value)
    if not panels:
        raise UsageError("metrics", expected="lines with losses", got=f"{place} lines without")
    drawn = [Panel(title, lines, bands) for owner, terms in panels.items() for title, lines in _by_family(owner, terms).items()]
    return line_chart(drawn, columns=columns)


def line_chart(panels: Sequence[Panel], *, columns: int = 2, x_label: str = "step") -> Svg:
    """Panels side by side, each with its own vertical axis.

    Raises:
        UsageError: there is no panel, or a line has not one value for each step.
    """
    if not panels:
        raise UsageError("panels", expected="at least one", got=0)
    columns = min(columns, len(panels))
    drawn = [_panel(panel, x_label, (index % columns) * _WIDTH, (index // columns) * _HEIGHT) for index, panel in enumerate(panels)]
    size = columns * _WIDTH, math.ceil(len(panels) / columns) * _HEIGHT
    return _document(size, ", ".join(panel.title for panel in panels), "".join(drawn))


def confusion_chart(labels: Sequence[str], counts: Sequence[Sequence[int]], title: str) -> Svg:
    """A confusion matrix: rows what was expected, columns what was emitted, each cell with its count, shaded by its share of the row.

    Raises:
        UsageError: the counts are not [label, label].
    """
    if len(counts) != len(labels) or any(len(row) != len(labels) for row in counts):
        raise UsageError("counts", expected=f"[{len(labels)}, {len(labels)}]", got=[len(row) for row in counts])
    cell_w, cell_h, left, top = 78, 34, 128, 58
    parts = [
        _text(left - 118, 18, title, "start", bold=True),
        _text(left + cell_w * len(labels) / 2, 36, "emitted", "middle"),
        _text(left - 118, top + cell_h / 2 + 4, "expected", "start"),
    ]
    for r, (name, row) in enumerate(zip(labels, counts, strict=True)):
        y = top + r * cell_h
        parts.append(_text(left - 8, y + cell_h / 2 + 4, name, "end"))
        parts.append(_text(left + r * cell_w + cell_w / 2, top - 6, name, "middle"))
        for c, count in enumerate(row):
            share = count / sum(row) if sum(row) else 0.0
            colour = PALETTE[0] if r == c else PALETTE[1]
            x = left + c * cell_w
            box = f'x="{x + 1}" y="{y + 1}" width="{cell_w - 2}" height="{cell_h - 2}"'
            parts.append(f'<rect {box} fill="{BAND}"/><rect {box} fill="{colour}" fill-opacity="{0.75 * share:.3f}"/>')
            parts.append(_text(x + cell_w / 2, y + cell_h / 2 + 4, str(count), "middle"))
    size = left + cell_w * len(labels) + 4, top + cell_h * len(labels) + 4
    return _document(size, f"{title}: rows expected, columns emitted", "".join(parts))


def _by_family(owner: str, terms: _Lines) -> dict[str, _Lines]:
    """Title -> lines of the panels for one owner's terms: one panel where they are few, else one for each first word of their names."""
    if len(terms) <= _MOST_LINES:
        return {owner: terms}
    found: dict[str, _Lines] = {}
    for term, line in terms.items():
        family, _, member = term.partition("_")
        found.setdefault(f"{owner} {family}", {})[member or family] = line
    return found


def _document(size: tuple[int, int], title: str, inside: str) -> Svg:
    width, height = size
    return Svg(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="{INK}"><title>{escape(title)}</title>{inside}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str, *, bold: bool = False, fill: str = INK) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{fill}"{weight}>{escape(text)}</text>'


def _panel(panel: Panel, x_label: str, x0: float, y0: float) -> str:
    for name, (steps, values) in panel.lines.items():
        if len(steps) != len(values):
            raise UsageError(f"lines[{name!r}]", expected=f"{len(steps)} values", got=len(values))
    finite = [value for _, values in panel.lines.values() for value in values if math.isfinite(value)]
    steps_all = [step for steps, _ in panel.lines.values() for step in steps] + [edge for band in panel.bands for edge in band[:2]]
    low, high = min([0.0, *finite]), max(finite, default=1.0)
    high = high if high > low else low + 1.0
    first, last = min(steps_all, default=0.0), max(steps_all, default=1.0)
    last = last if last > first else first + 1.0
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(step: float) -> float:
        return x0 + _LEFT + (right - _LEFT) * (step - first) / (last - first)

    def y(value: float) -> float:
        return y0 + bottom - (bottom - _TOP) * (value - low) / (high - low)

    parts = [_text(x0 + _LEFT, y0 + 16, panel.title, "start", bold=True)]
    for number, (start, end, name) in enumerate(panel.bands):
        if number % 2 == 0:
            parts.append(
                f'<rect x="{x(start):.1f}" y="{y0 + _TOP}" width="{x(end) - x(start):.1f}" height="{bottom - _TOP}" fill="{BAND}"/>'
            )
        if x(end) - x(start) > 6 * len(name.removeprefix("stage ")) + 2:
            parts.append(_text((x(start) + x(end)) / 2, y0 + _TOP + 11, name.removeprefix("stage "), "middle", fill="#7a828c"))
    for tick in _ticks(low, high):
        parts.append(f'<line x1="{x0 + _LEFT}" x2="{x0 + right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{FAINT}"/>')
        parts.append(_text(x0 + _LEFT - 6, y(tick) + 4, f"{tick:g}", "end"))
    for tick in _ticks(first, last, most=5):
        parts.append(_text(x(tick), y0 + bottom + 14, f"{tick:g}", "middle"))
    parts.append(_text(x0 + right, y0 + bottom + 27, x_label, "end"))
    legend = x0 + right
    for index, (name, (steps, values)) in reversed(list(enumerate(panel.lines.items()))):
        colour = PALETTE[(index + 2) % len(PALETTE)]
        runs = _runs(steps, panel.bands)
        parts.append(_path(runs, steps, values, x, y, colour, width=1, opacity=0.3))
        parts.append(_path(runs, steps, _smooth(values), x, y, colour, width=2, opacity=1))
        if len(panel.lines) > 1:
            parts.append(_text(legend, y0 + 16, name, "end", fill=colour, bold=True))
            legend -= 7 * len(name) + 10
    return "".join(parts)


def _runs(steps: Sequence[float], bands: Sequence[tuple[float, float, str]]) -> list[int]:
    """A number per step that grows by more than one where a whole band lies between two steps: there the line is interrupted.

    Within a band a line goes on over steps that lack it, since most batches are about one task.
    """
    return [next((index for index, (_, end, _) in enumerate(bands) if step <= end), len(bands)) for step in steps]


def _path(
    runs: Sequence[int], steps: Sequence[float], values: Sequence[float], x: Any, y: Any, colour: str, *, width: float, opacity: float
) -> str:
    points: list[str] = []
    previous: int | None = None
    for run, step, value in zip(runs, steps, values, strict=True):
        if not math.isfinite(value):
            previous = None
            continue
        points.append(f"{'L' if previous is not None and run - previous <= 1 else 'M'}{x(step):.1f} {y(value):.1f}")
        previous = run
    style = f'fill="none" stroke="{colour}" stroke-width="{width:g}" stroke-opacity="{opacity:g}" stroke-linecap="round"'
    return f'<path d="{" ".join(points)}" {style}/>'


def _smooth(values: Sequence[float]) -> list[float]:
    """Exponential running mean that starts at the first value."""
    found: list[float] = []
    for value in values:
        kept = found[-1] if found and math.isfinite(found[-1]) else value
        found.append(_SMOOTHING * kept + (1 - _SMOOTHING) * value if math.isfinite(value) else kept)
    return found


def _ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten inside [low, high]."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(step * number, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]
