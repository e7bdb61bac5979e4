"""One call of `rerun`: jobs are handed out and taken back until none is left. Not here: what is remembered of them (`account`)."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from tpo_lab.errors import TPOError, UsageError
from tpo_lab.lock import Lock
from tpo_lab.notebooks.start import WORLDS
from tpo_lab.reruns.disk.record import NoSuchField, field_of
from tpo_lab.reruns.disk.store import Store
from tpo_lab.reruns.plan.job import Job
from tpo_lab.reruns.plan.keys import code_version
from tpo_lab.reruns.plan.sweep import Sweep
from tpo_lab.reruns.running.account import Account
from tpo_lab.reruns.running.agenda import Agenda
from tpo_lab.reruns.running.progress import Summary, Tell
from tpo_lab.reruns.running.sources import Source
from tpo_lab.reruns.running.tracking import TrackerThread
from tpo_lab.reruns.workers.executor import Ended, Executor, Task

POLL_SEC = 0.25


class Loop:
    """One call of `rerun`.

    Args:
        sweep: that runs.
        store: its folder.
        source: where its jobs come from.
        executor: whoever runs them.
        retries: how often a job that fails is tried again.
        tell: called a few times a second.
        stopped: set when somebody says stop.
    """

    def __init__(
        self, sweep: Sweep, store: Store, source: Source, executor: Executor, retries: int, tell: Tell, stopped: threading.Event
    ) -> None:
        self.sweep, self.store, self.source, self.executor, self.tell, self.stopped = sweep, store, source, executor, tell, stopped
        self.agenda = Agenda(retries)
        self.trackers = TrackerThread(sweep, store)
        self.code = code_version()
        self.account = Account(store, self.agenda)

    def run(self) -> Summary:
        """Hand out jobs until none is left, or until somebody says stop."""
        try:
            while not self.is_done():
                self.hand_out()
                for ended in self.executor.poll(POLL_SEC):
                    self.take_back(ended)
                self.source.hear(self.agenda.states)
                self.show()
                if self.stopped.is_set():
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            self.stop()
            raise
        self.trackers.finish()
        return self.account.summary(self.sweep.name)

    def is_done(self) -> bool:
        """Whether every job is done, failed or skipped, and no other will come. Jobs that a search asks for are put on the agenda."""
        if not self.stopped.is_set():
            waiting = self.agenda.count("waiting")
            more = self.source.more(max(self.executor.free - waiting, 0)) if not self.source.is_exhausted else []
            jobs = [job for job in more if job.key not in self.agenda.jobs]
            done = {job.key for job in jobs if self.settle(job)}
            self.account.reused |= done
            for key in done:
                self.trackers.follow(key)
            self.agenda.add(jobs, done)
            self.source.hear(self.agenda.states)
        return self.source.is_exhausted and self.agenda.is_done

    def settle(self, job: Job) -> bool:
        """Whether a job was done before. A folder in which somebody still works is left alone: its next worker looks again."""
        folder = self.store.folder(job.key)
        if folder.record() is not None:
            return True
        with Lock(folder.lock) as lock:
            return folder.result() is not None and lock.take() and folder.settle()

    def hand_out(self) -> None:
        """Give jobs to workers while there are both."""
        while self.executor.free and (job := self.agenda.next()) is not None:
            try:
                brought = self.brought(job)
            except TPOError as error:
                self.fail(job, error)
                continue
            self.agenda.begin(job.key)
            self.account.hand_out(job.key)
            self.executor.submit(self.task(job, brought))

    def task(self, job: Job, brought: dict[str, Any]) -> Task:
        """The job as a worker gets it. Runs that are given no data share the worlds that they make."""
        env = {WORLDS: os.environ.get(WORLDS) or str(self.store.out / "worlds")}
        return Task(str(self.store.folder(job.key).path), str(self.store.notebook(job)), self.code, brought, env)

    def brought(self, job: Job) -> dict[str, Any]:
        """The parameters that a job takes from the result of the one before.

        Raises:
            UsageError: that result has no such field.
        """
        record = self.store.record(job.after) if job.after is not None else None
        return {parameter: _field((record or {}).get("result", {}), dotted) for parameter, dotted in job.takes.items()}

    def fail(self, job: Job, error: TPOError) -> None:
        """A job that cannot begin."""
        folder = self.store.folder(job.key)
        with Lock(folder.lock) as lock:
            lock.wait(POLL_SEC)
            line = folder.end(folder.begin(""), "failed", error={"cell": 0, "type": type(error).__name__, "message": str(error)})
        for _ in range(self.agenda.retries + 1):
            self.agenda.end(job.key, line)
        self.note(job, line)

    def take_back(self, ended: Ended) -> None:
        """A job has left its worker."""
        job, attempt = self.agenda.jobs[ended.key], ended.attempt
        if ended.lost:
            attempt = self.lost(job)
        if attempt is None:
            if not ended.lost:
                self.agenda.put_back(job.key)
            return
        if not ended.lost:
            self.agenda.end(job.key, attempt)
        self.note(job, attempt)

    def lost(self, job: Job) -> dict[str, Any] | None:
        """Its worker was killed: it is tried again, and after too many times given up; unless it was done by then."""
        if self.settle(job):
            attempt = self.store.attempts(job.key)[-1]
            self.agenda.end(job.key, attempt)
            return attempt
        if self.agenda.lose(job.key):
            self.account.say(f"lost its worker, is tried again: {job.name}")
            return None
        message = "The worker was killed, again and again: there may be too little memory for so many workers."
        folder = self.store.folder(job.key)
        error = {"cell": (folder.running() or {}).get("cell", -1) + 1, "type": "WorkerLost", "message": message}
        with Lock(folder.lock) as lock:
            # its kernel ends when it misses its worker
            lock.wait(5.0)
            return folder.bury(error) or folder.end(folder.begin(""), "killed", error=error)

    def note(self, job: Job, attempt: dict[str, Any]) -> None:
        """Remember an attempt, and log a run that has just been done to the trackers."""
        self.account.note(job, attempt)
        if attempt["state"] == "done" and not attempt.get("reused"):
            self.trackers.follow(job.key)

    def show(self) -> None:
        """Say how far the sweep is."""
        self.tell(self.account.progress(self.executor, all_known=self.source.is_exhausted))

    def stop(self) -> None:
        """Let what runs save its state."""
        self.account.say("stopping: running jobs save their state; Ctrl-C again kills them")
        self.show()
        for ended in self.executor.stop():
            if ended.attempt is not None:
                self.agenda.end(ended.key, ended.attempt)
                self.note(self.agenda.jobs[ended.key], ended.attempt)
        self.show()
        self.trackers.finish()


def _field(record: Mapping[str, Any], dotted: str) -> Any:
    try:
        return field_of(record, dotted)
    except NoSuchField as missing:
        fields = ", ".join(missing.known) or "none"
        raise UsageError(f"takes: {dotted}", expected=f"a field of the result of the job before: {fields}", got=missing.name) from None
