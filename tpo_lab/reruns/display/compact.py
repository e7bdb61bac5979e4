"""Tables of runs for people: short keys, one column for what went wrong, intervals in one cell, nothing that is the same everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tpo_lab.reruns.display.cells import rows_of
from tpo_lab.reruns.results.frames import frame_of

if TYPE_CHECKING:
    import pandas as pd

_INTERVALS = ("low", "high", "difference", "difference_low", "difference_high", "pairs", "interval")
_FOLDED = frozenset({"n", "of", "missing", "mean", "standard_error", *_INTERVALS})


def compact_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of runs for a terminal: short keys, one column for what went wrong, no paths, nothing that is the same everywhere."""
    short = frame.drop(columns=["run", "error_cell", "error_type", "error_message", "executed"])
    short["key"] = frame["key"].str[:8]
    short["error"] = [_problem(row) for row in rows_of(frame)]
    idle = [name for name in ("link", "seed", "attempts") if short[name].nunique(dropna=False) <= 1]
    empty = ["error"] if not any(short["error"]) else []
    return short.drop(columns=[*(name for name in idle if len(short) > 1), *empty]).rename(columns={"peak_memory_mb": "MB"})


def _problem(row: dict[str, Any]) -> str:
    told = ": ".join(str(row[part]) for part in ("error_type", "error_message") if row[part])
    return f"cell {row['error_cell']}: {told}" if row["error_cell"] is not None else told


def compact_groups(frame: pd.DataFrame, method: str) -> pd.DataFrame:
    """A table over seeds for people: n as "2 of 3", intervals in one column whose name says how they were made."""
    kept = [str(name) for name in frame.columns if name not in _FOLDED and (name != "link" or frame["link"].nunique() > 1)]
    made = ["n", "mean", "s.e.", f"95% interval ({method})", "minus baseline", "95% interval, paired", "pairs"]
    rows = [{**row, **dict(zip(made, _folded(row), strict=True))} for row in rows_of(frame)]
    return frame_of(rows, [*kept, *(made if "difference" in frame.columns else made[:4])])


def _folded(row: dict[str, Any]) -> list[Any]:
    own = [_count(row), row["mean"], row["standard_error"], _range(row["low"], row["high"])]
    difference = row.get("difference")
    pairs = None if difference is None else row["pairs"]
    return [*own, difference, _range(row.get("difference_low"), row.get("difference_high")), pairs]


def _count(row: dict[str, Any]) -> str:
    if row["n"] == row["of"]:
        return str(row["n"])
    return f"{row['n']} of {row['of']} ({row['missing']})"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4g} to {high:.4g}"
