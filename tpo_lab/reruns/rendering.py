"""Tables of runs as CSV, Markdown, LaTeX (booktabs) and plain cells. Not here: the web page (`tpo_lab.reruns.page`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import UsageError
from tpo_lab.reruns.frames import frame_of

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("table", "csv", "parquet", "markdown", "latex", "html")
_SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".md": "markdown", ".tex": "latex", ".html": "html", ".htm": "html", ".txt": "table"}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def format_of(path: Path) -> str:
    """The format that a file's name asks for.

    Raises:
        UsageError: none is known by this ending.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError("--out", expected=f"a file that ends in {', '.join(_SUFFIXES)}", got=path.name, hint="Or say --format.")
    return _SUFFIXES[path.suffix.lower()]


def cell(value: Any) -> str:
    """A value as a person reads it: four digits of a number, nothing where there is none."""
    if is_absent(value):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    # NumPy's float64 is a float, too
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def is_absent(value: Any) -> bool:
    """Whether a cell is empty: None, NaN, or pandas' own missing value."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value))


def rows_of(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows as plain values, for JSON: None where a cell is empty."""
    for row in frame.to_dict("records"):
        values = {str(name): None if is_absent(value) else value for name, value in row.items()}
        yield {name: value.item() if value is not None and hasattr(value, "item") else value for name, value in values.items()}


def numeric_columns(frame: pd.DataFrame) -> set[str]:
    """Columns that hold nothing but numbers."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return {name for name in frame.columns if is_numeric_dtype(frame[name]) and not is_bool_dtype(frame[name])}


def to_csv(frame: pd.DataFrame) -> str:
    """Comma-separated, numbers with all their digits."""
    return str(frame.to_csv(index=False))


def to_markdown(frame: pd.DataFrame, note: str = "") -> str:
    """A Markdown table; numbers stand to the right.

    Args:
        note: a paragraph above the table.
    """
    right = numeric_columns(frame)
    heads = [str(name) for name in frame.columns]
    rule = ["---:" if name in right else "---" for name in frame.columns]
    lines = [heads, rule, *([_markdown(cell(value)) for value in row] for row in _values(frame))]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{note}\n\n{table}\n" if note else f"{table}\n"


def _markdown(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(escaped.split())


def to_latex(frame: pd.DataFrame, note: str = "") -> str:
    """A LaTeX tabular with the rules of the package booktabs.

    Args:
        note: a comment above the table.
    """
    right = numeric_columns(frame)
    columns = "".join("r" if name in right else "l" for name in frame.columns)
    lines = [" & ".join(map(latex_text, row)) + r" \\" for row in ([str(name) for name in frame.columns], *_cells(frame))]
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}"]
    return "\n".join([f"% {' '.join(note.split())}", *body] if note else body) + "\n"


def latex_text(text: str) -> str:
    """A text in which nothing is read as a command."""
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def _values(frame: pd.DataFrame) -> Iterator[Sequence[Any]]:
    return iter(frame.itertuples(index=False, name=None))


def _cells(frame: pd.DataFrame) -> Iterator[list[str]]:
    return ([cell(value) for value in row] for row in _values(frame))


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


_INTERVALS = ("low", "high", "difference", "difference_low", "difference_high", "pairs", "interval")
_FOLDED = frozenset({"n", "of", "missing", "mean", "standard_error", *_INTERVALS})


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
