"""RunsView: the runs of a sweep as a table, parallel coordinates and learning curves."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets

from tpo_lab.errors import UsageError, unknown_name
from tpo_widgets.playhead import Playhead
from tpo_widgets.runs.content import RunsContent, is_axis, relative
from tpo_widgets.runs.filters import condition_of, rows_that_pass
from tpo_widgets.view import View

if TYPE_CHECKING:
    import pandas as pd

DIRECTIONS = ("ascending", "descending")
_QUIET_LOOKS = 3
"""Times that nothing may be going on before `follow` ends."""
_SHARE = 4
"""`follow` rests this many times as long as it reads."""


class RunsView(View):
    """The runs of a sweep: a table to sort and filter, parallel coordinates, learning curves, and the executed notebooks.

    ```python
    view = RunsView("runs/region-rate")
    view.filters = {"lr": "1e-4..1e-2", "state": ["done"]}
    view.filtered, view.selected
    ```

    Args:
        runs: the folder of a sweep (`tpo-lab rerun`) or of training runs, or a pandas DataFrame with a row per run, such as
            `tpo_lab.reruns.run_table` gives.
        metrics: of a sweep, fields of its result records (`after.region`; its headline by default); of a table, its columns of metrics.
        lower: metrics of which the least value is the best; by default those whose name says so, and what the sweep's search minimises.
        theme: "auto", "light" or "dark".
        playhead: shared with other views; this one does not use it.

    Attributes:
        selected: ids of the selected runs, in the order in which they were selected.
        filtered: ids of the runs that pass the filters, in the sweep's order. Set it, and only these are shown.
        filters: column -> what passes: `">=0.5"`, `"0.1..0.5"`, `"<3 >1"` of numbers; letters of words; a list of the values themselves.
            A range that is brushed on an axis is such a filter.
        search: letters that must occur in some word of a run.
        only: ids to which `filtered` was set; None where it was not.
        order: [column, "ascending" or "descending"]; [] for the sweep's order.
        columns: of the table; [] for those that it begins with.
        axes: of the parallel coordinates, from left to right; [] for those that they begin with.
        colour: the column that colours the lines; "" for the one that they begin with.
        term: of the learning curves; "" for the first.
        opened: path of the executed notebook that was last opened.
        base: where links begin, as seen from the page; from the kernel's folder by default.
        reading: how often the folder was read again.
    """

    front = "runs_view"
    selected = traitlets.List(traitlets.Unicode()).tag(sync=True)
    filtered = traitlets.List(traitlets.Unicode())
    filters = traitlets.Dict().tag(sync=True)
    search = traitlets.Unicode("").tag(sync=True)
    only = traitlets.List(traitlets.Unicode(), default_value=None, allow_none=True).tag(sync=True)
    order = traitlets.List(traitlets.Unicode()).tag(sync=True)
    columns = traitlets.List(traitlets.Unicode()).tag(sync=True)
    axes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    colour = traitlets.Unicode("").tag(sync=True)
    term = traitlets.Unicode("").tag(sync=True)
    opened = traitlets.Unicode("").tag(sync=True)
    base = traitlets.Unicode("").tag(sync=True)
    reading = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        runs: str | os.PathLike[str] | pd.DataFrame,
        *,
        metrics: Sequence[str] = (),
        lower: Sequence[str] | None = None,
        theme: str = "auto",
        playhead: Playhead | None = None,
    ) -> None:
        self._make: Callable[[RunsContent | None], RunsContent] = lambda before: RunsContent.of(
            runs, metrics, lower, before.logs if before else None
        )
        self._callbacks: list[Callable[[Path], Any]] = []
        self._follower: threading.Thread | None = None
        self._stopped = threading.Event()
        self._filtering = False
        super().__init__(lambda: self._make(None), theme=theme, playhead=playhead)
        self.base = self._base(Path.cwd())
        self._filter()
        self.observe(self._filter, ["filters", "search", "only"])
        self.observe(self._choose, "filtered")

    def refresh(self) -> None:
        """Read the folder again; filters, selection and what else was chosen stay, as far as their runs and columns are still there."""
        before = self._runs
        self.show(lambda: self._make(before))
        found = self._runs
        if found is None:
            return
        with self.hold_sync():
            self.selected = [each for each in self.selected if each in found.table.places]
            self.filters = {name: given for name, given in self.filters.items() if name in found.table.names}
            self.base, self.reading = self._base(Path.cwd()), self.reading + 1
        self._filter()

    def follow(self, seconds: float = 2.0) -> None:
        """Refresh every so many seconds while runs are active, in the background; a sweep that takes long to read is read less often.

        Raises:
            UsageError: no positive number.
        """
        if not seconds > 0:
            raise UsageError("seconds", expected="more than 0", got=seconds)
        self.stop()
        self._stopped = threading.Event()
        self._follower = threading.Thread(target=self._follow, args=(seconds, self._stopped), name="RunsView.follow", daemon=True)
        self._follower.start()

    def stop(self) -> None:
        """End `follow`."""
        self._stopped.set()
        follower, self._follower = self._follower, None
        if follower is not None and follower is not threading.current_thread():
            follower.join()

    @property
    def following(self) -> bool:
        """Whether `follow` still refreshes."""
        return self._follower is not None and self._follower.is_alive()

    def close(self) -> None:
        """End `follow`, and take the view off the page."""
        self.stop()
        super().close()

    def on_open(self, callback: Callable[[Path], Any]) -> None:
        """Call a function with the path of each executed notebook that is opened in the view."""
        self._callbacks.append(callback)

    def to_plotly(self) -> Any:
        """The parallel coordinates of the runs that pass the filters, as a `plotly.graph_objects.Figure`.

        Raises:
            MissingExtraError: plotly is not installed.
            UsageError: there is nothing to draw.
        """
        from tpo_widgets.runs.plotly import runs_figure

        found = self._runs
        if found is None:
            raise UsageError("runs", expected="runs that can be shown", got=self.problem)
        return runs_figure(found.table, self.axes or found.axes, self.colour or found.colour, self._passing())

    def to_html(self, path: str | Path | None = None, *, title: str = "") -> str:
        """A page of its own. Its links to the executed notebooks are right for the folder of `path`, or for the current one without it."""
        with self._seen_from(Path.cwd() if path is None else Path(path).parent):
            return super().to_html(path, title=title)

    def heard(self, message: Any) -> None:
        """A click on the link of a run."""
        found = self._runs
        if found is None or not isinstance(message, dict) or message.get("opened") not in found.table.places:
            return
        notebook = found.table.notebooks[found.table.places[message["opened"]]]
        if notebook is None:
            return
        self.opened = str(notebook)
        for callback in self._callbacks:
            callback(notebook)

    @property
    def _runs(self) -> RunsContent | None:
        return self.content if isinstance(self.content, RunsContent) else None

    def _base(self, folder: Path) -> str:
        return "" if self._runs is None else relative(self._runs.table.folder, folder)

    @contextmanager
    def _seen_from(self, folder: Path) -> Iterator[None]:
        with self.hold_sync():
            before, self.base = self.base, self._base(folder)
            try:
                yield
            finally:
                self.base = before

    def _passing(self) -> list[int]:
        return [] if self._runs is None else rows_that_pass(self._runs.table, self.filters, self.search, self.only)

    def _filter(self, _change: Any = None) -> None:
        found = self._runs
        self._filtering = True
        try:
            self.filtered = [found.table.ids[row] for row in self._passing()] if found else []
        finally:
            self._filtering = False

    def _choose(self, change: Any) -> None:
        """`filtered` was set from outside."""
        if self._filtering:
            return
        with self.hold_sync():
            self.filters, self.search, self.only = {}, "", list(change["new"])
        self._filter()

    def _follow(self, seconds: float, stopped: threading.Event) -> None:
        quiet, rest = 0, seconds
        while quiet < _QUIET_LOOKS and not stopped.wait(rest):
            began = time.monotonic()
            self.refresh()
            rest = max(seconds, _SHARE * (time.monotonic() - began))
            quiet = 0 if self._runs is not None and self._runs.table.active else quiet + 1

    @traitlets.validate("selected", "only", "filtered")
    def _known_runs(self, proposal: Any) -> Any:
        found, value = self._runs, proposal["value"]
        unknown = [] if found is None else [name for name in value or () if name not in found.table.places]
        if found is not None and unknown:
            known = f"ids of runs, such as {', '.join(found.table.ids[:2]) or 'none yet'}"
            raise UsageError(proposal["trait"].name, expected=known, got=unknown[0])
        return value

    @traitlets.validate("columns", "axes")
    def _known_columns(self, proposal: Any) -> Any:
        found, value, name = self._runs, proposal["value"], proposal["trait"].name
        if found is None:
            return value
        for column in value:
            if column not in found.table.names:
                raise unknown_name(name, column, found.table.names)
            if name == "axes" and not is_axis(found.table.column(column)):
                raise UsageError("axes", expected="columns of numbers, or of few words", got=column)
        return value

    @traitlets.validate("colour")
    def _known_colour(self, proposal: Any) -> Any:
        found, value = self._runs, proposal["value"]
        if found is not None and value:
            numbers = [each.name for each in found.table.columns if each.kind == "number"]
            if value not in numbers:
                raise unknown_name("colour", value, numbers)
        return value

    @traitlets.validate("order")
    def _known_order(self, proposal: Any) -> Any:
        found, value = self._runs, proposal["value"]
        if value and (len(value) != 2 or value[1] not in DIRECTIONS):
            raise UsageError("order", expected="[column, 'ascending' or 'descending']", got=value)
        if value and found is not None:
            found.table.column(value[0])
        return value

    @traitlets.validate("filters")
    def _known_filters(self, proposal: Any) -> Any:
        found, value = self._runs, proposal["value"]
        if found is not None:
            for name, given in value.items():
                condition_of(found.table.column(name), given)
        return value
