"""The runs of a sweep as columns of plain values, each with its part in the sweep: parameter, metric, status and so on."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

    from tpo_lab.reruns.results.collected import Run

LONGEST_TEXT = 400
"""Letters of a value that travel to the browser."""
MOST_CATEGORIES = 12
LOG_RATIO = 100.0
"""An axis of positive values is logarithmic from this ratio of the greatest to the least."""
_OWN = ("key", "run", "link", "seed", "state", "seconds", "peak_memory_mb", "attempts", "started", "note")
_FOLDED = ("error_cell", "error_type", "error_message", "executed")
_LOWER = ("loss", "error", "seconds", "perplexity", "distance", "memory")


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        name: as the runs table has it.
        role: "parameter", "metric", "status", or "fact" for what is neither.
        kind: "number"; "category", a word of which there are few; or "words".
        values: of each run, numbers or texts; None where there is none, and where a number is not finite.
        lower: whether the least value is the best one.
    """

    name: str
    role: str
    kind: str
    values: tuple[Any, ...]
    lower: bool = False

    @cached_property
    def present(self) -> list[Any]:
        """The values that there are."""
        return [value for value in self.values if value is not None]

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest number; 0 and 0 where there is none."""
        return (min(self.present), max(self.present)) if self.kind == "number" and self.present else (0.0, 0.0)

    @cached_property
    def varies(self) -> bool:
        """Whether two runs differ in it; a missing value differs from one that is there."""
        return len(set(self.values)) > 1

    @cached_property
    def is_log(self) -> bool:
        """Whether its axis is better logarithmic: a parameter of positive numbers that differ by two powers of ten or more, as rates do."""
        low, high = self.ends
        return self.role == "parameter" and low > 0 and high / low >= LOG_RATIO

    @cached_property
    def categories(self) -> list[str]:
        """Its different words, sorted."""
        return sorted(set(self.present))

    def best(self, rows: Sequence[int] | None = None) -> Any:
        """The best value of these runs; None where there is none, and where all are the same."""
        found = [self.values[row] for row in (range(len(self.values)) if rows is None else rows)]
        found = [value for value in found if value is not None]
        if self.kind != "number" or len(set(found)) < 2:
            return None
        return min(found) if self.lower else max(found)

    def to_dict(self) -> dict[str, Any]:
        """What the front end has to know of it beside its values."""
        about = {"name": self.name, "role": self.role, "kind": self.kind, "log": self.is_log, "lower": self.lower}
        return {**about, "categories": self.categories} if self.kind == "category" else about

    def coded(self, rows: slice) -> list[Any]:
        """Some of its values as they travel: words of which there are few by their place among the categories."""
        if self.kind != "category":
            return list(self.values[rows])
        place = {word: number for number, word in enumerate(self.categories)}
        return [None if value is None else place[value] for value in self.values[rows]]


@dataclass(frozen=True)
class RunsTable:
    """Every run of a sweep.

    Attributes:
        title: what the sweep is called.
        folder: of the sweep, or where links begin.
        ids: of the runs: their keys, or what tells the rows of a table apart.
        columns: in their order.
        folders: of each run; None where it is not known.
        notebooks: what was executed, of each run; None where there is none.
        active: whether something may still change: a run runs, or the sweep does.
    """

    title: str
    folder: Path
    ids: tuple[str, ...]
    columns: tuple[Column, ...]
    folders: tuple[Path | None, ...] = field(repr=False)
    notebooks: tuple[Path | None, ...] = field(repr=False)
    active: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, name: str) -> Column:
        """The column of this name.

        Raises:
            UsageError: there is none; names the closest.
        """
        found = next((each for each in self.columns if each.name == name), None)
        if found is None:
            raise unknown_name("column", name, self.names)
        return found

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [each.name for each in self.columns]

    @cached_property
    def places(self) -> dict[str, int]:
        """Id of a run -> its row."""
        return {each: row for row, each in enumerate(self.ids)}

    @cached_property
    def varied(self) -> list[str]:
        """Parameters in which the runs differ; all of them where there is only one run."""
        found = [each for each in self.columns if each.role == "parameter"]
        return [each.name for each in found if each.varies or len(self) < 2]

    @cached_property
    def metrics(self) -> list[str]:
        """Columns of numbers that runs gave, those of the most runs first where one lacks in some."""
        return [each.name for each in self.columns if each.role == "metric" and each.kind == "number"]

    @cached_property
    def states(self) -> dict[str, int]:
        """How many runs are in each state."""
        found = [value for each in self.columns if each.role == "status" for value in each.values]
        return {state: found.count(state) for state in dict.fromkeys(found) if state is not None}

    def label(self, row: int) -> str:
        """What a run is called beside others: the values in which it differs, else its name."""
        named = [*self.varied, *(["seed"] if "seed" in self.names and self.column("seed").varies else [])]
        words = [f"{name}={_short(self.column(name).values[row])}" for name in named]
        return " ".join(words) or str((self.column("run").values[row] if "run" in self.names else None) or self.ids[row])

    def ordered(self, name: str, *, descending: bool) -> list[int]:
        """Rows by a column; those without a value come last."""
        values = self.column(name).values
        there = [row for row in range(len(self)) if values[row] is not None]
        missing = [row for row in range(len(self)) if values[row] is None]
        return [*sorted(there, key=lambda row: values[row], reverse=descending), *missing]


def table_of(runs: str | os.PathLike[str] | pd.DataFrame, metrics: Sequence[str] = (), lower: Sequence[str] | None = None) -> RunsTable:
    """The runs of a folder or of a table.

    Args:
        runs: the folder of a sweep, a folder of training runs, or a pandas table with a row per run.
        metrics: of a sweep, fields of its result records (its headline by default); of a table, the columns that are metrics.
        lower: metrics of which the least value is the best; by default those whose name says so (loss, error, ...), and what a search
            minimises.

    Raises:
        UsageError: neither a folder of runs nor a table, or a metric that is not there.
    """
    if isinstance(runs, (str, os.PathLike)):
        found = _of_folder(Path(runs), metrics, lower)
    elif type(runs).__name__ == "DataFrame":
        found = _of_frame(runs, metrics, lower)
    else:
        raise UsageError("runs", expected="the folder of a sweep or a pandas DataFrame with a row per run", got=type(runs).__name__)
    for name in lower or ():
        found.column(name)
    return found


def _of_folder(folder: Path, metrics: Sequence[str], lower: Sequence[str] | None) -> RunsTable:
    from tpo_lab.reruns.results.collected import is_sweep
    from tpo_lab.reruns.results.training_runs import training_runs, training_table

    if is_sweep(folder):
        return _of_sweep(folder, metrics, lower)
    if not folder.is_dir():
        raise UsageError("runs", expected="the folder of a sweep", got=str(folder), hint="There is no such folder.")
    trained = training_runs(folder)
    if not trained:
        hint = "`tpo-lab rerun SWEEP.yaml --out DIR` makes one."
        raise UsageError("runs", expected="the folder of a sweep, with sweep.json in it", got=str(folder), hint=hint)
    frame = training_table(folder)
    names = [str(name) for name in frame.columns]
    given = [name for name in names[names.index("last_stage") + 1 :] if name not in ("step", "seconds")]
    table = _built(frame, metrics or given, ["recipe", "stages"], lower)
    folder = folder.resolve()
    return RunsTable(folder.name, folder, table.ids, table.columns, tuple(trained), (None,) * len(trained))


def _of_sweep(folder: Path, metrics: Sequence[str], lower: Sequence[str] | None) -> RunsTable:
    from tpo_lab.lock import is_locked
    from tpo_lab.reruns.disk.store import Store
    from tpo_lab.reruns.results.collected import runs_in, sweep_of
    from tpo_lab.reruns.results.table import chosen_metrics, run_table

    folder = folder.resolve()
    sweep, runs = sweep_of(folder), runs_in(folder)
    frame = run_table(runs, chosen_metrics(runs, metrics))
    notes = [_running_note(run) for run in runs]
    frame["state"] = ["stale" if note and run.state == "waiting" else run.state for run, note in zip(runs, notes, strict=True)]
    frame["started"] = [_started(run, note) for run, note in zip(runs, notes, strict=True)]
    names = [str(name) for name in frame.columns]
    given, swept = _between(names, "state", "seconds"), _between(names, "link", "seed")
    table = _built(frame, given, swept, _sought(sweep, given) if lower is None else lower, progress=notes)
    executed = tuple(run.executed if run.executed.exists() else None for run in runs)
    active = any(run.state == "running" for run in runs) or is_locked(Store(folder).lock)
    title, folders = str(sweep.get("name") or folder.name), tuple(run.folder for run in runs)
    return RunsTable(title, folder, table.ids, table.columns, folders, executed, active)


def _sought(sweep: Mapping[str, Any], given: Sequence[str]) -> list[str] | None:
    """Metrics of which the least value is the best, where the sweep's search says what it looks for."""
    from tpo_lab.reruns.results.table import label

    search = sweep.get("search") or {}
    sought = label(str(search.get("metric")))
    if sought not in given:
        return None
    return [name for name in given if (search.get("direction") == "minimize" if name == sought else _is_lower(name))]


