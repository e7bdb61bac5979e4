"""Finished runs go to the experiment trackers in a thread of its own: importing one takes seconds, in which workers would wait."""

from __future__ import annotations

import queue
import threading

from tpo_lab.reruns.store import Store
from tpo_lab.reruns.sweep import Sweep
from tpo_lab.reruns.tracking import log_finished, trackers_of


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
