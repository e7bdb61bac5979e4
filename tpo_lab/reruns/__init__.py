"""Notebooks rerun by the hundred: a sweep file becomes jobs, workers run them, and a table collects their results.

Not here: what one run of one notebook is (`tpo_lab.notebooks`). The names below are imported when they are first used.
`plan` is the module: its function is `tpo_lab.reruns.plan.plan`, or `Planner(sweep).jobs()`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tpo_lab.reruns.collected import Run, runs_in
    from tpo_lab.reruns.job import Job, Limits
    from tpo_lab.reruns.plan import Planner, baseline_of, jobs_of
    from tpo_lab.reruns.progress import Summary
    from tpo_lab.reruns.search import Study
    from tpo_lab.reruns.store import Store
    from tpo_lab.reruns.sweep import Sweep
    from tpo_lab.reruns.sweeping import rerun
    from tpo_lab.reruns.table import Grouped, grouped_table, run_table

_HOME = {
    "Grouped": "table",
    "Job": "job",
    "Limits": "job",
    "Planner": "plan",
    "Run": "collected",
    "Store": "store",
    "Study": "search",
    "Summary": "progress",
    "Sweep": "sweep",
    "baseline_of": "plan",
    "grouped_table": "table",
    "jobs_of": "plan",
    "rerun": "sweeping",
    "run_table": "table",
    "runs_in": "collected",
}

__all__ = [
    "Grouped",
    "Job",
    "Limits",
    "Planner",
    "Run",
    "Store",
    "Study",
    "Summary",
    "Sweep",
    "baseline_of",
    "grouped_table",
    "jobs_of",
    "rerun",
    "run_table",
    "runs_in",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tpo_lab.reruns' has no attribute {name!r}; it has {', '.join(sorted(_HOME))}")
    return getattr(import_module(f"tpo_lab.reruns.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
