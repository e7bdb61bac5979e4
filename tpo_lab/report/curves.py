"""One loss of several runs in one panel, to see which of them learns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tpo_lab.errors import unknown_name
from tpo_lab.report.charts import Panel


def curve_panel(runs: Mapping[str, Iterable[Mapping[str, Any]]], term: str, title: str = "") -> Panel:
    """A panel with one line for each run.

    Args:
        runs: name -> the lines of its metrics.jsonl, as `RunFolder.metrics()` reads them.
        term: of the objective, such as "region/l1"; steps without it are left out.
        title: of the panel; the term where empty.

    Raises:
        UsageError: a run has no such term; the message lists those it has.
    """
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for name, metrics in runs.items():
        rows = list(metrics)
        found = [(float(row["step"]), float(row[term])) for row in rows if term in row]
        if not found:
            raise unknown_name(f"term of run {name}", term, {key for row in rows for key in row})
        lines[name] = ([step for step, _ in found], [value for _, value in found])
    return Panel(title or term, lines)
