"""One job in this process: wait until its folder is free, run its notebook within its limits, and write down what came of it."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tpo_lab import notebooks
from tpo_lab.errors import TPOError
from tpo_lab.lock import Lock
from tpo_lab.notebooks.cells import JOB
from tpo_lab.notebooks.execution import NotebookError, RunStopped
from tpo_lab.reruns.disk.folder import JobFolder, lives, process
from tpo_lab.reruns.plan.keys import code_version_on_disk
from tpo_lab.reruns.workers.executor import Task

ORPHAN_SEC = 15.0
"""How long a kernel whose worker is gone may still hold a job before it is killed."""
_GIB = 1 << 30


def run_job(task: Task, *, worker: str = "", watch: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Run one job and write everything that is kept of it.

    Args:
        task: what to run.
        worker: a name for who runs it.
        watch: called a few times a second; a `RunStopped` that it raises stops the run.

    Returns:
        The attempt, as attempts.jsonl has it; with "reused": True where the job turned out to be done.

    Raises:
        RunStopped: `watch` raised it before the run began.
    """
    watch()
    folder = JobFolder(Path(task.folder))
    with Lock(folder.lock) as lock:
        _wait(folder, lock, watch)
        if folder.settle():
            return {**(folder.attempts() or [{"state": "done"}])[-1], "reused": True}
        folder.bury()
        folder.drop_result()
        note = folder.begin(worker)
        try:
            state, error = _Attempt(task, folder, note, lock, watch).run()
        finally:
            _end_group(note)
        return folder.end(note, state, error=error)


def _wait(folder: JobFolder, lock: Lock, watch: Callable[[], None]) -> None:
    """Take the lock. The kernel of a killed worker is killed if it does not end by itself; any other holder is waited for."""
    while not lock.wait(ORPHAN_SEC, watch):
        note = folder.running() or {}
        is_orphan = note.get("host") == platform.node() and not lives(note.get("worker_pid"), note.get("worker_started"))
        if is_orphan and lives(note.get("kernel_pid"), note.get("kernel_started")):
            _end_group(note)


def _end_group(note: Mapping[str, Any]) -> None:
    """Kill the kernel and whatever it has started and left behind: each kernel leads a process group of its own."""
    if os.name == "posix" and note.get("kernel_pid"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(note["kernel_pid"], signal.SIGKILL)


class _Attempt:
    """One attempt at a job."""

    def __init__(self, task: Task, folder: JobFolder, note: dict[str, Any], lock: Lock, watch: Callable[[], None]) -> None:
        self.task, self.folder, self.note, self.lock, self.watch = task, folder, note, lock, watch
        self.job = folder.job()
        self.began = time.monotonic()
        self.stopped_in = 0

    def run(self) -> tuple[str, dict[str, Any] | None]:
        """The state that it ended in, and what went wrong."""
        try:
            self.execute()
        except RunStopped as stopped:
            return self.stopped(stopped)
        except NotebookError as error:
            return self.failed(error.kind, error.reason, error.cell)
        except Exception as error:
            # a wrong parameter or a full disk fails this job and leaves the worker to the others
            return self.failed(type(error).__name__, str(error), 0)
        return "done", None

    def execute(self) -> None:
        """Run the notebook.

        Raises:
            TPOError: it showed no result of this job, or the code is another than the key says.
        """
        if self.task.code and self.task.code != code_version_on_disk():
            raise TPOError("The code of tpo_lab has changed since the sweep was started. The same command starts it anew.")
        out = {"out": str(self.folder.path)} if "out" in notebooks.parameters(Path(self.task.notebook)) else {}
        notebooks.execute(
            Path(self.task.notebook),
            self.folder.executed,
            {**self.job.values, **self.task.brought, **out},
            env={**self.task.env, JOB: self.job.key},
            log=self.folder.log,
            pass_fds=self.lock.fds,
            on_kernel=self.on_kernel,
            on_cell=self.on_cell,
            on_poll=self.on_poll,
        )
        if self.folder.result() is None:
            raise TPOError("The notebook wrote no result.json with `emit(out, ...)` in its last cell.")

    def stopped(self, stopped: RunStopped) -> tuple[str, dict[str, Any] | None]:
        """The run was stopped from outside or by a limit; its last cell may have been quicker."""
        if self.folder.result() is not None:
            return "done", None
        return stopped.state, {"cell": self.stopped_in, "type": "RunStopped", "message": str(stopped)}

    def failed(self, kind: str, message: str, cell: int) -> tuple[str, dict[str, Any]]:
        """A failed run is not done, whatever an early cell may have written."""
        self.folder.drop_result()
        return "failed", {"cell": cell, "type": kind, "message": message}

    def on_kernel(self, pid: int) -> None:
        """Note the kernel, for whoever finds it without its worker."""
        self.note.update({f"kernel_{name}": value for name, value in process(pid).items()})
        self.folder.note(self.note)

    def on_cell(self, done: int, total: int) -> None:
        """Note how far the notebook is."""
        self.note.update(cell=done, cells=total)
        self.folder.note(self.note)

    def on_poll(self) -> None:
        """Stop the run where somebody asks for it, or where it needs more than it may."""
        try:
            self.watch()
            self.check_limits()
        except RunStopped:
            # noted now, since the interrupted cell counts as ended later
            self.stopped_in = self.note["cell"] + 1
            raise

    def check_limits(self) -> None:
        """Raise a `RunStopped` where the run takes longer or holds more than its limits."""
        limits = self.job.limits
        if limits.minutes is not None and time.monotonic() - self.began > limits.minutes * 60:
            raise RunStopped("time", f"The run took longer than {limits.minutes:g} minutes.")
        if limits.memory_gb is not None:
            used = _resident_bytes(self.note.get("kernel_pid")) / _GIB
            if used > limits.memory_gb:
                # no time to save anything: the machine may be about to run out of memory
                message = f"The kernel held {used:.2f} GiB of memory; the limit is {limits.memory_gb:g}."
                raise RunStopped("memory", message, grace_sec=0.0)


def _resident_bytes(pid: int | None) -> int:
    """Resident memory of a kernel and of the processes that it started."""
    import psutil

    total = 0
    with suppress(psutil.Error):
        if pid is not None:
            kernel = psutil.Process(pid)
            for each in (kernel, *kernel.children(recursive=True)):
                with suppress(psutil.Error):
                    total += each.memory_info().rss
    return total
