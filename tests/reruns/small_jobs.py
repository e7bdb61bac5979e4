"""Jobs made by hand, a notebook that writes down what happens to it, and a look at the processes of a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from tpo_lab.reruns.disk.folder import JobFolder
from tpo_lab.reruns.plan.job import Job, Limits
from tpo_lab.reruns.workers.executor import Task

MARK = "TPO_TEST_MARK"
"""Environment variable by which the processes of one test are told from those of another."""

BEGIN = """import json, os, time
from pathlib import Path
from tpo_lab.notebooks import emit
events = Path(out) / "events.txt"
with events.open("a") as file: file.write("begun\\n")
"""
FINISH = """emit(out, headline={"double": count * 2.0, "seed": seed}, checkpoint=str(Path(out) / "weights"), notebook="small")
with events.open("a") as file: file.write("finished\\n")
"""


def job_of(key: str = "a" * 16, *, after: str | None = None, takes: dict[str, str] | None = None, **values: Any) -> Job:
    limits = values.pop("limits", Limits())
    notebook = str(values.pop("notebook", "small.ipynb"))
    return Job(key, f"small {key[:2]}", "small", notebook, dict(values), None, dict(values), after, takes or {}, (), limits)


def task_of(out: Path, job: Job, **more: Any) -> Task:
    """The task of a job whose folder is made below `out`."""
    folder = JobFolder(out / "jobs" / job.key)
    folder.claim(job)
    return Task(str(folder.path), job.notebook, **more)


def events(folder: Path) -> list[str]:
    """What the notebook of a job has written down."""
    path = folder / "events.txt"
    return path.read_text().split() if path.exists() else []


HOLD = """import sys
from pathlib import Path
from tpo_lab.lock import Lock
lock = Lock(Path(sys.argv[1]))
print(lock.take(), flush=True)
input()
"""


def lock_holder(path: Path) -> subprocess.Popen[bytes]:
    """A process that holds the lock until it is ended; it leads a group of its own, as kernels do."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", HOLD, str(path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, start_new_session=True)
    assert holder.stdout is not None and holder.stdout.readline() == b"True\n"
    return holder


def wait_for(what: Callable[[], Any], patience_sec: float = 300.0) -> Any:
    """The first true value."""
    until = time.monotonic() + patience_sec
    while not (found := what()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)
    return found


def running_notes(out: Path) -> list[dict[str, Any]]:
    """running.json of each job whose first cell has ended."""
    found = []
    for path in out.glob("jobs/*/running.json"):
        try:
            note = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        found += [{**note, "key": path.parent.name}] if note["cell"] else []
    return found


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet counts."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def processes(mark: str) -> Iterator[psutil.Process]:
    """Every process that has inherited this mark and is no zombie."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue


def none_left(mark: str, patience_sec: float = 300.0) -> bool:
    """Whether all these processes end, in time."""
    wait_for(lambda: not list(processes(mark)), patience_sec)
    return True
