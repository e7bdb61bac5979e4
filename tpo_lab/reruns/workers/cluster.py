"""Jobs on the workers of a Dask cluster, such as dask-jobqueue makes from SLURM or PBS and dask-kubernetes from pods.

Dask itself hands a job whose worker was killed to another worker. Jobs and results travel as files in a folder that all machines see.
"""

from __future__ import annotations

import queue
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tpo_lab.errors import MissingExtraError, TPOError, UsageError
from tpo_lab.notebooks.execution import GRACE_SEC, RunStopped, require_extra
from tpo_lab.reruns.plan.keys import code_version
from tpo_lab.reruns.workers.attempt import run_job
from tpo_lab.reruns.workers.executor import Ended, Task
from tpo_lab.reruns.workers.session import Leash, Session, seen

_CONNECT_SEC = 15
_END_SEC = 10.0
# network file systems show a new file late
_SEE_SEC = 5.0


class DaskExecutor:
    """The workers of a Dask scheduler; each of their threads takes one job, so workers are best started with one thread.

    Args:
        scheduler: its address, such as tcp://node1:8786.
        out: folder of the sweep, which every worker must see under the same path.

    Raises:
        MissingExtraError: dask.distributed is not installed.
        UsageError: no scheduler answers there, it has no workers, or a worker cannot run these jobs.
    """

    def __init__(self, scheduler: str, out: Path) -> None:
        require_extra()
        if find_spec("distributed") is None:
            raise MissingExtraError("distributed", "dask", "Running a sweep on a Dask cluster")
        from distributed import Client

        self._out = out
        try:
            self._client: Any = Client(scheduler, timeout=_CONNECT_SEC, set_as_default=False)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            expected = "the address of a Dask scheduler that runs, such as tcp://node1:8786"
            raise UsageError("scheduler", expected=expected, got=scheduler, hint=f"{error}.") from None
        self._session = Session(out)
        self._ended: queue.Queue[Any] = queue.Queue()
        self._running: dict[str, Any] = {}
        try:
            self._check(scheduler)
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        """How many jobs run at the same time."""
        return max(int(sum(self._client.nthreads().values())), 1)

    @property
    def free(self) -> int:
        """How many more jobs the workers can take at once; workers may come and go."""
        return self.slots - len(self._running)

    def submit(self, task: Task) -> None:
        """Hand a job to the scheduler."""
        # a key of its own for each attempt: Dask remembers what it has computed under a key
        name = f"{task.key}-{time.monotonic_ns()}"
        future: Any = self._client.submit(run_remote, task.to_dict(), str(self._out), self._session.name, key=name, pure=False)
        self._running[task.key] = future
        future.add_done_callback(lambda _, key=task.key: self._ended.put(key))

    def poll(self, timeout: float) -> list[Ended]:
        """What ended since the last call; waits so many seconds for the first."""
        self._session.beat()
        ended = []
        with suppress(queue.Empty):
            while True:
                key = self._ended.get(timeout=timeout)
                timeout = 0.0
                ended += [] if key not in self._running else [self._outcome(key, self._running.pop(key))]
        return ended

    def stop(self) -> list[Ended]:
        """Interrupt all that runs and wait until it has saved its state; jobs that no worker has begun do not begin."""
        self._session.stop()
        until, ended = time.monotonic() + GRACE_SEC + _END_SEC, []
        while self._running and time.monotonic() < until:
            ended += self.poll(0.2)
        return ended

    def close(self) -> None:
        """Leave the cluster. Jobs that still run notice that their sweep is gone."""
        self._session.end()
        with suppress(Exception):
            self._client.cancel(list(self._running.values()))
        self._client.close(timeout=_END_SEC)

    def _outcome(self, key: str, future: Any) -> Ended:
        if future.status == "finished":
            return Ended(key, future.result())
        if future.status == "error" and not _is_loss(future.exception()):
            raise TPOError(f"A worker of the Dask cluster failed: {type(future.exception()).__name__}: {future.exception()}")
        return Ended(key, None, lost=True)

    def _check(self, scheduler: str) -> None:
        """See that there are workers, that they see the folder, and that they have the same code."""
        if not self._client.nthreads():
            with suppress(TimeoutError):
                self._client.wait_for_workers(1, timeout=_CONNECT_SEC)
        try:
            found = self._client.run(problem, str(self._out), self._session.name, code_version())
        except ImportError as error:
            found = {"worker": f"it cannot import tpo_lab ({error})"}
        if not found:
            raise UsageError("scheduler", expected="a Dask scheduler with workers", got=scheduler)
        for worker, wrong in found.items():
            if wrong:
                raise UsageError("scheduler", expected="workers that can run the sweep", got=worker, hint=f"There, {wrong}.")


def problem(out: str, session: str, code: str) -> str:
    """Why this process cannot run jobs of a sweep; "" where it can."""
    until = time.monotonic() + _SEE_SEC
    while seen(Path(out)).get("session") != session and time.monotonic() < until:
        time.sleep(0.2)
    if seen(Path(out)).get("session") != session:
        return f"the folder {out} is not the same: a file system that all machines share is needed"
    missing = [module for module in ("papermill", "ipykernel") if find_spec(module) is None]
    if missing:
        return f"{missing[0]} is not installed"
    return "" if code_version() == code else "tpo_lab is another version"


def run_remote(task: dict[str, Any], out: str, session: str) -> dict[str, Any] | None:
    """What a Dask worker does: run one job as long as its sweep lives.

    Returns:
        The attempt; None where the sweep was over before it began.
    """
    from distributed import get_worker

    try:
        return run_job(Task(**task), worker=str(get_worker().name), watch=Leash(Path(out), session))
    except RunStopped:
        return None


def _is_loss(error: BaseException | None) -> bool:
    return type(error).__name__ in ("KilledWorker", "CancelledError", "FutureCancelledError")
