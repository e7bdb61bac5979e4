"""What one call of `rerun` remembers of its jobs: which ran, how long they took, what there is to say, and how far the sweep is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tpo_lab.reruns.disk.store import Store, has_failed
from tpo_lab.reruns.plan.job import Job
from tpo_lab.reruns.running.agenda import Agenda
from tpo_lab.reruns.running.progress import Progress, Running, Summary, describe
from tpo_lab.reruns.workers.executor import Executor

_LAST_ENDED = 5


class Account:
    """What a call of `rerun` remembers.

    Args:
        store: the folder of the sweep.
        agenda: the jobs with their states.

    Attributes:
        reused: keys of jobs that were done before.
    """

    def __init__(self, store: Store, agenda: Agenda) -> None:
        self.reused: set[str] = set()
        self._store, self._agenda = store, agenda
        self._began = time.monotonic()
        self._handed: dict[str, float] = {}
        self._ran: set[str] = set()
        self._took: list[float] = []
        self._lines: list[str] = []
        self._failures: dict[str, str] = {}

    def hand_out(self, key: str) -> None:
        """A job goes to a worker now."""
        self._handed[key] = time.monotonic()

    def say(self, line: str) -> None:
        """A line for whoever watches."""
        self._lines.append(line)

    def note(self, job: Job, attempt: dict[str, Any]) -> None:
        """Remember an attempt that has ended."""
        handed = self._handed.pop(job.key, None)
        if attempt.get("reused"):
            self.reused.add(job.key)
            return
        if attempt["state"] == "done" or has_failed(attempt):
            self._ran.add(job.key)
            self._took += [] if handed is None else [time.monotonic() - handed]
        what = describe(job, attempt)
        self.say(what)
        self._failures.pop(job.key, None)
        if has_failed(attempt):
            self._failures[job.key] = what

    def progress(self, executor: Executor, *, all_known: bool) -> Progress:
        """How far the sweep is; a line is given once.

        Args:
            executor: whoever runs the jobs.
            all_known: whether no other jobs will come, so that the time that is left can be estimated.
        """
        counts = {state: self._agenda.count(state) for state in ("done", "failed", "skipped", "running", "waiting")}
        lines, self._lines = tuple(self._lines), []
        seconds_left = self._seconds_left(executor) if self._took and all_known else None
        return Progress(counts, tuple(self._running()), lines, tuple(self._failures.values())[-_LAST_ENDED:], seconds_left)

    def summary(self, name: str) -> Summary:
        """What came of the sweep of this name."""
        failed = [job for key, job in self._agenda.jobs.items() if self._agenda.states[key] == "failed"]
        return Summary(
            out=str(self._store.out),
            name=name,
            jobs=len(self._agenda.jobs),
            **{state: self._agenda.count(state) for state in ("done", "failed", "skipped")},
            ran=len(self._ran),
            reused=len(self.reused),
            seconds=round(time.monotonic() - self._began, 3),
            failures=[self._failure(job) for job in failed],
        )

    def _running(self) -> Iterator[Running]:
        """The jobs that are with a worker."""
        for key, state in self._agenda.states.items():
            if state == "running":
                note = self._store.folder(key).running() or {}
                seconds = time.monotonic() - self._handed[key]
                yield Running(self._agenda.jobs[key].name, note.get("cell", 0), note.get("cells", 0), seconds)

    def _seconds_left(self, executor: Executor) -> float:
        """Jobs that are left, at the mean pace so far."""
        each = sum(self._took) / len(self._took)
        running = sum(max(each - run.seconds, 0.0) for run in self._running())
        return (self._agenda.count("waiting") * each + running) / max(executor.slots, 1)

    def _failure(self, job: Job) -> dict[str, Any]:
        """One failed job."""
        error = self._store.error(job.key) or {}
        told = f"{error.get('type')}: {error.get('message')}"
        return {"name": job.name, "cell": error.get("cell"), "error": told, "notebook": str(self._store.folder(job.key).executed)}
