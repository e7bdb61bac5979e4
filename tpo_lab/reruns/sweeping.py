"""A sweep from its first job to its last: what is done is not run again, what failed is tried again, Ctrl-C stops cleanly."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tpo_lab.errors import TPOError, UsageError
from tpo_lab.interrupt import stop_on_interrupt
from tpo_lab.notebooks import require_extra
from tpo_lab.notebooks.start import WORLDS
from tpo_lab.reruns.agenda import Agenda
from tpo_lab.reruns.executor import Ended, Executor
from tpo_lab.reruns.fields import NoSuchField, field_of
from tpo_lab.reruns.job import Job
from tpo_lab.reruns.keys import code_version
from tpo_lab.reruns.local import LocalExecutor
from tpo_lab.reruns.lock import Lock
from tpo_lab.reruns.progress import Progress, Running, Summary, Tell, describe
from tpo_lab.reruns.slots import default_workers
from tpo_lab.reruns.sources import Source, source_of
from tpo_lab.reruns.store import Store, has_failed
from tpo_lab.reruns.sweep import Sweep
from tpo_lab.reruns.tracker_thread import TrackerThread
from tpo_lab.reruns.tracking import trackers_of
from tpo_lab.reruns.worker import Task

POLL_SEC = 0.25
_LAST_ENDED = 5


def rerun(
    sweep: Sweep | Path | str,
    out: Path | str | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    retries: int = 0,
    tell: Tell = lambda progress: None,
) -> Summary:
    """Run every job of a sweep that is not done yet.

    Called again with the same sweep it goes on where it was stopped or killed, and tries failed jobs again.

    Args:
        sweep: the sweep, or the file that it is read from.
        out: its folder; `runs/NAME` where None.
        workers: how many jobs run side by side on this machine; see `tpo_lab.reruns.slots.default_workers`.
        scheduler: address of a Dask scheduler whose workers run the jobs; they must see `out` under the same path.
        retries: how often a job that fails is tried again in this call.
        tell: called a few times a second.

    Raises:
        UsageError: the sweep is wrong, or the folder cannot be used.
        MissingExtraError: a part is not installed.
        TPOError: no worker can be started.
        KeyboardInterrupt: after Ctrl-C; jobs that ran have been interrupted and have saved their training's state.
    """
    if scheduler is not None and workers is not None:
        raise UsageError("--workers", expected="one of --workers and --scheduler", got="both")
    require_extra()
    read = sweep if isinstance(sweep, Sweep) else Sweep.read(sweep)
    store = Store(folder_of(read, out))
    source = source_of(read, store)
    trackers_of(read)
    with _alone(store), stop_on_interrupt(signal.SIGTERM) as stopped:
        source.claim()
        with closing(_executor(store, workers, scheduler)) as executor:
            return _Sweeping(read, store, source, executor, retries, tell, stopped).run()


def folder_of(sweep: Sweep, out: Path | str | None) -> Path:
    """Where a sweep goes by default: `runs/NAME`."""
    return (Path("runs") / sweep.name if out is None else Path(out)).resolve()


def states_before(sweep: Sweep, out: Path | str | None = None) -> list[tuple[Job, str]]:
    """Every job of a sweep with "done" or "would run"; runs nothing and writes nothing. A search with Optuna knows none yet."""
    store = Store(folder_of(sweep, out))
    source = source_of(sweep, store)
    jobs = source.more(0)
    return [(job, "done" if _is_finished(store, job) else "would run") for job in jobs]


def _is_finished(store: Store, job: Job) -> bool:
    folder = store.folder(job.key)
    return folder.record() is not None or folder.result() is not None


class _Sweeping:
    """One call of `rerun`."""

    def __init__(
        self, sweep: Sweep, store: Store, source: Source, executor: Executor, retries: int, tell: Tell, stopped: threading.Event
    ) -> None:
        self.sweep, self.store, self.source, self.executor, self.tell, self.stopped = sweep, store, source, executor, tell, stopped
        self.agenda = Agenda(retries)
        self.trackers = TrackerThread(sweep, store)
        self.code = code_version()
        self.began = time.monotonic()
        self.handed: dict[str, float] = {}
        self.reused: set[str] = set()
        self.ran: set[str] = set()
        self.took: list[float] = []
        self.lines: list[str] = []
        self.failures: dict[str, str] = {}

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
        return self.summary()

    def is_done(self) -> bool:
        """Whether every job is done, failed or skipped, and no other will come. Jobs that a search asks for are put on the agenda."""
        if not self.stopped.is_set():
            waiting = self.agenda.count("waiting")
            more = self.source.more(max(self.executor.free - waiting, 0)) if not self.source.is_exhausted else []
            jobs = [job for job in more if job.key not in self.agenda.jobs]
            done = {job.key for job in jobs if self.settle(job)}
            self.reused |= done
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
            self.handed[job.key] = time.monotonic()
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
            self.lines.append(f"lost its worker, is tried again: {job.name}")
            return None
        message = "The worker was killed, again and again: there may be too little memory for so many workers."
        folder = self.store.folder(job.key)
        error = {"cell": (folder.running() or {}).get("cell", -1) + 1, "type": "WorkerLost", "message": message}
        with Lock(folder.lock) as lock:
            # its kernel ends when it misses its worker
            lock.wait(5.0)
            return folder.bury(error) or folder.end(folder.begin(""), "killed", error=error)

    def note(self, job: Job, attempt: dict[str, Any]) -> None:
        """Remember an attempt for the summary and for whoever watches."""
        handed = self.handed.pop(job.key, None)
        if attempt.get("reused"):
            self.reused.add(job.key)
            return
        if attempt["state"] == "done" or has_failed(attempt):
            self.ran.add(job.key)
            self.took += [] if handed is None else [time.monotonic() - handed]
        if attempt["state"] == "done":
            self.trackers.follow(job.key)
        what = describe(job, attempt)
        self.lines.append(what)
        self.failures.pop(job.key, None)
        if has_failed(attempt):
            self.failures[job.key] = what

    def show(self) -> None:
        """Say how far the sweep is."""
        counts = {state: self.agenda.count(state) for state in ("done", "failed", "skipped", "running", "waiting")}
        lines, self.lines = tuple(self.lines), []
        self.tell(Progress(counts, tuple(self.running()), lines, tuple(self.failures.values())[-_LAST_ENDED:], self.seconds_left()))

    def running(self) -> Iterator[Running]:
        """The jobs that are with a worker."""
        for key, state in self.agenda.states.items():
            if state == "running":
                note = self.store.folder(key).running() or {}
                yield Running(self.agenda.jobs[key].name, note.get("cell", 0), note.get("cells", 0), time.monotonic() - self.handed[key])

    def seconds_left(self) -> float | None:
        """Jobs that are left, at the mean pace so far."""
        if not self.took or not self.source.is_exhausted:
            return None
        each = sum(self.took) / len(self.took)
        running = sum(max(each - run.seconds, 0.0) for run in self.running())
        return (self.agenda.count("waiting") * each + running) / max(self.executor.slots, 1)

    def stop(self) -> None:
        """Let what runs save its state."""
        self.lines.append("stopping: running jobs save their state; Ctrl-C again kills them")
        self.show()
        for ended in self.executor.stop():
            if ended.attempt is not None:
                self.agenda.end(ended.key, ended.attempt)
                self.note(self.agenda.jobs[ended.key], ended.attempt)
        self.show()
        self.trackers.finish()

    def summary(self) -> Summary:
        """What came of it all."""
        failed = [job for key, job in self.agenda.jobs.items() if self.agenda.states[key] == "failed"]
        return Summary(
            out=str(self.store.out),
            name=self.sweep.name,
            jobs=len(self.agenda.jobs),
            **{state: self.agenda.count(state) for state in ("done", "failed", "skipped")},
            ran=len(self.ran),
            reused=len(self.reused),
            seconds=round(time.monotonic() - self.began, 3),
            failures=[self.failure(job) for job in failed],
        )

    def failure(self, job: Job) -> dict[str, Any]:
        """One failed job."""
        error = self.store.error(job.key) or {}
        told = f"{error.get('type')}: {error.get('message')}"
        return {"name": job.name, "cell": error.get("cell"), "error": told, "notebook": str(self.store.folder(job.key).executed)}


def _field(record: Mapping[str, Any], dotted: str) -> Any:
    try:
        return field_of(record, dotted)
    except NoSuchField as missing:
        fields = ", ".join(missing.known) or "none"
        raise UsageError(f"takes: {dotted}", expected=f"a field of the result of the job before: {fields}", got=missing.name) from None


def _executor(store: Store, workers: int | None, scheduler: str | None) -> Executor:
    if scheduler is not None:
        from tpo_lab.reruns.cluster import DaskExecutor

        return DaskExecutor(scheduler, store.out)
    return LocalExecutor(workers or default_workers(), store.out)


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """No other sweep in this folder; the lock of a killed one is gone with it.

    Raises:
        UsageError: another one runs there.
    """
    with Lock(store.lock) as lock:
        if not lock.wait(1.0):
            raise UsageError(
                "out", expected="a folder in which no other sweep runs", got=str(store.out), hint="Wait for that one, or stop it."
            )
        yield
