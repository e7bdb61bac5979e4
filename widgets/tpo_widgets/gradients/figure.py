"""Static curves of gradients for plotly: norms and cosines over the steps of a run, or shares by layer of one measurement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tpo_lab.drawing import PALETTE
from tpo_lab.errors import MissingExtraError, UsageError, unknown_name
from tpo_widgets.gradients.content import GradientContent
from tpo_widgets.gradients.measurements import TRACE, Measurement

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = ("#6b7280", PALETTE[3], PALETTE[2], PALETTE[4], "#9467bd", "#8c6d46")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
LAYERS = ("llm.lora", "llm.base")
_BAND = "rgba(125,135,150,0.12)"


def figure(content: GradientContent, module: str, pair: str, measurement: Measurement) -> go.Figure:
    """Curves of one module over steps where there is a run; else shares by layer.

    Args:
        module: whose curves; "" for the language model's LoRA, or the first one.
        pair: the only one whose cosine is drawn, as "region|temporal"; "" for all.
        measurement: whose shares are drawn.

    Raises:
        MissingExtraError: plotly is not installed.
        UsageError: an unknown module or pair.
    """
    _plotly()
    if module and module not in content.modules:
        raise unknown_name("module", module, content.modules)
    if pair and pair not in content.pairs:
        raise unknown_name("pair", pair, content.pairs)
    run = [each for each in content.measurements if each.line != TRACE]
    return _curves(content, run, module or default_module(content), pair) if run else _shares(content, measurement)


def default_module(content: GradientContent) -> str:
    """The language model's LoRA, its base, or else the first module."""
    return next((name for name in LAYERS if name in content.modules), content.modules[0])


def _plotly() -> Any:
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise MissingExtraError("plotly", "widgets", "GradientView.to_plotly") from error
    return go


def _curves(content: GradientContent, run: Sequence[Measurement], module: str, pair: str) -> go.Figure:
    from plotly.subplots import make_subplots

    titles = (f"Gradient norms in {module}", f"Cosines in {module}")
    found = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.12, subplot_titles=titles)
    places, bands = along(run)
    labels = [f"stage {each.stage}, step {each.step}" for each in run]
    go = _plotly()
    lines = [(1, owner, [_norm(each, module, owner) for each in run]) for owner in content.owners]
    lines += [
        (2, " and ".join(name.split("|")), [_cosine(each, module, name) for each in run]) for name in content.pairs if pair in ("", name)
    ]
    for number, (row, name, values) in enumerate(lines):
        style = {"color": COLOURS[number % len(COLOURS)], "dash": _DASHES[number % len(_DASHES)]}
        curve = go.Scatter(x=places, y=values, text=labels, name=name, line=style, mode="lines+markers", hovertemplate="%{text}: %{y:.3g}")
        found.add_trace(curve, row=row, col=1)
    for number, (start, end, stage) in enumerate(bands):
        found.add_vrect(start, end, fillcolor=_BAND if number % 2 == 0 else "rgba(0,0,0,0)", line_width=0, layer="below")
        found.add_annotation(x=(start + end) / 2, y=1, yref="paper", text=stage, showarrow=False, yshift=24)
    found.update_yaxes(type="log", title_text="norm", row=1, col=1)
    found.update_yaxes(range=[-1.05, 1.05], title_text="cosine", row=2, col=1)
    found.update_xaxes(title_text="step, all stages one after another", row=2, col=1)
    found.update_layout(height=620, margin={"t": 70})
    return found


def _shares(content: GradientContent, measurement: Measurement) -> go.Figure:
    table = measurement.table
    prefix = next((name for name in LAYERS if any(module.startswith(f"{name}.") for module in table.modules)), None)
    if prefix is None:
        got = f"{content.title(measurement)}, without"
        raise UsageError("measurement", expected="a step in which layers of the language model learn", got=got)
    layers = [module for module in content.modules if module.startswith(f"{prefix}.") and module in table.modules]
    go = _plotly()
    found = go.Figure()
    for place, owner in enumerate(table.owners):
        shares = [float(table.shares[table.modules.index(layer), place]) for layer in layers]
        widths = [None if math.isnan(share) else share for share in shares]
        found.add_bar(x=widths, y=layers, name=owner, orientation="h", marker_color=COLOURS[place % len(COLOURS)])
    found.update_layout(barmode="relative", title=f"Share of each loss in the step of {prefix}", height=160 + 24 * len(layers))
    found.update_xaxes(title_text="share of the step, in sum 1", zeroline=True)
    found.update_yaxes(autorange="reversed")
    return found


def along(run: Sequence[Measurement]) -> tuple[list[float], list[tuple[float, float, str]]]:
    """Places of measurements on one axis on which stages follow one another, and (first, last, name) of each stage."""
    places: list[float] = []
    bands: list[tuple[float, float, str]] = []
    start = 0.0
    for number, each in enumerate(run):
        step = float(each.step or 0)
        if number and (each.stage != run[number - 1].stage or step <= (run[number - 1].step or 0)):
            start = places[-1]
        places.append(start + step)
        name = each.stage or ""
        if number and bands[-1][2] == name and start < bands[-1][1] and bands[-1][0] == start:
            bands[-1] = (bands[-1][0], places[-1], name)
        else:
            bands.append((start, places[-1], name))
    return places, bands


def _norm(measurement: Measurement, module: str, owner: str) -> float | None:
    table = measurement.table
    if module not in table.modules or owner not in table.owners:
        return None
    value = float(table.norms[table.modules.index(module), table.owners.index(owner)])
    return value if math.isfinite(value) and value > 0 else None  # the axis is logarithmic


def _cosine(measurement: Measurement, module: str, pair: str) -> float | None:
    table = measurement.table
    names = ["|".join(each) for each in table.pairs]
    if module not in table.modules or pair not in names:
        return None
    value = float(table.cosines[table.modules.index(module), names.index(pair)])
    return value if math.isfinite(value) else None
