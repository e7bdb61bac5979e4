"""The runs of a sweep as they lie on disk: what was asked, how far it came, and what came of it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpo_lab.errors import UsageError
from tpo_lab.reruns.disk.record import scalars
from tpo_lab.reruns.disk.store import Store
from tpo_lab.reruns.plan.job import Job

_OFFERED = 3


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        job: what was asked.
        folder: of the run.
        state: "waiting", "running", "done", "failed" or "skipped".
        record: done.json; None while the run is not done.
        attempts: every attempt, the first first.
        error: {"cell", "type", "message"} of a failed run; else None.
    """

    job: Job
    folder: Path
    state: str
    record: dict[str, Any] | None
    attempts: list[dict[str, Any]]
    error: dict[str, Any] | None

    @property
    def executed(self) -> Path:
        """The notebook as it ran; may not be there yet."""
        return self.folder / "executed.ipynb"

    @property
    def seconds(self) -> float | None:
        """Wall time of the run that was done, or of the last attempt."""
        last = self.record or (self.attempts[-1] if self.attempts else {})
        return last.get("seconds")

    @property
    def peak_memory_mb(self) -> float | None:
        """The most memory that its kernel held, in MiB."""
        return None if self.record is None else self.record.get("peak_memory_mb")

    @property
    def values(self) -> dict[str, Any]:
        """Every scalar of the result record under its dotted name."""
        return scalars((self.record or {}).get("result") or {})

    @property
    def problem(self) -> str:
        """What went wrong, in one line; "" where nothing did."""
        if self.error is None:
            return ""
        cell = self.error.get("cell")
        told = ": ".join(str(part) for part in (self.error.get("type"), self.error.get("message")) if part)
        return " ".join((f"cell {cell}: {told}" if cell is not None else told).split())


def is_sweep(folder: Path) -> bool:
    """Whether a folder holds a sweep."""
    return (folder / "sweep.json").is_file()


def sweep_of(folder: Path) -> dict[str, Any]:
    """The resolved sweep and its environment, as sweep.json says them.

    Raises:
        UsageError: the folder holds no sweep.
    """
    if not is_sweep(folder):
        hint = "`tpo-lab rerun SWEEP.yaml --out DIR` makes one."
        raise UsageError("DIR", expected="the folder of a sweep, with sweep.json in it", got=str(folder), hint=hint)
    found: dict[str, Any] = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    return found


def runs_in(folder: Path) -> list[Run]:
    """Every run of the sweep in its order; runs of an older version of the sweep file are left out.

    Raises:
        UsageError: the folder holds no sweep.
    """
    sweep_of(folder)
    store = Store(folder)
    return [
        Run(job, folder / "jobs" / job.key, store.state(job), store.record(job.key), store.attempts(job.key), store.error(job.key))
        for job in store.jobs()
    ]


def find_run(folder: Path, name: str) -> Run:
    """The run with this key, start of a key, or name.

    Raises:
        UsageError: none or several fit.
    """
    runs = runs_in(folder)
    fitting = list(_fitting(runs, name))
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        keys = ", ".join(run.job.key for run in fitting[:_OFFERED]) + (", ..." if len(fitting) > _OFFERED else "")
        raise UsageError("KEY", expected=f"one run; {len(fitting)} begin so: {keys}", got=name)
    known = {each: run for run in runs for each in (run.job.name, run.job.key)}
    close = difflib.get_close_matches(name, known, n=_OFFERED, cutoff=0.5)
    near = [f"{run.job.name!r} ({run.job.key[:8]})" for run in [known[each] for each in close] or runs[:1]]
    expected = "a key, a unique start of one, or a run's name"
    raise UsageError("KEY", expected=expected, got=name, hint=f"Did you mean {' or '.join(near)}?" if near else "The sweep has no runs.")


def _fitting(runs: list[Run], name: str) -> Iterator[Run]:
    exact = [run for run in runs if name in (run.job.key, run.job.name)]
    yield from exact or [run for run in runs if name and run.job.key.startswith(name)]
