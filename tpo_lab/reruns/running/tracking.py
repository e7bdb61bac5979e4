"""Finished runs of a sweep in the experiment trackers: their parameters beside their figures, each run once.

It is done in a thread of its own: importing a tracker takes seconds, in which workers would wait.
"""

from __future__ import annotations

import json
import math
import queue
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tpo_lab.errors import TPOError
from tpo_lab.reruns.disk.record import HEADLINE, scalars
from tpo_lab.reruns.disk.store import Store
from tpo_lab.reruns.plan.job import Job
from tpo_lab.reruns.plan.sweep import Sweep
from tpo_lab.runs import write_json
from tpo_lab.trackers import Trackers, checked_trackers, default_trackers

MARK = "tracked.json"
"""In the folder of a run: the trackers that have it."""


class TrackerThread:
    """Takes the keys of finished runs.

    Raises:
        UsageError: the sweep names an unknown tracker.
        MissingExtraError: the package of a tracker is not installed.
    """

    def __init__(self, sweep: Sweep, store: Store) -> None:
        self._keys: queue.Queue[str | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        if trackers_of(sweep):
            self._thread = threading.Thread(target=self._log, args=(sweep, store), daemon=True)
            self._thread.start()

    def follow(self, key: str) -> None:
        """Log this run soon."""
        self._keys.put(key)

    def finish(self) -> None:
        """Wait until all are logged."""
        if self._thread is not None:
            self._keys.put(None)
            self._thread.join()

    def _log(self, sweep: Sweep, store: Store) -> None:
        while (key := self._keys.get()) is not None:
            log_finished(sweep, store, key)


def trackers_of(sweep: Sweep) -> tuple[str, ...]:
    """The trackers of a sweep: those that it names, or TensorBoard where it names none and it is installed.

    Raises:
        UsageError: an unknown name.
        MissingExtraError: the package of a tracker that the sweep names is not installed.
    """
    return default_trackers() if sweep.trackers is None else checked_trackers(sweep.trackers)


def log_finished(sweep: Sweep, store: Store, key: str) -> None:
    """Log a run to the sweep's trackers, where it is done and they do not have it yet; TensorBoard's files lie in `OUT/tensorboard`.

    It may be called for the same run again, so that runs are made up for that were done when a sweep was killed. A tracker that
    fails gives a warning and never stops a sweep.
    """
    record, mark = store.record(key), store.folder(key).path / MARK
    if record is None:
        return
    try:
        new = [name for name in trackers_of(sweep) if name not in _marked(mark)]
        logged = log_run(store.job(key), record, names=new, folder=store.out, project=sweep.name) if new else ()
    except TPOError as error:
        warnings.warn(f"The run {store.job(key).name} was not tracked. {error}", stacklevel=2)
        return
    if logged:
        write_json(mark, sorted({*_marked(mark), *logged}))


def log_run(job: Job, record: Mapping[str, Any], *, names: tuple[str, ...] | list[str], folder: Path, project: str) -> tuple[str, ...]:
    """Log the parameters and figures of one finished run.

    Args:
        record: its done.json.
        names: of the trackers.
        folder: where those that write files put them.
        project: what the run belongs to.

    Returns:
        The trackers that took it.

    Raises:
        TPOError: a tracker could not be started.
    """
    trackers = Trackers(names, folder, project=project, run=f"{job.name.replace('/', '_')} {job.key[:8]}")
    seed = {} if job.seed is None else {"seed": job.seed}
    trackers.log_parameters({"link": job.link, **job.values, **job.point, **seed}, figures(record))
    taken = trackers.names
    trackers.finish()
    return taken


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """What a finished run is judged by: the finite numbers of its headline, its wall seconds and peak memory."""
    headline = (record.get("result") or {}).get(HEADLINE)
    of_run = {name: record.get(name) for name in ("seconds", "peak_memory_mb")}
    numbers = {**(scalars(headline) if isinstance(headline, Mapping) else {}), **of_run}
    return {name: float(value) for name, value in numbers.items() if isinstance(value, (bool, int, float)) and math.isfinite(value)}


def _marked(mark: Path) -> list[str]:
    found: list[str] = json.loads(mark.read_text(encoding="utf-8")) if mark.exists() else []
    return found
