"""Windows on the time axis of a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tpo_lab.drawing import GROUND_TRUTH
from tpo_lab.errors import UsageError
from tpo_lab.report.svg import BAND, LETTER, Axis, Svg, colour_of, document, text

_LENGTH, _TOP = 360, 22


@dataclass(frozen=True)
class Span:
    """A window on a time axis.

    Attributes:
        start_sec, end_sec: of the window.
        weight: in [0, 1]; how dark it is drawn.
    """

    start_sec: float
    end_sec: float
    weight: float = 1.0


def span_chart(rows: Mapping[str, Sequence[Span]], title: str, *, duration_sec: float, truth: Sequence[Span] = ()) -> Svg:
    """Windows as bars over a clip's seconds, a line for each, the true ones shaded behind; a bar is the darker the greater its weight.

    Raises:
        UsageError: there is no row, or the clip has no length.
    """
    if not rows or duration_sec <= 0:
        raise UsageError("rows", expected="at least one, of a clip with a length", got=f"{len(rows)}, {duration_sec} s")
    left = 16 + LETTER * max(len(name) for name in rows)
    x = Axis(0.0, duration_sec, left, left + _LENGTH)
    y, bars = 26.0, []
    for number, (name, spans) in enumerate(rows.items()):
        bars.append(text(left - 6, y + max(len(spans), 1) * 5 + 4, name, "end"))
        for span in spans:
            bars.append(_bar(x, span, y, 8, colour_of(number), 0.15 + 0.85 * min(max(span.weight, 0.0), 1.0)))
            y += 10
        y += 10
    behind = [f'<rect x="{left:.1f}" y="{_TOP}" width="{_LENGTH}" height="{y - 26:.1f}" fill="{BAND}"/>']
    behind += [_bar(x, span, _TOP, y - 26, GROUND_TRUTH, 0.15) for span in truth]
    ticks = [text(x(tick), y + 10, f"{tick:g}", "middle") for tick in x.ticks()]
    words = [text(8, 15, title, "start", bold=True), *ticks, text(left + _LENGTH + 10, y + 22, "seconds", "end")]
    return document((max(left + _LENGTH + 12, 16 + 7.2 * len(title)), y + 28), title, "".join([*behind, *bars, *words]))


def _bar(x: Axis, span: Span, top: float, height: float, colour: str, opacity: float) -> str:
    start, end = x(max(span.start_sec, x.low)), x(min(span.end_sec, x.high))
    box = f'x="{start:.1f}" y="{top:.1f}" width="{max(end - start, 1.0):.1f}" height="{height:.1f}"'
    return f'<rect {box} fill="{colour}" fill-opacity="{opacity:.2f}"/>'
