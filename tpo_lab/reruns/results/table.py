"""The runs of a sweep as a table: a row per run, failed ones too. Not here: how a table is written down (`tpo_lab.reruns.display`)."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import UsageError
from tpo_lab.reruns.disk.record import HEADLINE
from tpo_lab.reruns.results.collected import Run
from tpo_lab.reruns.results.frames import frame_of

if TYPE_CHECKING:
    import pandas as pd

_BEFORE = ("key", "run", "link")
_BETWEEN = ("seed", "state")
_AFTER = ("seconds", "peak_memory_mb", "attempts", "error_cell", "error_type", "error_message", "executed")
GROUPED = ("link", "metric", "n", "of", "missing", "mean", "standard_error", "low", "high", "difference", "difference_low")
_TAKEN = frozenset((*_BEFORE, *_BETWEEN, *_AFTER, *GROUPED, "difference_high", "pairs", "interval"))


def chosen_metrics(runs: Iterable[Run], wanted: Sequence[str] = ()) -> list[str]:
    """Dotted names of fields of the result records, in their order.

    Args:
        runs: whose records are looked at.
        wanted: full names, names below `headline`, or the start of several (`headline`, `after.region`); the whole headline by default.

    Raises:
        UsageError: no record has such a field.
    """
    known = list(dict.fromkeys(name for run in runs for name in run.values))
    if not known:
        return list(wanted)
    found: list[str] = []
    for name in wanted or (HEADLINE,):
        fitting = _fitting(name, known)
        if not fitting and wanted:
            raise _no_such_metric(name, known)
        found += fitting
    return list(dict.fromkeys(found))


def _fitting(name: str, known: Sequence[str]) -> list[str]:
    exact = [each for each in known if each in (name, f"{HEADLINE}.{name}")]
    return exact or [each for each in known if each.startswith((f"{name}.", f"{HEADLINE}.{name}."))]


def _no_such_metric(name: str, known: Sequence[str]) -> UsageError:
    short = {each.removeprefix(f"{HEADLINE}."): each for each in known}
    close = difflib.get_close_matches(name, [*known, *short], n=3, cutoff=0.5)
    near = list(dict.fromkeys(short.get(each, each) for each in close)) or known[:3]
    return UsageError("--metric", expected="a field of a result record", got=name, hint=f"Some that are there: {', '.join(near)}.")


def label(metric: str) -> str:
    """The column of a metric: without `headline.` in front of it."""
    short = metric.removeprefix(f"{HEADLINE}.")
    return metric if short in _TAKEN else short


def seed_of(run: Run) -> int | None:
    """The seed of a run: of the sweep's `seeds`, or where they are swept as a parameter, that one."""
    seed = run.job.seed if run.job.seed is not None else run.job.point.get("seed")
    return seed if isinstance(seed, int) else None


def point_of(run: Run) -> dict[str, Any]:
    """The swept values of a run without its seed."""
    return {name: value for name, value in run.job.point.items() if name != "seed"}


def parameter_columns(runs: Iterable[Run]) -> dict[str, str]:
    """Swept parameter -> its column; one that is called like another column is `parameter.NAME`."""
    names = dict.fromkeys(name for run in runs for name in point_of(run))
    return {name: f"parameter.{name}" if name in _TAKEN else name for name in names}


def run_table(runs: Sequence[Run], metrics: Sequence[str]) -> pd.DataFrame:
    """A row per run, failed ones too: what was asked, the state, the metrics, time and memory, the error, the executed notebook."""
    swept = parameter_columns(runs)
    columns = {metric: f"result.{metric}" if label(metric) in swept.values() else label(metric) for metric in metrics}
    rows = [_row(run, swept, columns) for run in runs]
    return frame_of(rows, [*_BEFORE, *swept.values(), *_BETWEEN, *columns.values(), *_AFTER])


def _row(run: Run, swept: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, Any]:
    point, values, error = point_of(run), run.values, run.error or {}
    return {
        "key": run.job.key,
        "run": run.job.name,
        "link": run.job.link,
        **{column: plain(point.get(name)) for name, column in swept.items()},
        "seed": seed_of(run),
        "state": run.state,
        **{column: values.get(metric) for metric, column in columns.items()},
        "seconds": run.seconds,
        "peak_memory_mb": run.peak_memory_mb,
        "attempts": len(run.attempts),
        **{f"error_{part}": error.get(part) for part in ("cell", "type", "message")},
        "executed": str(run.executed) if run.executed.exists() else None,
    }


def plain(value: Any) -> Any:
    """A swept value as one cell: a list or a mapping as JSON."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value)
