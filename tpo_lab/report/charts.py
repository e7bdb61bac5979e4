"""Charts of training: each loss over the steps, faint as it is and bold as a running mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.report.svg import BAND, FAINT, PALE_INK, Axis, Svg, colour_of, document, text
from tpo_lab.runs import is_loss

_Lines: TypeAlias = dict[str, tuple[list[float], list[float]]]  # name -> steps, values

_WIDTH, _HEIGHT = 500, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 26, 34
_SMOOTHING = 0.9
_MOST_LINES = 6
"""In one panel of losses: more have a legend longer than the panel, and colours that repeat."""


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
            if owner == "loss" or not is_loss(name) or not isinstance(value, float):
                continue
            steps, values = panels.setdefault(owner, {}).setdefault(term or owner, ([], []))
            steps.append(place)
            values.append(value)
    if not panels:
        raise UsageError("metrics", expected="lines with losses", got=f"{place} lines without")
    drawn = [Panel(title, lines, bands) for owner, terms in panels.items() for title, lines in _by_family(owner, terms).items()]
    return line_chart(drawn, columns=columns)


def term_panel(runs: Mapping[str, Iterable[Mapping[str, Any]]], term: str, title: str = "") -> Panel:
    """A panel with one line for each run, to see which of them learns.

    Args:
        runs: name -> the lines of its metrics.jsonl, as `RunFolder.metrics()` reads them.
        term: of the objective, such as "region/l1"; steps without it are left out.
        title: of the panel; the term where empty.

    Raises:
        UsageError: a run has no such term; the message lists those it has.
    """
    lines: _Lines = {}
    for name, metrics in runs.items():
        rows = list(metrics)
        found = [(float(row["step"]), float(row[term])) for row in rows if term in row]
        if not found:
            raise unknown_name(f"term of run {name}", term, {key for row in rows for key in row})
        lines[name] = ([step for step, _ in found], [value for _, value in found])
    return Panel(title or term, lines)


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
    return document(size, ", ".join(panel.title for panel in panels), "".join(drawn))


def _by_family(owner: str, terms: _Lines) -> dict[str, _Lines]:
    """Title -> lines of the panels for one owner's terms: one panel where they are few, else one for each first word of their names."""
    if len(terms) <= _MOST_LINES:
        return {owner: terms}
    found: dict[str, _Lines] = {}
    for term, line in terms.items():
        family, _, member = term.partition("_")
        found.setdefault(f"{owner} {family}", {})[member or family] = line
    return found


def _panel(panel: Panel, x_label: str, x0: float, y0: float) -> str:
    for name, (steps, values) in panel.lines.items():
        if len(steps) != len(values):
            raise UsageError(f"lines[{name!r}]", expected=f"{len(steps)} values", got=len(values))
    finite = [value for _, values in panel.lines.values() for value in values if math.isfinite(value)]
    steps_all = [step for steps, _ in panel.lines.values() for step in steps] + [edge for band in panel.bands for edge in band[:2]]
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    x = Axis(min(steps_all, default=0.0), max(steps_all, default=1.0), x0 + _LEFT, x0 + right)
    y = Axis(min([0.0, *finite]), max(finite, default=1.0), y0 + bottom, y0 + _TOP)
    parts = [text(x0 + _LEFT, y0 + 16, panel.title, "start", bold=True)]
    for number, (start, end, name) in enumerate(panel.bands):
        if number % 2 == 0:
            parts.append(
                f'<rect x="{x(start):.1f}" y="{y0 + _TOP}" width="{x(end) - x(start):.1f}" height="{bottom - _TOP}" fill="{BAND}"/>'
            )
        if x(end) - x(start) > 6 * len(name.removeprefix("stage ")) + 2:
            parts.append(text((x(start) + x(end)) / 2, y0 + _TOP + 11, name.removeprefix("stage "), "middle", fill=PALE_INK))
    for tick in y.ticks():
        parts.append(f'<line x1="{x0 + _LEFT}" x2="{x0 + right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{FAINT}"/>')
        parts.append(text(x0 + _LEFT - 6, y(tick) + 4, f"{tick:g}", "end"))
    for tick in x.ticks(most=5):
        parts.append(text(x(tick), y0 + bottom + 14, f"{tick:g}", "middle"))
    parts.append(text(x0 + right, y0 + bottom + 27, x_label, "end"))
    legend = x0 + right
    for index, (name, (steps, values)) in reversed(list(enumerate(panel.lines.items()))):
        colour = colour_of(index)
        runs = _runs(steps, panel.bands)
        parts.append(_path(runs, steps, values, x, y, colour, width=1, opacity=0.3))
        parts.append(_path(runs, steps, _smooth(values), x, y, colour, width=2, opacity=1))
        if len(panel.lines) > 1:
            parts.append(text(legend, y0 + 16, name, "end", fill=colour, bold=True))
            legend -= 7 * len(name) + 10
    return "".join(parts)


def _runs(steps: Sequence[float], bands: Sequence[tuple[float, float, str]]) -> list[int]:
    """A number per step that grows by more than one where a whole band lies between two steps: there the line is interrupted.

    Within a band a line goes on over steps that lack it, since most batches are about one task.
    """
    return [next((index for index, (_, end, _) in enumerate(bands) if step <= end), len(bands)) for step in steps]


def _path(
    runs: Sequence[int], steps: Sequence[float], values: Sequence[float], x: Axis, y: Axis, colour: str, *, width: float, opacity: float
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
