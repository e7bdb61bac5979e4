"""What is still to do in a sweep, and in which order: jobs become ready, run, are tried again, or are skipped. No processes here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from tpo_lab.reruns.disk.store import State, has_failed
from tpo_lab.reruns.plan.job import Job

MAX_LOSSES = 3
"""How often a job may lose its worker before it counts as failed."""


class Agenda:
    """The jobs of a sweep with their states.

    Args:
        retries: how often a failed job is tried again.

    Attributes:
        states: key -> state of the jobs, in their order.
        jobs: key -> job.
    """

    def __init__(self, retries: int = 0) -> None:
        self.retries = retries
        self.jobs: dict[str, Job] = {}
        self.states: dict[str, State] = {}
        self._failures: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()

    def add(self, jobs: Iterable[Job], done: Iterable[str] = ()) -> None:
        """Put jobs on the agenda; those with a key in `done` need nothing any more."""
        finished = set(done)
        for job in jobs:
            self.jobs[job.key] = job
            self.states[job.key] = "done" if job.key in finished else "waiting"

    def next(self) -> Job | None:
        """A job that can run now: it waits, and the one that it takes from is done."""
        return next((job for key, job in self.jobs.items() if self.states[key] == "waiting" and self._is_ready(job)), None)

    def begin(self, key: str) -> None:
        """The job is with a worker."""
        self.states[key] = "running"

    def end(self, key: str, attempt: dict[str, Any]) -> None:
        """The job has left its worker with this attempt."""
        if attempt["state"] == "done":
            self.states[key] = "done"
        elif has_failed(attempt):
            self._failures[key] += 1
            self._again(key, self._failures[key] <= self.retries)
        else:
            self.states[key] = "waiting"

    def lose(self, key: str) -> bool:
        """The job has lost its worker; whether that may happen once more."""
        self._losses[key] += 1
        may = self._losses[key] < MAX_LOSSES
        self._again(key, may)
        return may

    def put_back(self, key: str) -> None:
        """The job did not begin."""
        self.states[key] = "waiting"

    @property
    def is_done(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not {"waiting", "running"} & set(self.states.values())

    def count(self, state: State) -> int:
        """How many jobs are in a state."""
        return sum(each == state for each in self.states.values())

    def _is_ready(self, job: Job) -> bool:
        return job.after is None or self.states[job.after] == "done"

    def _again(self, key: str, may: bool) -> None:
        self.states[key] = "waiting" if may else "failed"
        if not may:
            self._skip_after(key)

    def _skip_after(self, key: str) -> None:
        for job in self.jobs.values():
            if job.after == key and self.states[job.key] == "waiting":
                self.states[job.key] = "skipped"
                self._skip_after(job.key)