def _running_note(run: Run) -> Mapping[str, Any]:
    """What the process that works, or worked, in a run's folder says of itself; empty where there is none."""
    from tpo_lab.reruns.disk.folder import JobFolder

    return (JobFolder(run.folder).running() or {}) if run.state in ("running", "waiting") else {}


def _started(run: Run, note: Mapping[str, Any]) -> str | None:
    from datetime import datetime, timezone

    if note.get("began"):
        return datetime.fromtimestamp(float(note["began"]), timezone.utc).strftime("%Y-%m-%d %H:%M")
    began = str(run.attempts[-1].get("began") or "") if run.attempts else ""
    return began[:16].replace("T", " ") or None


def _of_frame(given: pd.DataFrame, metrics: Sequence[str], lower: Sequence[str] | None) -> RunsTable:
    frame = given.rename(columns=str)
    names = [str(name) for name in frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError("runs", expected="columns of different names", got=twice)
    for name in metrics:
        if name not in names:
            raise unknown_name("metrics", name, names)
    known = [name for name in names if name not in (*_OWN, *_FOLDED)]
    if {"link", "seed", "state", "seconds"} <= set(names):
        found, swept = list(metrics) or _between(names, "state", "seconds"), _between(names, "link", "seed")
    else:
        found = list(metrics) or [name for name in known if str(frame[name].dtype).startswith(("float", "Float"))]
        swept = [name for name in known if name not in found]
    table = _built(frame, found, swept, lower)
    executed = frame["executed"].tolist() if "executed" in names else [None] * len(frame)
    notebooks = tuple(Path(path).resolve() if isinstance(path, str) and Path(path).exists() else None for path in executed)
    folders = tuple(None if path is None else path.parent for path in notebooks)
    return RunsTable("Runs", Path.cwd(), table.ids, table.columns, folders, notebooks)


def _between(names: Sequence[str], first: str, last: str) -> list[str]:
    return list(names[names.index(first) + 1 : names.index(last)])


def _built(
    frame: pd.DataFrame,
    metrics: Sequence[str],
    swept: Sequence[str],
    lower: Sequence[str] | None,
    progress: Sequence[Mapping[str, Any]] = (),
) -> RunsTable:
    """The columns of a frame in the order of the table: parameters, seed, status, metrics, facts, what happened."""
    from tpo_lab.reruns.display.cells import rows_of

    rows = list(rows_of(frame))
    names = [str(name) for name in frame.columns if name not in _FOLDED]
    facts = [name for name in names if name not in (*metrics, *swept, "state", "key")]
    first = [name for name in ("run", "link") if name in facts]
    seed = [name for name in ("seed",) if name in facts]
    status = [name for name in ("state",) if name in names]
    order = [*first, *swept, *seed, *status, *metrics, *(name for name in facts if name not in (*first, *seed))]
    roles = {**dict.fromkeys(swept, "parameter"), **dict.fromkeys(status, "status"), **dict.fromkeys(metrics, "metric")}
    better = (lambda name: _is_lower(name)) if lower is None else (lambda name: name in lower)
    columns = [_column(name, roles.get(name, "fact"), [row[name] for row in rows], better) for name in order]
    notes = [_note(row, progress[place] if progress else {}) for place, row in enumerate(rows)]
    if any(notes) and "note" not in names:
        columns.append(_column("note", "fact", notes, better))
    return RunsTable("", Path(), tuple(_ids(rows, frame)), tuple(columns), (), ())


def _column(name: str, role: str, values: Sequence[Any], better: Callable[[str], bool]) -> Column:
    present = [value for value in values if value is not None]
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in present)
    if numbers and (present or role == "metric"):
        finite = tuple(value if value is not None and math.isfinite(value) else None for value in values)
        return Column(name, role, "number", finite, role == "metric" and better(name))
    words = tuple(_words(value) for value in values)
    few = len(set(words)) <= MOST_CATEGORIES and (role in ("parameter", "status", "metric") or name == "link")
    return Column(name, role, "category" if few else "words", words)


