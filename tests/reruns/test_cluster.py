"""Sweeps on a Dask cluster of real worker processes; and the file by which they see whether their sweep still lives."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reruns.killing import start_sweep
from tests.reruns.small_jobs import BEGIN, FINISH, events, running_notes, wait_for
from tpo_lab.errors import MissingExtraError, UsageError
from tpo_lab.notebooks.execution import RunStopped
from tpo_lab.reruns.disk.store import Store
from tpo_lab.reruns.plan.keys import code_version
from tpo_lab.reruns.running.rerun import rerun
from tpo_lab.reruns.workers import cluster, session
from tpo_lab.reruns.workers.cluster import DaskExecutor, problem
from tpo_lab.reruns.workers.session import Leash, Session, seen


class TestSession:
    @pytest.fixture(autouse=True)
    def look_at_once(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(session, "_LOOK_SEC", 0.0)
        monkeypatch.setattr(session, "_BEAT_SEC", 0.0)

    def test_a_job_goes_on_as_long_as_its_sweep_gives_signs_of_life(self, tmp_path: Path):
        sweep = Session(tmp_path)
        leash = Leash(tmp_path, sweep.name, silent_sec=0.0)
        for _ in range(3):
            sweep.beat()
            leash()
        with pytest.raises(RunStopped, match="killed"):
            leash()

    def test_a_stop_is_seen(self, tmp_path: Path):
        sweep = Session(tmp_path)
        leash = Leash(tmp_path, sweep.name)
        leash()
        sweep.stop()
        with pytest.raises(RunStopped, match="The sweep was stopped"):
            leash()

    def test_a_newer_sweep_ends_the_jobs_of_an_older_one(self, tmp_path: Path):
        leash = Leash(tmp_path, Session(tmp_path).name)
        Session(tmp_path)
        with pytest.raises(RunStopped, match="taken over"):
            leash()

    def test_a_file_that_is_gone_is_silence(self, tmp_path: Path):
        sweep = Session(tmp_path)
        leash, patient = Leash(tmp_path, sweep.name, silent_sec=0.0), Leash(tmp_path, sweep.name)
        sweep.end()
        assert seen(tmp_path) == {}
        patient()
        with pytest.raises(RunStopped):
            leash()


class TestFitness:
    def test_a_worker_must_see_the_folder_and_have_the_same_code(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(cluster, "_SEE_SEC", 0.0)
        sweep = Session(tmp_path)
        assert problem(str(tmp_path), sweep.name, code_version()) == ""
        assert "a file system that all machines share is needed" in problem(str(tmp_path / "other"), sweep.name, code_version())
        assert "another version" in problem(str(tmp_path), sweep.name, "0" * 64)
        monkeypatch.setattr(cluster, "find_spec", lambda name: None)
        assert problem(str(tmp_path), sweep.name, code_version()) == "papermill is not installed"

    def test_without_distributed_the_extra_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(cluster, "find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=r"'distributed'.*pip install 'tpo-lab\[dask\]'"):
            DaskExecutor("tcp://127.0.0.1:1", tmp_path)


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    pytest.importorskip("papermill", reason="papermill is not installed")
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), before])
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as made:
        yield made
    os.environ["PYTHONPATH"] = before


@pytest.fixture
def dask_cluster(started: Any) -> Any:
    """Two workers, also after a test that has killed one."""
    with started.get_client() as client:
        client.wait_for_workers(2, timeout=300)
    return started


def test_nobody_at_that_address_is_one_sentence(tmp_path: Path, write_notebook, write_sweep, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("distributed", reason="distributed is not installed")
    monkeypatch.setattr(cluster, "_CONNECT_SEC", 1)
    write_notebook("small.ipynb", BEGIN, FINISH)
    with pytest.raises(UsageError, match="scheduler: expected the address of a Dask scheduler that runs"):
        rerun(write_sweep("notebook: ./small.ipynb\ntrackers: []\n"), tmp_path / "out", scheduler="tcp://127.0.0.1:9")


def test_failures_are_rows_and_retries_help(tmp_path: Path, write_notebook, write_sweep, dask_cluster: Any):
    fails = "if count == 3: raise ValueError('three')\nif count == 4 and len(events.read_text().split()) == 1: raise OSError('once')"
    write_notebook("small.ipynb", BEGIN, fails, FINISH)
    sweep = write_sweep("notebook: ./small.ipynb\ngrid: {count: [1, 2, 3, 4]}\ntrackers: []\n")
    done = rerun(sweep, tmp_path / "out", scheduler=dask_cluster.scheduler_address, retries=1)
    assert (done.done, done.failed, done.ran) == (3, 1, 4)
    assert done.failures[0]["name"] == "small count=3" and done.failures[0]["error"] == "ValueError: three"
    again = rerun(sweep, tmp_path / "out", scheduler=dask_cluster.scheduler_address)
    assert (again.ran, again.reused, again.failed) == (1, 3, 1)
    assert not (tmp_path / "out" / session.FILE).exists()


def test_the_run_of_a_killed_worker_goes_on_elsewhere(tmp_path: Path, write_notebook, write_sweep, dask_cluster: Any):
    once = "if count == 1 and len(events.read_text().split()) == 1: time.sleep(300)"
    write_notebook("small.ipynb", BEGIN, once, FINISH)
    sweep = write_sweep("notebook: ./small.ipynb\ngrid: {count: [1, 2, 3]}\ntrackers: []\n")
    out, killed = tmp_path / "out", []

    def kill_the_first(_: object) -> None:
        for note in running_notes(out):
            if not killed and note["cell"] >= 3 and Store(out).job(note["key"]).point["count"] == 1:
                killed.append(note)
                os.kill(note["worker_pid"], signal.SIGKILL)

    done = rerun(sweep, out, scheduler=dask_cluster.scheduler_address, tell=kill_the_first)
    assert killed and (done.done, done.failed, done.skipped) == (3, 0, 0)
    store = Store(out)
    lost = next(job for job in store.jobs() if job.point["count"] == 1)
    assert [each["state"] for each in store.attempts(lost.key)] == ["killed", "done"]
    assert events(store.folder(lost.key).path) == ["begun", "begun", "finished"]
    assert all([each["state"] for each in store.attempts(job.key)] == ["done"] for job in store.jobs() if job.key != lost.key)


def test_control_c_reaches_the_kernels_of_the_cluster(tmp_path: Path, write_notebook, write_sweep, dask_cluster: Any):
    wait = "try:\n    (Path(out) / 'waiting').touch()\n    time.sleep(300 if len(events.read_text().split()) == 1 else 0)\n"
    wait += "finally: (Path(out) / 'saved').touch()"
    write_notebook("small.ipynb", BEGIN, wait, FINISH)
    sweep = write_sweep("notebook: ./small.ipynb\ngrid: {count: [1, 2]}\ntrackers: []\n")
    out = tmp_path / "out"
    first = start_sweep(sweep, out, "--scheduler", dask_cluster.scheduler_address)
    wait_for(lambda: len(list(out.glob("jobs/*/waiting"))) == 2)
    os.kill(first.pid, signal.SIGINT)
    _, err = first.communicate(timeout=120)
    assert first.returncode == 130 and "the same command goes on" in err
    assert len(list(out.glob("jobs/*/saved"))) == 2
    assert [[each["state"] for each in Store(out).attempts(job.key)] for job in Store(out).jobs()] == [["interrupted"], ["interrupted"]]
    done = rerun(sweep, out, scheduler=dask_cluster.scheduler_address)
    assert (done.done, done.ran) == (2, 2)


def test_jobs_of_a_killed_sweep_end_when_another_takes_over(tmp_path: Path, write_notebook, write_sweep, dask_cluster: Any):
    once = "time.sleep(300 if len(events.read_text().split()) == 1 else 0)"
    write_notebook("small.ipynb", BEGIN, once, FINISH)
    sweep = write_sweep("notebook: ./small.ipynb\ntrackers: []\n")
    out = tmp_path / "out"
    first = start_sweep(sweep, out, "--scheduler", dask_cluster.scheduler_address)
    wait_for(lambda: running_notes(out))
    first.kill()
    first.communicate()
    done = rerun(sweep, out, scheduler=dask_cluster.scheduler_address)
    assert (done.done, done.failed) == (1, 0)
    [job] = Store(out).jobs()
    assert [each["state"] for each in Store(out).attempts(job.key)][-1] == "done"
    assert events(Store(out).folder(job.key).path)[-1] == "finished"
