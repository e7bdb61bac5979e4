"""Notebooks rerun by the hundred: a sweep file becomes jobs, workers run them, and a table collects their results.

Six rooms, each imports only from those to its left: `plan` <- `disk` <- `workers` <- `running`, and `disk` <- `results` <- `display`. What
runs a sweep and what reads its results know nothing of each other: between them lie the files that `disk` writes.

Not here: what one run of one notebook is (`tpo_lab.notebooks`). The names below are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tpo_lab.reruns.disk.store import Store
    from tpo_lab.reruns.plan.job import Job, Limits
    from tpo_lab.reruns.plan.planner import Planner, baseline_of, jobs_of
    from tpo_lab.reruns.plan.sweep import Sweep
    from tpo_lab.reruns.results.collected import Run, runs_in
    from tpo_lab.reruns.results.grouped import Grouped, grouped_table
    from tpo_lab.reruns.results.table import run_table
    from tpo_lab.reruns.running.progress import Summary
    from tpo_lab.reruns.running.rerun import rerun
    from tpo_lab.reruns.running.study import Study

_HOME = {
    "Grouped": "results.grouped",
    "Job": "plan.job",
    "Limits": "plan.job",
    "Planner": "plan.planner",
    "Run": "results.collected",
    "Store": "disk.store",
    "Study": "running.study",
    "Summary": "running.progress",
    "Sweep": "plan.sweep",
    "baseline_of": "plan.planner",
    "grouped_table": "results.grouped",
    "jobs_of": "plan.planner",
    "rerun": "running.rerun",
    "run_table": "results.table",
    "runs_in": "results.collected",
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
