"""Jobs on this machine, in worker processes that live as long as the sweep."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tpo_lab.errors import TPOError
from tpo_lab.notebooks.execution import GRACE_SEC, require_extra
from tpo_lab.reruns.workers.executor import Ended, Task
from tpo_lab.reruns.workers.slots import environments

_END_SEC = 5.0
_LAST_WORDS = 2000


class LocalExecutor:
    """Worker processes, each with its share of the processor's threads and a GPU where there is one.

    A worker that is killed is replaced by a new one, and its job comes back as lost.

    Args:
        workers: how many.
        out: folder of the sweep; what the workers print goes to workers.log there.

    Raises:
        MissingExtraError: papermill or ipykernel is not installed.
    """

    def __init__(self, workers: int, out: Path) -> None:
        require_extra()
        self._events: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self._log = out / "workers.log"
        self._workers = [_Worker(f"local-{place}", env, self._log, self._events) for place, env in enumerate(environments(workers))]

    @property
    def slots(self) -> int:
        """How many jobs run at the same time."""
        return len(self._workers)

    @property
    def free(self) -> int:
        """How many workers have nothing to do."""
        return sum(worker.task is None for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Give a job to a worker that has nothing to do."""
        next(worker for worker in self._workers if worker.task is None).run(task)

    def poll(self, timeout: float) -> list[Ended]:
        """What ended since the last call; waits so many seconds for the first.

        Raises:
            TPOError: a worker cannot even be started.
        """
        ended = self._collect(timeout)
        for worker in self._workers:
            if worker.is_gone:
                if not worker.was_ready:
                    raise TPOError(f"A worker process cannot be started: {self._last_words()}")
                worker.start()
        return ended

    def stop(self) -> list[Ended]:
        """Interrupt all that runs, wait until it has saved its state, and kill what takes too long."""
        for worker in self._workers:
            worker.say("stop")
        until, ended = time.monotonic() + GRACE_SEC + _END_SEC, []
        while any(worker.task is not None for worker in self._workers) and time.monotonic() < until:
            ended += self._collect(0.2)
        return ended

    def close(self) -> None:
        """End the workers. One that still has a job is killed; its kernel notices."""
        for worker in self._workers:
            worker.end()
        for worker in self._workers:
            worker.wait(_END_SEC)

    def _collect(self, timeout: float) -> list[Ended]:
        ended = []
        with suppress(queue.Empty):
            while True:
                worker, message = self._events.get(timeout=timeout)
                timeout = 0.0
                ended += worker.heard(message)
        return ended

    def _last_words(self) -> str:
        said = self._log.read_bytes()[-_LAST_WORDS:].decode("utf-8", "replace").strip() if self._log.exists() else ""
        return said.splitlines()[-1] if said else f"nothing is said in {self._log}"


class _Worker:
    """One worker process: started, spoken to, listened to, ended.

    Attributes:
        task: the job that it has; None where it has none.
        was_ready: whether it ever answered.
        is_gone: whether its end has been heard of.
    """

    def __init__(self, name: str, env: Mapping[str, str], log: Path, events: queue.Queue[Any]) -> None:
        self.name, self.env, self.log, self._events = name, dict(env), log, events
        self.task: Task | None = None
        self.start()

    def start(self) -> None:
        """Start the process. It leads a session of its own, so that Ctrl-C in the terminal reaches the sweep alone."""
        self.was_ready, self.is_gone = False, False
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tpo_lab.reruns.workers.process", self.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # a module of the user's folder must not take the place of one of ours
                cwd=self.log.parent,
                env={**os.environ, **self.env, "PYTHONPATH": _python_path()},
                start_new_session=True,
            )
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def run(self, task: Task) -> None:
        """Hand it a job."""
        self.task = replace(task, env={**self.env, **task.env})
        self.say(self.task.to_dict())

    def say(self, order: Any) -> None:
        """Write it an order; one that is gone is found out by listening."""
        with suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def heard(self, message: dict[str, Any] | None) -> list[Ended]:
        """What an answer means; None: the process has ended."""
        if message is not None and "ready" in message:
            self.was_ready = True
            return []
        task, self.task = self.task, None
        if message is None:
            self.is_gone = True
            self._process.wait()
            return [] if task is None else [Ended(task.key, None, lost=True)]
        return [Ended(message["key"], message["attempt"])]

    def end(self) -> None:
        """Let it go: an idle one ends by itself, one with a job is killed."""
        if self.task is not None:
            with suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL) if os.name == "posix" else self._process.kill()
        with suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Wait for its end, and kill it after so many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as answers:
            for line in answers:
                with suppress(ValueError):  # a line that a kill cut short
                    self._events.put((self, json.loads(line)))
        self._events.put((self, None))


def _python_path() -> str:
    """The workers import the same tpo_lab, installed or not."""
    package = str(Path(__file__).resolve().parents[3])
    others = map(os.path.abspath, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    return os.pathsep.join(dict.fromkeys([package, *others]))
