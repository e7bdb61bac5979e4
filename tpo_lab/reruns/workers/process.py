"""A long-lived worker process: jobs come in as lines of JSON, what came of them goes out. It ends when its parent is gone.

Started by `local` as `python -m tpo_lab.reruns.workers.process NAME`. Papermill is imported once, kernels are started per job.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import IO, Any

from tpo_lab.notebooks.execution import RunStopped
from tpo_lab.reruns.workers.attempt import run_job
from tpo_lab.reruns.workers.executor import Task

_ORPHAN_GRACE_SEC = 5.0


class _Orders:
    """What the parent asks for, read from standard input in a thread of its own.

    Attributes:
        tasks: jobs to run; None at the end.
        stopped: the parent wants no more.
        orphaned: the parent is gone.
    """

    def __init__(self, source: IO[str]) -> None:
        self.tasks: queue.Queue[Task | None] = queue.Queue()
        self.stopped, self.orphaned = threading.Event(), threading.Event()
        threading.Thread(target=self._read, args=(source,), daemon=True).start()

    def _read(self, source: IO[str]) -> None:
        for line in source:
            order = json.loads(line)
            if order == "stop":
                self.stopped.set()
                self.tasks.put(None)
            else:
                self.tasks.put(Task(**order))
        self.orphaned.set()
        self.tasks.put(None)

    def watch(self) -> None:
        """Stop the run that is going on where nobody wants it any more."""
        if self.stopped.is_set():
            raise RunStopped("interrupted", "The sweep was stopped.")
        if self.orphaned.is_set():
            raise RunStopped("interrupted", "The sweep was killed.", grace_sec=_ORPHAN_GRACE_SEC)


def main(name: str) -> None:
    """Serve until the parent says stop or is gone."""
    # whatever a library prints must not run into the answers
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    orders = _Orders(sys.stdin)
    import papermill  # noqa: F401

    _say(answers, {"ready": name})
    while (task := orders.tasks.get()) is not None:
        try:
            attempt: dict[str, Any] | None = run_job(task, worker=name, watch=orders.watch)
        except RunStopped:
            attempt = None
        _say(answers, {"key": task.key, "attempt": attempt})


def _say(answers: IO[str], message: dict[str, Any]) -> None:
    try:
        print(json.dumps(message), file=answers, flush=True)
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
