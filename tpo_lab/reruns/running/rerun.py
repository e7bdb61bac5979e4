"""A sweep from its first job to its last: what is done is not run again, what failed is tried again, Ctrl-C stops cleanly."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tpo_lab.errors import UsageError
from tpo_lab.interrupt import stop_on_interrupt
from tpo_lab.lock import Lock
from tpo_lab.notebooks import require_extra
from tpo_lab.reruns.disk.store import Store
from tpo_lab.reruns.plan.job import Job
from tpo_lab.reruns.plan.sweep import Sweep
from tpo_lab.reruns.running.loop import Loop
from tpo_lab.reruns.running.progress import Summary, Tell
from tpo_lab.reruns.running.sources import source_of
from tpo_lab.reruns.running.tracking import trackers_of
from tpo_lab.reruns.workers.executor import Executor
from tpo_lab.reruns.workers.local import LocalExecutor
from tpo_lab.reruns.workers.slots import default_workers


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
        workers: how many jobs run side by side on this machine; see `tpo_lab.reruns.workers.slots.default_workers`.
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
            return Loop(read, store, source, executor, retries, tell, stopped).run()


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


def _executor(store: Store, workers: int | None, scheduler: str | None) -> Executor:
    if scheduler is not None:
        from tpo_lab.reruns.workers.cluster import DaskExecutor

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
