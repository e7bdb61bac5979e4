"""A sweep on disk: what is done, what only looks so, and what a kill leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reruns.small_jobs import job_of, lock_holder
from tpo_lab.errors import UsageError
from tpo_lab.lock import Lock, is_locked
from tpo_lab.reruns.disk.folder import JobFolder
from tpo_lab.reruns.disk.store import Store
from tpo_lab.reruns.plan.sweep import Sweep

FIRST, SECOND, THIRD = "1" * 16, "2" * 16, "3" * 16


@pytest.fixture
def notebook(write_notebook) -> Path:
    return write_notebook("small.ipynb", "emit(out)")


@pytest.fixture
def store(tmp_path: Path, notebook: Path, write_sweep) -> Store:
    """A chain of three jobs."""
    made = Store(tmp_path / "out")
    chain = [
        job_of(FIRST, notebook=notebook),
        job_of(SECOND, after=FIRST, notebook=notebook),
        job_of(THIRD, after=SECOND, notebook=notebook),
    ]
    made.claim(Sweep.read(write_sweep("name: rates\nnotebook: ./small.ipynb\n")), chain)
    return made


def write_result(folder: JobFolder, job: str | None) -> None:
    (folder.path / "result.json").write_text(json.dumps({"headline": {"y": 2.5}, "peak_memory_mb": 7.5, **({"job": job} if job else {})}))


def finish(store: Store, key: str) -> None:
    folder = store.folder(key)
    note = folder.begin("w")
    write_result(folder, key)
    folder.end(note, "done")


def fail(store: Store, key: str) -> None:
    folder = store.folder(key)
    folder.end(folder.begin("w"), "failed", error={"cell": 3, "type": "ValueError", "message": "boom"})


def test_it_keeps_the_sweep_and_the_jobs_in_their_order(store: Store):
    document = json.loads((store.out / "sweep.json").read_text())
    assert document["name"] == "rates" and document["jobs"] == [FIRST, SECOND, THIRD] and "torch" in document["environment"]
    again = Store(store.out)
    assert again.jobs() == store.jobs() and [job.after for job in again.jobs()] == [None, FIRST, SECOND]
    assert [again.state(job) for job in again.jobs()] == ["waiting"] * 3


def test_a_changed_sweep_lists_its_own_jobs_and_keeps_the_others_on_disk(store: Store, notebook: Path, write_sweep):
    finish(store, FIRST)
    store.claim(Sweep.read(write_sweep("name: rates\nnotebook: ./small.ipynb\n")), [job_of("4" * 16, notebook=notebook)])
    assert [job.key for job in store.jobs()] == ["4" * 16]
    assert store.record(FIRST) is not None
    store.extend([store.job(FIRST)])
    assert [job.key for job in store.jobs()] == ["4" * 16, FIRST]


def test_a_notebook_that_is_edited_later_does_not_run(store: Store, notebook: Path):
    before = notebook.read_text()
    kept = store.notebook(store.job(FIRST))
    notebook.write_text(before.replace("emit(out)", "emit(elsewhere)"))
    assert store.notebook(store.job(FIRST)) == kept and kept.read_text() == before
    assert Store(store.out).notebook(store.job(FIRST)) != kept


def test_states_follow_the_files(store: Store):
    first, second, third = store.jobs()
    finish(store, FIRST)
    fail(store, SECOND)
    assert [store.state(job) for job in (first, second, third)] == ["done", "failed", "skipped"]
    assert store.error(SECOND) == {"cell": 3, "type": "ValueError", "message": "boom"} and store.error(FIRST) is None
    assert store.record(FIRST)["result"]["headline"] == {"y": 2.5} and store.record(FIRST)["peak_memory_mb"] == 7.5
    finish(store, SECOND)
    assert [attempt["state"] for attempt in store.attempts(SECOND)] == ["failed", "done"] and store.error(SECOND) is None
    assert store.state(third) == "waiting"


@pytest.mark.parametrize("state", ["memory", "time"])
def test_a_limit_is_a_failure_and_an_interrupt_is_none(store: Store, state: str):
    folder = store.folder(FIRST)
    folder.end(folder.begin("w"), state, error={"cell": 1, "type": "RunStopped", "message": "too much"})
    assert store.state(store.job(FIRST)) == "failed"
    folder.end(folder.begin("w"), "interrupted", error={"cell": 1, "type": "RunStopped", "message": "stopped"})
    assert store.state(store.job(FIRST)) == "waiting"
    folder.begin("w")
    folder.bury()
    assert store.state(store.job(FIRST)) == "waiting" and store.attempts(FIRST)[-1]["state"] == "killed"
    folder.begin("w")
    folder.bury({"cell": 1, "type": "WorkerLost", "message": "again and again"})
    assert store.state(store.job(FIRST)) == "failed"
    assert [attempt["number"] for attempt in store.attempts(FIRST)] == [1, 2, 3, 4]


@pytest.mark.parametrize("job", [None, SECOND])
def test_results_of_other_jobs_are_stale(store: Store, job: str | None):
    folder = store.folder(FIRST)
    write_result(folder, job)
    assert folder.result() is None and not folder.settle() and store.state(store.job(FIRST)) == "waiting"
    (folder.path / "done.json").write_text(json.dumps({"key": SECOND, "result": {}}))
    assert store.record(FIRST) is None and store.state(store.job(FIRST)) == "waiting"


def test_a_result_of_its_own_counts_where_a_kill_came_before_the_mark(store: Store):
    folder = store.folder(FIRST)
    folder.begin("w")
    write_result(folder, FIRST)
    assert folder.settle() and folder.settle()
    assert [attempt["state"] for attempt in folder.attempts()] == ["done"] and folder.running() is None
    assert store.record(FIRST)["result"]["headline"] == {"y": 2.5}


def test_a_kill_between_the_attempt_and_the_mark_adds_no_second_line(store: Store):
    folder = store.folder(FIRST)
    note = folder.begin("w")
    write_result(folder, FIRST)
    folder.end(note, "done")
    folder.note(note)
    (folder.path / "done.json").unlink()
    assert folder.settle() and len(folder.attempts()) == 1 and store.record(FIRST)["key"] == FIRST


@pytest.mark.parametrize("half", ["", '{"key": "1111', "[1]"])
def test_half_a_file_is_no_file(store: Store, half: str):
    for name in ("done.json", "result.json", "running.json"):
        (store.folder(FIRST).path / name).write_text(half)
    assert store.state(store.job(FIRST)) == "waiting" and not store.folder(FIRST).settle()


def test_folders_of_somebody_else_are_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="out: expected a new or empty folder, or one of an earlier sweep"):
        Store(tmp_path).check()
    with pytest.raises(UsageError, match=r"notes.txt, a file"):
        Store(tmp_path / "notes.txt").check()
    (tmp_path / "killed" / "jobs").mkdir(parents=True)
    Store(tmp_path / "killed").check()


class TestLock:
    def test_only_one_has_it(self, tmp_path: Path):
        first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
        assert first.take() and not second.take() and is_locked(tmp_path / "lock")
        first.release()
        assert not is_locked(tmp_path / "lock") and second.take()
        second.release()
        assert not is_locked(tmp_path / "absent") and not (tmp_path / "absent").exists()

    def test_it_lasts_as_long_as_a_child_that_inherited_it(self, tmp_path: Path, store: Store):
        path = store.folder(FIRST).lock
        with Lock(path) as lock:
            assert lock.take()
            child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=lock.fds)
        try:
            assert is_locked(path) and store.state(store.job(FIRST)) == "running"
            assert not Lock(path).wait(0.3)
        finally:
            child.kill()
            child.wait()
        assert Lock(path).wait(5.0)

    def test_it_goes_with_a_killed_process(self, tmp_path: Path):
        child = lock_holder(tmp_path / "lock")
        assert is_locked(tmp_path / "lock")
        child.kill()
        child.wait()
        assert not is_locked(tmp_path / "lock")
