"""Worker processes of this machine: they live on, are replaced when they are killed, and end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reruns.small_jobs import BEGIN, FINISH, MARK, job_of, none_left, processes, running_notes, task_of, wait_for
from tpo_lab.errors import TPOError
from tpo_lab.reruns.disk.folder import JobFolder
from tpo_lab.reruns.disk.store import Store
from tpo_lab.reruns.running.rerun import rerun
from tpo_lab.reruns.workers import local
from tpo_lab.reruns.workers.executor import Ended
from tpo_lab.reruns.workers.local import LocalExecutor

WAIT = """try:
    (Path(out) / "waiting").touch()
    time.sleep(300)
finally:
    (Path(out) / "saved").touch()
"""
ONCE = "if len(events.read_text().split()) == 1: time.sleep(300)"


@pytest.fixture(autouse=True)
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("papermill", reason="papermill is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    monkeypatch.setenv(MARK, str(tmp_path))
    yield str(tmp_path)
    # this very process does not count itself: what the system shows is the environment of its start
    assert none_left(str(tmp_path))


def polled(executor: LocalExecutor, number: int) -> list[Ended]:
    ended: list[Ended] = []
    until = time.monotonic() + 120
    while len(ended) < number:
        ended += executor.poll(0.25)
        assert time.monotonic() < until
    return ended


def test_a_worker_takes_one_job_after_the_other(tmp_path: Path, write_notebook):
    look = "(Path(out) / 'seen').write_text(f'{os.getppid()} {os.environ[\"OMP_NUM_THREADS\"]}')"
    notebook = write_notebook("small.ipynb", BEGIN, look, FINISH)
    tasks = [task_of(tmp_path, job_of(letter * 16, notebook=notebook)) for letter in "abc"]
    executor = LocalExecutor(1, tmp_path)
    try:
        for task in tasks:
            assert executor.free == 1
            executor.submit(task)
            assert executor.free == 0
            [ended] = polled(executor, 1)
            assert ended.key == task.key and ended.attempt is not None and ended.attempt["worker"] == "local-0" and not ended.lost
    finally:
        executor.close()
    seen = {(Path(task.folder) / "seen").read_text() for task in tasks}
    assert len(seen) == 1 and seen.pop().split()[1] == local.environments(1)[0]["OMP_NUM_THREADS"]


def test_a_killed_worker_is_replaced_and_its_job_runs_again(tmp_path: Path, write_notebook, write_sweep):
    write_notebook("small.ipynb", BEGIN, f"if count == 1:\n    {ONCE}", FINISH)
    sweep = write_sweep("notebook: ./small.ipynb\ngrid: {count: [1, 2, 3]}\ntrackers: []\n")
    out, killed = tmp_path / "out", []

    def kill_the_first(_: object) -> None:
        for note in running_notes(out):
            if not killed and note["cell"] >= 3 and Store(out).job(note["key"]).point["count"] == 1:
                killed.append(note)
                os.kill(note["worker_pid"], signal.SIGKILL)

    done = rerun(sweep, out, workers=2, tell=kill_the_first)
    assert killed and (done.done, done.failed, done.ran) == (3, 0, 3)
    store = Store(out)
    attempts = {job.point["count"]: store.attempts(job.key) for job in store.jobs()}
    assert [each["state"] for each in attempts[1]] == ["killed", "done"]
    assert [[each["state"] for each in attempts[count]] for count in (2, 3)] == [["done"], ["done"]]


def test_a_job_that_loses_every_worker_is_given_up(tmp_path: Path, write_notebook, write_sweep):
    write_notebook("small.ipynb", BEGIN, "import signal\nif count == 1: os.kill(os.getppid(), signal.SIGKILL); time.sleep(300)", FINISH)
    done = rerun(write_sweep("notebook: ./small.ipynb\ngrid: {count: [1, 2]}\ntrackers: []\n"), tmp_path / "out", workers=1)
    assert (done.done, done.failed) == (1, 1)
    assert done.failures[0]["error"].startswith("WorkerLost: The worker was killed, again and again")
    store = Store(tmp_path / "out")
    job = next(job for job in store.jobs() if job.point["count"] == 1)
    assert [each["state"] for each in store.attempts(job.key)] == ["killed"] * 3 and store.state(job) == "failed"


def test_memory_stops_one_run_alone(tmp_path: Path, write_notebook, write_sweep):
    eats = "if count == 2: eaten = bytearray(700 << 20); eaten[::4096] = b'x' * len(eaten[::4096]); time.sleep(300)"
    write_notebook("small.ipynb", BEGIN, eats, FINISH)
    sweep = write_sweep("notebook: ./small.ipynb\ngrid: {count: [1, 2, 3, 4]}\nlimits: {memory_gb: 0.5}\ntrackers: []\n")
    done = rerun(sweep, tmp_path / "out", workers=2)
    assert (done.done, done.failed) == (3, 1)
    assert done.failures[0]["name"] == "small count=2" and "GiB of memory; the limit is 0.5" in done.failures[0]["error"]


def test_a_stop_interrupts_and_leaves_nothing_behind(tmp_path: Path, write_notebook):
    task = task_of(tmp_path, job_of(notebook=write_notebook("small.ipynb", BEGIN, WAIT, FINISH)))
    executor = LocalExecutor(2, tmp_path)
    try:
        executor.submit(task)
        wait_for((Path(task.folder) / "waiting").exists)
        [ended] = executor.stop()
    finally:
        executor.close()
    assert ended.attempt is not None and ended.attempt["state"] == "interrupted" and (Path(task.folder) / "saved").exists()


def test_workers_end_with_their_parent(tmp_path: Path, write_notebook, mark: str):
    task = task_of(tmp_path, job_of(notebook=write_notebook("small.ipynb", BEGIN, WAIT, FINISH)))
    code = f"""
from pathlib import Path
from tpo_lab.reruns.workers.local import LocalExecutor
from tpo_lab.reruns.workers.executor import Task
executor = LocalExecutor(2, Path({str(tmp_path)!r}))
executor.submit(Task(**{task.to_dict()!r}))
while True: executor.poll(1.0)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    wait_for((Path(task.folder) / "waiting").exists)
    parent.kill()
    parent.wait()
    assert none_left(mark) and (Path(task.folder) / "saved").exists()
    assert [each["state"] for each in JobFolder(Path(task.folder)).attempts()] == ["interrupted"]


def test_workers_that_cannot_start_are_no_endless_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local, "_python_path", lambda: str(tmp_path))
    (tmp_path / "tpo_lab").mkdir()
    (tmp_path / "tpo_lab" / "__init__.py").write_text("raise ImportError('half an installation')")
    executor = LocalExecutor(1, tmp_path)
    try:
        with pytest.raises(TPOError, match="A worker process cannot be started: ImportError: half an installation"):
            for _ in range(240):
                executor.poll(0.25)
    finally:
        executor.close()


def test_processes_of_a_test_are_found_by_their_mark(mark: str):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert [process.pid for process in processes(mark)] == [child.pid]
    child.kill()
    child.wait()
