"""A table as CSV, Markdown, LaTeX (booktabs) or Parquet. Not here: the web page (`page`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import MissingExtraError, UsageError
from tpo_lab.reruns.display.cells import cell, numeric_columns

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


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet; a column that holds numbers beside texts is written as texts.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise MissingExtraError("pyarrow", "parquet", "Writing Parquet")
    one_type = frame.copy()
    for name in frame.columns:
        present = frame[name].dropna()
        if frame[name].dtype == object and present.map(type).nunique() > 1:
            one_type[name] = frame[name].map(lambda value: value if value is None else str(value))
    path.parent.mkdir(parents=True, exist_ok=True)
    one_type.to_parquet(path)
