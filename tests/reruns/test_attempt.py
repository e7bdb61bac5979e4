"""One job in this process: what it writes, how it fails, how it is stopped, and what it finds when it comes to a job that was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.reruns.small_jobs import BEGIN, FINISH, MARK, events, is_gone, job_of, lock_holder, none_left, running_notes, task_of, wait_for
from tpo_lab.notebooks.execution import RunStopped
from tpo_lab.reruns.disk.folder import JobFolder, process
from tpo_lab.reruns.plan.job import Limits
from tpo_lab.reruns.workers import attempt
from tpo_lab.reruns.workers.attempt import run_job
from tpo_lab.reruns.workers.executor import Task

WAIT = """try:
    (Path(out) / "pid").write_text(str(os.getpid()))
    time.sleep(300)
except KeyboardInterrupt:
    (Path(out) / "saved").touch()
    raise
"""
CHILD = """import subprocess, sys
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
(Path(out) / "child").write_text(str(left.pid))
"""


@pytest.fixture(autouse=True)
def extra():
    pytest.importorskip("papermill", reason="papermill is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(MARK, str(tmp_path))
    return str(tmp_path)


def folder_of(task: Task) -> JobFolder:
    return JobFolder(Path(task.folder))


def stop_when(there: Path, state: str = "interrupted", **options: Any) -> Any:
    def watch() -> None:
        if there.exists():
            raise RunStopped(state, "Enough.", **options)

    return watch


def test_a_job_leaves_result_mark_attempt_and_log(tmp_path: Path, write_notebook):
    speak = "import sys; sys.__stdout__.write('spoken by the kernel'); sys.__stdout__.flush(); assert os.environ['ASKED'] == 'yes'"
    task = task_of(
        tmp_path, job_of(notebook=write_notebook("small.ipynb", BEGIN, speak, FINISH), seed=5), env={"ASKED": "yes"}, brought={"count": 4}
    )
    attempt = run_job(task, worker="first")
    folder = folder_of(task)
    assert (attempt["number"], attempt["state"], attempt["worker"], attempt["error"]) == (1, "done", "first", None)
    assert folder.attempts() == [attempt] and events(folder.path) == ["begun", "finished"]
    done = json.loads((folder.path / "done.json").read_text())
    assert done["schema"] == "tpo_lab.job/1" and done["key"] == "a" * 16
    assert done["result"]["headline"] == {"double": 8.0, "seed": 5} and done["result"]["job"] == "a" * 16
    assert done["peak_memory_mb"] == done["result"]["peak_memory_mb"] > 20 and 0 < done["seconds"] == attempt["seconds"]
    assert "spoken by the kernel" in (folder.path / "log.txt").read_text()
    assert (folder.path / "executed.ipynb").exists() and folder.running() is None
    again = run_job(task)
    assert again["reused"] and events(folder.path) == ["begun", "finished"] and len(folder.attempts()) == 1


def test_a_failure_names_cell_and_error_and_can_be_tried_again(tmp_path: Path, write_notebook):
    fails = "if not (Path(out) / 'repaired').exists(): raise ValueError(f'boom at {count}')"
    task = task_of(tmp_path, job_of(notebook=write_notebook("small.ipynb", BEGIN, fails, FINISH), count=3))
    attempt = run_job(task)
    # cells: parameters, injected parameters, begin, the one that fails
    assert attempt["state"] == "failed" and attempt["error"] == {"cell": 4, "type": "ValueError", "message": "boom at 3"}
    assert folder_of(task).record() is None
    (Path(task.folder) / "repaired").touch()
    assert run_job(task)["state"] == "done"
    assert [each["state"] for each in folder_of(task).attempts()] == ["failed", "done"]


def test_a_failure_after_the_result_is_a_failure(tmp_path: Path, write_notebook):
    task = task_of(tmp_path, job_of(notebook=write_notebook("small.ipynb", BEGIN, FINISH, "1 / 0")))
    assert run_job(task)["error"]["type"] == "ZeroDivisionError"
    assert not folder_of(task).settle() and run_job(task)["state"] == "failed"
    assert events(Path(task.folder)) == ["begun", "finished"] * 2


@pytest.mark.parametrize(
    ("last", "kind", "message"),
    [
        ("1 + 1", "TPOError", "expected an output of type"),
        ("os.environ.pop('TPO_JOB_KEY'); emit(out)", "TPOError", "wrote no result.json"),
        ("emit(Path(out) / 'elsewhere')", "TPOError", "wrote no result.json"),
        ("os._exit(3)", "DeadKernelError", "Kernel died"),
    ],
)
def test_without_a_result_of_its_own_nothing_is_done(tmp_path: Path, write_notebook, last: str, kind: str, message: str):
    task = task_of(tmp_path, job_of(notebook=write_notebook("small.ipynb", BEGIN, last)))
    attempt = run_job(task)
    assert (attempt["state"], attempt["error"]["type"]) == ("failed", kind) and message in attempt["error"]["message"]
    assert folder_of(task).record() is None


def test_wrong_values_fail_before_a_kernel_starts(tmp_path: Path, write_notebook):
    task = task_of(tmp_path, job_of(notebook=write_notebook("small.ipynb", BEGIN, FINISH)), brought={"count": "many"})
    error = run_job(task)["error"]
    assert error["cell"] == 0 and "count: expected int, got 'many'" in error["message"] and events(Path(task.folder)) == []


def test_changed_code_does_not_run_under_an_old_key(tmp_path: Path, write_notebook):
    from tpo_lab.reruns.plan.keys import code_version, code_version_on_disk

    notebook = write_notebook("small.ipynb", BEGIN, FINISH)
    error = run_job(task_of(tmp_path, job_of(notebook=notebook), code="0" * 64))["error"]
    assert "The code of tpo_lab has changed" in error["message"]
    assert events(tmp_path / "jobs" / ("a" * 16)) == []
    assert code_version_on_disk() == code_version.__wrapped__()


def test_a_stale_result_is_removed_and_the_training_kept(tmp_path: Path, write_notebook):
    look = "assert not (Path(out) / 'result.json').exists() and (Path(out) / 'run' / 'state').exists()"
    task = task_of(tmp_path, job_of(notebook=write_notebook("small.ipynb", BEGIN, look, FINISH)))
    (Path(task.folder) / "run").mkdir()
    (Path(task.folder) / "run" / "state").touch()
    (Path(task.folder) / "result.json").write_text('{"job": "of another", "headline": {"double": -1.0}}')
    assert run_job(task)["state"] == "done"
    assert folder_of(task).record()["result"]["headline"]["double"] == 4.0


@pytest.mark.parametrize("state", ["interrupted", "time"])
def test_who_is_stopped_saves_first(tmp_path: Path, write_notebook, mark: str, state: str):
    task = task_of(tmp_path, job_of(notebook=write_notebook("small.ipynb", BEGIN, WAIT, FINISH)))
    attempt = run_job(task, watch=stop_when(Path(task.folder) / "pid", state))
    assert attempt["state"] == state and attempt["error"] == {"cell": 4, "type": "RunStopped", "message": "Enough."}
    assert (Path(task.folder) / "saved").exists() and events(Path(task.folder)) == ["begun"]
    wait_for(lambda: is_gone(int((Path(task.folder) / "pid").read_text())))


def test_no_cell_begins_after_a_stop(tmp_path: Path, write_notebook):
    deaf = "try:\n    (Path(out) / 'waiting').touch()\n    time.sleep(300)\nexcept KeyboardInterrupt: pass"
    task = task_of(tmp_path, job_of(notebook=write_notebook("small.ipynb", BEGIN, deaf, FINISH)))
    assert run_job(task, watch=stop_when(Path(task.folder) / "waiting"))["state"] == "interrupted"
    assert events(Path(task.folder)) == ["begun"]


def test_a_stop_before_the_beginning_writes_nothing(tmp_path: Path, write_notebook):
    task = task_of(tmp_path, job_of(notebook=write_notebook("small.ipynb", BEGIN, FINISH)))
    with pytest.raises(RunStopped):
        run_job(task, watch=stop_when(tmp_path))
    assert folder_of(task).attempts() == []


def test_limits_stop_the_run(tmp_path: Path, write_notebook):
    eats = "eaten = bytearray(700 << 20); eaten[::4096] = b'x' * len(eaten[::4096]); time.sleep(300)"
    hungry = job_of(notebook=write_notebook("hungry.ipynb", BEGIN, eats, FINISH), limits=Limits(memory_gb=0.5))
    attempt = run_job(task_of(tmp_path, hungry))
    assert attempt["state"] == "memory" and "the limit is 0.5" in attempt["error"]["message"]
    slow = job_of(
        "b" * 16,
        notebook=write_notebook("slow.ipynb", WAIT.join(["import os, time\nfrom pathlib import Path\n", ""])),
        limits=Limits(minutes=0.1),
    )
    attempt = run_job(task_of(tmp_path, slow))
    assert attempt["state"] == "time" and "longer than 0.1 minutes" in attempt["error"]["message"]


def test_what_a_kernel_leaves_behind_ends_with_it(tmp_path: Path, write_notebook):
    task = task_of(tmp_path, job_of(notebook=write_notebook("small.ipynb", BEGIN, CHILD, FINISH)))
    assert run_job(task)["state"] == "done"
    left = int((Path(task.folder) / "child").read_text())
    wait_for(lambda: is_gone(left))


def in_another_process(task: Task) -> subprocess.Popen[bytes]:
    code = "from tpo_lab.reruns.workers.attempt import run_job; from tpo_lab.reruns.workers.executor import Task; "
    code += f"run_job(Task(**{task.to_dict()!r}), worker='other')"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, "-c", code], env=env, start_new_session=True)


def test_a_killed_worker_is_noted_and_its_kernel_ends(tmp_path: Path, write_notebook, mark: str):
    once = "if len(events.read_text().split()) == 1: time.sleep(300)"
    task = task_of(tmp_path, job_of(notebook=write_notebook("small.ipynb", BEGIN, once, FINISH)))
    other = in_another_process(task)
    note = wait_for(lambda: running_notes(tmp_path))[0]
    wait_for(lambda: events(Path(task.folder)))
    other.kill()
    other.wait()
    # the kernel holds the lock until it has noticed
    assert run_job(task, worker="second")["state"] == "done"
    assert wait_for(lambda: is_gone(note["kernel_pid"]), patience_sec=60.0)
    killed, done = folder_of(task).attempts()
    assert (killed["state"], killed["worker"], killed["number"]) == ("killed", "other", 1)
    assert (done["state"], done["worker"], done["number"]) == ("done", "second", 2)
    assert events(Path(task.folder)) == ["begun", "begun", "finished"]
    assert none_left(mark)


def test_an_orphan_that_finishes_is_believed(tmp_path: Path, write_notebook, mark: str):
    """Its result is there when the next worker gets the lock: nothing runs twice."""
    late = "os.environ['JPY_PARENT_PID'] = ''\n" + FINISH + "time.sleep(300)"
    task = task_of(tmp_path, job_of(notebook=write_notebook("small.ipynb", BEGIN, late)))
    other = in_another_process(task)
    wait_for(lambda: "finished" in events(Path(task.folder)))
    other.kill()
    other.wait()
    assert run_job(task)["reused"]
    assert events(Path(task.folder)) == ["begun", "finished"]
    assert [each["state"] for each in folder_of(task).attempts()] == ["done"] and folder_of(task).record() is not None
    assert none_left(mark)


def test_an_orphan_that_does_not_end_is_killed(tmp_path: Path, write_notebook, monkeypatch: pytest.MonkeyPatch, mark: str):
    monkeypatch.setattr(attempt, "ORPHAN_SEC", 0.5)
    task = task_of(tmp_path, job_of(notebook=write_notebook("small.ipynb", BEGIN, FINISH)))
    folder = folder_of(task)
    stuck = lock_holder(folder.lock)
    note = folder.begin("gone")
    note.update(worker_pid=stuck.pid, worker_started=0.0, **{f"kernel_{name}": value for name, value in process(stuck.pid).items()})
    folder.note(note)
    assert run_job(task)["state"] == "done"
    assert stuck.wait(30) == -signal.SIGKILL
    assert [each["state"] for each in folder.attempts()] == ["killed", "done"]