def _words(value: Any) -> str | None:
    from tpo_lab.reruns.display.cells import cell

    text = "" if value is None else cell(value)
    return (text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…") or None


def _note(row: Mapping[str, Any], running: Mapping[str, Any]) -> str | None:
    """What went wrong in a run, or how far it is."""
    cell = row.get("error_cell")
    told = ": ".join(str(row[part]) for part in ("error_type", "error_message") if row.get(part))
    if told or cell is not None:
        return " ".join((f"cell {cell}: {told}" if cell is not None else told).split())
    if not running.get("cells"):
        return None
    return f"cell {running['cell']} of {running['cells']}"


def _ids(rows: Sequence[Mapping[str, Any]], frame: pd.DataFrame) -> Iterator[str]:
    """Of the columns "key" and "run", or of the table's index, the first whose values differ; else the numbers of the rows."""
    for name in ("key", "run"):
        found = [str(row.get(name)) for row in rows if row.get(name) is not None]
        if len(found) == len(rows) and len(set(found)) == len(rows):
            return iter(found)
    found = [str(each) for each in frame.index]
    return iter(found if len(set(found)) == len(rows) else [str(row) for row in range(len(rows))])


def _is_lower(name: str) -> bool:
    return any(word in name.lower() for word in _LOWER)


def _short(value: Any) -> str:
    from tpo_lab.reruns.display.cells import cell

    text = "none" if value is None else cell(value)
    return text if len(text) <= 32 else text[:31] + "…"
