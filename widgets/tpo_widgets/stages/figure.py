"""The losses of a run as a plotly figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tpo_lab.errors import MissingExtraError, UsageError
from tpo_widgets.stages.history import LOSS, MOST_POINTS, History

if TYPE_CHECKING:
    import plotly.graph_objects as go


def loss_figure(history: History | None) -> go.Figure:
    """A curve of at most 400 points for each term, over the steps of the whole run.

    Raises:
        MissingExtraError: plotly is not installed.
        UsageError: there is no run, or it has no step.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise MissingExtraError("plotly", "widgets", "StageView.to_plotly") from error
    if history is None or not history.stages:
        raise UsageError("run", expected="a run with at least one step", got=None)
    figure = go.Figure()
    offsets = history.offsets()
    for name in (each for each in history.names() if each.group == LOSS):
        xs, ys = _points(history, name.key, offsets)
        figure.add_scatter(x=xs, y=ys, name=name.key, mode="lines", connectgaps=False)
    for stage, offset in offsets.items():
        figure.add_vline(x=offset, line={"dash": "dot", "width": 1}, annotation_text=stage)
    figure.update_layout(xaxis_title="step of the run", yaxis_title="loss (before its weight)", yaxis_type="log")
    return figure


def _points(history: History, key: str, offsets: dict[str, int]) -> tuple[list[float | None], list[float | None]]:
    """Of all stages that have the curve, with a gap between them."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    stages = [stage for stage in history.stages.values() if key in stage.curves]
    for stage in stages:
        steps, values, _ = stage.curves[key].points(max(4, MOST_POINTS // len(stages) - 1))
        xs += [*(steps + offsets[stage.name]).tolist(), None]
        ys += [*values.tolist(), None]
    return xs[:-1], ys[:-1]
