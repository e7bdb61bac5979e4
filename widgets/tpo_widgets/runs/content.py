"""What RunsView shows: the first runs at once, all of them and their learning curves on demand."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import UsageError
from tpo_widgets.content import Moment, Resource
from tpo_widgets.runs.columns import Column, RunsTable, table_of
from tpo_widgets.runs.curves import Logs, over_seeds, thinned

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

WHOLE_BYTES, PART_BYTES = 12_000, 5_000
"""Letters of JSON that the rows of a document may take: where all of them fit, and where the first ones stand in until all are there."""
_METRICS_SHOWN, _METRIC_AXES, _AXES = 6, 4, 8
_MOST_MARKS = 30
"""Different words on one axis."""
_CURVES_IN_A_PAGE = 600


@dataclass(frozen=True)
class RunsContent:
    """The runs of a sweep.

    Attributes:
        table: of the runs.
        logs: what they logged as they trained.
    """

    table: RunsTable
    logs: Logs = field(repr=False)

    @classmethod
    def of(
        cls,
        runs: str | os.PathLike[str] | pd.DataFrame,
        metrics: Sequence[str] = (),
        lower: Sequence[str] | None = None,
        before: Logs | None = None,
    ) -> RunsContent:
        """The content of a folder or a table; see `tpo_widgets.runs.columns.table_of`.

        Args:
            runs: the folder, or the table.
            metrics: that are shown.
            lower: metrics of which the least value is the best.
            before: logs that were read before, which are not read again.

        Raises:
            UsageError: neither a folder of runs nor a table, or a metric that is not there.
        """
        table = table_of(runs, metrics, lower)
        folders = {name: folder for name, folder in zip(table.ids, table.folders, strict=True) if folder is not None}
        return cls(table, (before or Logs({})).among(folders))

    @cached_property
    def document(self) -> dict[str, Any]:
        """Columns, which of them are shown at first, and as many runs as fit."""
        inline = self._rows(slice(0, self._inline))
        return {
            "title": self.table.title,
            "total": len(self.table),
            "states": self.table.states,
            "columns": [column.to_dict() for column in self.table.columns],
            "shown": self.shown,
            "axes": self.axes,
            "colour": self.colour,
            "rows": inline,
            "more": "" if self._inline == len(self.table) else f"rows {self._digest}",
        }

    @cached_property
    def shown(self) -> list[str]:
        """Columns of the table at first: what tells the runs apart, their status, metrics, time and error."""
        metrics = self.table.metrics[:_METRICS_SHOWN]
        kept = {*self.table.varied, *metrics, "state", "seconds", "started", "note"}
        kept |= {name for name in ("link", "seed") if name in self.table.names and self.table.column(name).varies}
        if not self.table.varied or len(self.table) != len({self.table.label(row) for row in range(len(self.table))}):
            kept.add("run")
        return [each.name for each in self.table.columns if each.name in kept and (each.present or each.role != "fact")]

    @cached_property
    def axes(self) -> list[str]:
        """Axes of the parallel coordinates at first: varied parameters, then metrics."""
        metrics = [name for name in self.table.metrics if self.table.column(name).present][:_METRIC_AXES]
        parameters = [name for name in self.table.varied if is_axis(self.table.column(name))]
        return [*parameters[: _AXES - len(metrics)], *metrics]

    @property
    def colour(self) -> str:
        """The column that colours the lines at first; "" for none."""
        return next((name for name in self.axes if name in self.table.metrics), "")

    def resource(self, name: str) -> Resource:
        """All rows ("rows ..."), the terms of the learning curves ("terms"), a curve (`curve ["run", "term"]`) or the mean of several
        (`mean [["run", ...], "term"]`).

        Raises:
            UsageError: there is no such resource.
            TPOError: a run has no such curve.
        """
        kind, _, rest = name.partition(" ")
        if kind == "rows":
            return _json(self._rows(slice(None)))
        if kind == "terms":
            return _json({"terms": self.logs.terms()})
        if kind in ("curve", "mean"):
            runs, term = _asked(name, rest)
            if kind == "curve":
                steps, values = thinned(*self.logs.curve(str(runs), term))
                return _json({"steps": steps, "values": [float(f"{value:.6g}") for value in values]})
            return _json(over_seeds([self.logs.curve(str(run), term) for run in runs]))
        raise UsageError("resource", expected="rows, terms, curve or mean", got=name)

    def names(self) -> Iterator[str]:
        """All rows, and the curves: every run's loss first, then its other terms, as far as a page of bearable size goes."""
        if self._inline < len(self.table):
            yield f"rows {self._digest}"
        yield "terms"
        left = _CURVES_IN_A_PAGE
        groups = self._over_seeds()
        for term in self.logs.terms():
            for asked in [*(("curve", run) for run in self.logs.folders), *(("mean", group) for group in groups)]:
                if left == 0:
                    return
                left -= 1
                yield f"{asked[0]} {json.dumps([asked[1], term], ensure_ascii=False, separators=(',', ':'))}"

    def picture(self, moment: Moment, *, dark: bool, width: int) -> Image:
        """The best runs by the first metric, and the parallel coordinates."""
        from tpo_widgets.runs.picture import runs_picture

        return runs_picture(self, dark=dark, width=width)

    def link(self, row: int) -> list[str] | None:
        """The executed notebook of a run and, where there is one, the page made of it, as seen from the table's folder."""
        path = self.table.notebooks[row]
        if path is None:
            return None
        page = path.with_suffix(".html")
        return [relative(each, self.table.folder) for each in ([path, page] if page.exists() else [path])]

    def _rows(self, rows: slice) -> dict[str, Any]:
        return {
            "ids": list(self.table.ids[rows]),
            "links": [self.link(row) for row in range(len(self.table))[rows]],
            "values": {column.name: column.coded(rows) for column in self.table.columns},
        }

    @cached_property
    def _inline(self) -> int:
        """How many rows the document holds."""
        count, most = len(self.table), WHOLE_BYTES
        while count and len(json.dumps(self._rows(slice(0, count)))) > most:
            count, most = min(count * 3 // 4, 200), PART_BYTES
        return count

    @cached_property
    def _digest(self) -> str:
        """Changes with the rows, so that the front end asks for them again."""
        return hashlib.sha256(json.dumps(self._rows(slice(None)), sort_keys=True).encode()).hexdigest()[:12]

    def _over_seeds(self) -> list[list[str]]:
        """Ids of runs that differ by their seed alone, where there are several of them; the front end makes the same groups."""
        apart = [each for each in self.table.columns if each.role == "parameter" or each.name == "link"]
        found: dict[tuple[Any, ...], list[str]] = {}
        for row, name in enumerate(self.table.ids):
            found.setdefault(tuple(column.values[row] for column in apart), []).append(name)
        return [runs for runs in found.values() if len(runs) > 1] if "seed" in self.table.names else []


def is_axis(column: Column) -> bool:
    """Whether a column can be an axis: numbers, or words of which there are not too many."""
    return column.kind == "number" or (column.kind == "category" and len(column.categories) <= _MOST_MARKS)


def relative(path: Path, folder: Path) -> str:
    """A path as seen from a folder, with slashes."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _asked(name: str, rest: str) -> tuple[Any, str]:
    try:
        runs, term = json.loads(rest)
    except ValueError as error:
        raise UsageError("resource", expected='a run and a term, such as curve ["a1b2","loss"]', got=name) from error
    return runs, str(term)


def _json(value: Any) -> Resource:
    return Resource(json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode(), {})
