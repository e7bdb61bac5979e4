"""Charts of an objective taken apart: bars of what each part adds, and a table of norms in which one sees who reaches whom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tpo_lab.drawing import PALETTE
from tpo_lab.errors import UsageError
from tpo_lab.report.charts import BAND, Svg, _document, _text

_BAR_H, _LABEL_W, _BARS_W, _VALUE_W = 22, 190, 300, 70
_CELL_W, _CELL_H, _HEAD_H = 86, 30, 54


def value_bars(values: Mapping[str, float], title: str, *, marked: Sequence[str] = ()) -> Svg:
    """A horizontal bar for each value, from 0; one that is not finite has its name and no bar.

    Args:
        values: name -> value of 0 or more.
        marked: names whose bars have the second colour.

    Raises:
        UsageError: there is no value, one is negative, or a marked name is none of them.
    """
    if not values or any(value < 0 for value in values.values()):
        raise UsageError("values", expected="at least one, from 0 up", got=dict(values))
    if unknown := [name for name in marked if name not in values]:
        raise UsageError("marked", expected=f"names among {sorted(values)}", got=unknown)
    most = max((value for value in values.values() if math.isfinite(value)), default=0.0) or 1.0
    parts = [_text(4, 18, title, "start", bold=True)]
    for place, (name, value) in enumerate(values.items()):
        y = 30 + place * _BAR_H
        parts.append(_text(_LABEL_W - 8, y + 14, name, "end"))
        if math.isfinite(value):
            colour = PALETTE[1] if name in marked else PALETTE[2]
            parts.append(f'<rect x="{_LABEL_W}" y="{y + 3}" width="{_BARS_W * value / most:.1f}" height="{_BAR_H - 6}" fill="{colour}"/>')
        parts.append(_text(_LABEL_W + 6 + (_BARS_W * value / most if math.isfinite(value) else 0), y + 14, f"{value:.3g}", "start"))
    size = _LABEL_W + _BARS_W + _VALUE_W, 36 + len(values) * _BAR_H
    return _document(size, title, "".join(parts))


def norm_chart(norms: Mapping[str, Mapping[str, float]], title: str, *, across: str = "gradient of", down: str = "reaches") -> Svg:
    """A table of norms: a column for each owner, a row for each part, shaded by its logarithm; what is exactly 0 is left pale.

    Args:
        norms: owner -> part -> norm; all owners have the same parts.
        title: of the chart.
        across: what the columns are.
        down: what the rows are.

    Raises:
        UsageError: there is no owner or no part, or the parts differ.
    """
    owners = list(norms)
    parts = list(norms[owners[0]]) if owners else []
    if not parts or any(set(norms[owner]) != set(parts) for owner in owners):
        raise UsageError("norms", expected="the same parts for each owner, at least one of both", got={o: sorted(norms[o]) for o in owners})
    shade = _Shade([norms[owner][part] for owner in owners for part in parts])
    drawn = [_text(4, 18, title, "start", bold=True), _text(_LABEL_W - 60, _HEAD_H - 8, down, "end", fill="#7a828c")]
    drawn.append(_text(_LABEL_W - 60, _HEAD_H - 22, across, "end", fill="#7a828c"))
    for column, owner in enumerate(owners):
        x = _LABEL_W - 50 + column * _CELL_W
        drawn.append(_text(x + _CELL_W / 2, _HEAD_H - 8, owner, "middle", bold=True))
        for row, part in enumerate(parts):
            y, value = _HEAD_H + row * _CELL_H, norms[owner][part]
            box = f'x="{x + 1}" y="{y + 1}" width="{_CELL_W - 2}" height="{_CELL_H - 2}"'
            drawn.append(f'<rect {box} fill="{BAND}"/><rect {box} fill="{PALETTE[2]}" fill-opacity="{shade(value):.3f}"/>')
            drawn.append(_text(x + _CELL_W / 2, y + _CELL_H / 2 + 4, f"{value:.2g}" if value else "0", "middle"))
    drawn += [_text(_LABEL_W - 60, _HEAD_H + row * _CELL_H + _CELL_H / 2 + 4, part, "end") for row, part in enumerate(parts)]
    size = _LABEL_W - 50 + _CELL_W * len(owners) + 6, _HEAD_H + _CELL_H * len(parts) + 6
    return _document(size, f"{title}: columns {across}, rows {down}", "".join(drawn))


class _Shade:
    """Opacity of a value among others: 0 for 0, then from 0.1 to 0.7 by the logarithm, over at most four powers of ten."""

    def __init__(self, values: Sequence[float]) -> None:
        self.high = max((math.log10(value) for value in values if value > 0 and math.isfinite(value)), default=0.0)
        low = min((math.log10(value) for value in values if value > 0 and math.isfinite(value)), default=0.0)
        self.low = max(low, self.high - 4)

    def __call__(self, value: float) -> float:
        if not (value > 0 and math.isfinite(value)):
            return 0.0
        share = (math.log10(value) - self.low) / (self.high - self.low) if self.high > self.low else 1.0
        return 0.1 + 0.6 * min(max(share, 0.0), 1.0)
