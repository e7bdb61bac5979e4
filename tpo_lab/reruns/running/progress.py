"""How far a sweep is while it runs, and what came of it: plain data for whoever watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tpo_lab.reruns.plan.job import Job


@dataclass(frozen=True)
class Summary:
    """What came of a sweep.

    Attributes:
        out: its folder.
        name: of the sweep.
        jobs, done, failed, skipped: numbers of jobs.
        ran: jobs that ran in this call and ended, well or not.
        reused: jobs that were done before.
        seconds: wall time of this call.
        failures: of each failed job its name, cell, error and executed notebook.
    """

    out: str
    name: str
    jobs: int
    done: int
    failed: int
    skipped: int
    ran: int
    reused: int
    seconds: float
    failures: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Running:
    """A job that runs now: its name, finished cells and all cells (0 before it has begun), seconds since it was handed out."""

    name: str
    cells_done: int
    cells: int
    seconds: float


@dataclass(frozen=True)
class Progress:
    """How far a sweep is, for whoever watches.

    Attributes:
        counts: state -> number of jobs.
        running: the jobs that run now.
        ended: lines about jobs that ended since the last time.
        failures: lines about the last jobs that failed.
        seconds_left: estimated from the runs of this call; None before the first has ended.
    """

    counts: Mapping[str, int]
    running: tuple[Running, ...] = ()
    ended: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    seconds_left: float | None = None


Tell = Callable[[Progress], None]
"""Called a few times a second while a sweep runs."""


def describe(job: Job, attempt: Mapping[str, Any]) -> str:
    """One line about an attempt."""
    error = attempt.get("error")
    why = f" in cell {error['cell']}: {error['type']}: {error['message']}" if error else ""
    return " ".join(f"{attempt['state']} after {attempt['seconds']:.1f} s: {job.name}{why}".split())
