"""Whole sweeps with real workers and kernels: failures, chains, kills, Ctrl-C, and a search with Optuna."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.reruns.killing import check_all_ran_once, kill_at_random, start_sweep, summary_of
from tests.reruns.small_jobs import BEGIN, FINISH, events, job_of, lock_holder, none_left, running_notes, wait_for
from tpo_lab.errors import MissingExtraError, UsageError
from tpo_lab.reruns.disk.store import Store
from tpo_lab.reruns.plan.job import Job
from tpo_lab.reruns.running.agenda import Agenda
from tpo_lab.reruns.running.progress import Progress
from tpo_lab.reruns.running.rerun import rerun, states_before
from tpo_lab.reruns.workers import slots

TRAIN = """state = Path(out) / "run" / "state"
state.parent.mkdir(exist_ok=True)
begun_at = step = int(state.read_text()) if state.exists() else 0
try:
    while step < 5 or (step < 10_000 and not begun_at):
        time.sleep(0.05)
        step += 1
        (Path(out) / "step").write_text(str(step))
except KeyboardInterrupt:
    state.write_text(str(step))
    raise
"""


@pytest.fixture(autouse=True)
def extra():
    pytest.importorskip("papermill", reason="papermill is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")


@pytest.fixture
def small(write_notebook) -> Path:
    return write_notebook("small.ipynb", BEGIN, FINISH)


def jobs_by(out: Path, name: str) -> dict[object, Job]:
    return {job.point.get(name): job for job in Store(out).jobs()}


class TestAgenda:
    def states(self, agenda: Agenda) -> list[str]:
        return list(agenda.states.values())

    def ended(self, state: str) -> dict[str, object]:
        return {"state": state, "error": None}

    @pytest.fixture
    def chain(self) -> list[Job]:
        return [job_of("1"), job_of("2", after="1"), job_of("3", after="2"), job_of("4")]

    def test_a_job_waits_for_the_one_that_it_takes_from(self, chain: list[Job]):
        agenda = Agenda()
        agenda.add(chain)
        assert agenda.next() is chain[0]
        agenda.begin("1")
        assert agenda.next() is chain[3]
        agenda.begin("4")
        assert agenda.next() is None and not agenda.is_done
        agenda.end("1", self.ended("done"))
        assert agenda.next() is chain[1]

    def test_what_stands_behind_a_failure_is_skipped(self, chain: list[Job]):
        agenda = Agenda(retries=1)
        agenda.add(chain, done=["4"])
        agenda.end("1", self.ended("failed"))
        assert self.states(agenda) == ["waiting", "waiting", "waiting", "done"]
        agenda.end("1", self.ended("time"))
        assert self.states(agenda) == ["failed", "skipped", "skipped", "done"] and agenda.is_done

    def test_interrupts_do_not_count_and_three_lost_workers_do(self, chain: list[Job]):
        agenda = Agenda()
        agenda.add(chain[3:])
        agenda.end("4", self.ended("interrupted"))
        assert self.states(agenda) == ["waiting"]
        assert [agenda.lose("4") for _ in range(3)] == [True, True, False] and self.states(agenda) == ["failed"]


class TestSlots:
    def test_threads_are_divided_and_each_worker_gets_a_gpu(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(slots, "cores", lambda: 7)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert slots.default_workers() == 4
        assert [env["OMP_NUM_THREADS"] for env in slots.environments(3)] == ["2", "2", "2"]
        assert "CUDA_VISIBLE_DEVICES" not in slots.environments(3)[0] and slots.environments(9)[0]["MKL_NUM_THREADS"] == "1"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
        assert slots.default_workers() == 2
        assert [env["CUDA_VISIBLE_DEVICES"] for env in slots.environments(3)] == ["2", "5", "2"]


def test_failed_runs_are_rows_and_leave_the_others_alone(tmp_path: Path, write_notebook, write_sweep):
    """One fails, and one more that a second try repairs."""
    fails = "if count == 7: raise ValueError('seven')"
    once = "if count == 2 and len(events.read_text().split()) == 1: raise OSError('once')"
    write_notebook("small.ipynb", BEGIN, fails, once, FINISH)
    sweep = write_sweep(f"notebook: ./small.ipynb\ngrid: {{count: {list(range(10))}}}\ntrackers: []\n")
    told: list[Progress] = []
    done = rerun(sweep, tmp_path / "out", workers=2, retries=1, tell=told.append)
    assert (done.jobs, done.done, done.failed, done.skipped, done.ran, done.reused) == (10, 9, 1, 0, 10, 0)
    failed = jobs_by(tmp_path / "out", "count")[7]
    executed = tmp_path / "out" / "jobs" / failed.key / "executed.ipynb"
    assert done.failures == [{"name": "small count=7", "cell": 4, "error": "ValueError: seven", "notebook": str(executed)}]
    assert "seven" in executed.read_text()
    store = Store(tmp_path / "out")
    states = {count: [each["state"] for each in store.attempts(job.key)] for count, job in jobs_by(tmp_path / "out", "count").items()}
    assert states == {count: {7: ["failed", "failed"], 2: ["failed", "done"]}.get(count, ["done"]) for count in range(10)}
    assert told[-1].counts == {"done": 9, "failed": 1, "skipped": 0, "running": 0, "waiting": 0}
    assert any(running.cells == 6 for each in told for running in each.running)
    assert sum(line.startswith("done after") for each in told for line in each.ended) == 9
    assert len(told[-1].failures) == 1 and "small count=7 in cell 4: ValueError: seven" in told[-1].failures[0]
    # the same command again: what is done is left alone, what failed is tried again
    again = rerun(sweep, tmp_path / "out", workers=1)
    assert (again.ran, again.reused, again.done, again.failed) == (1, 9, 9, 1)
    assert len(store.attempts(failed.key)) == 3


def test_a_result_counts_only_for_notebook_values_and_inputs_that_made_it(tmp_path: Path, write_notebook, write_sweep):
    write_notebook("small.ipynb", BEGIN, FINISH)
    (tmp_path / "data.jsonl").write_text("one\n")
    sweep = write_sweep("notebook: ./small.ipynb\nparameters: {count: 3}\ninputs: [data.jsonl]\ntrackers: []\n")
    assert rerun(sweep, tmp_path / "out", workers=1).ran == 1
    assert [state for _, state in states_before_of(sweep, tmp_path)] == ["done"]
    (tmp_path / "data.jsonl").write_text("two\n")
    assert [state for _, state in states_before_of(sweep, tmp_path)] == ["would run"]
    assert rerun(sweep, tmp_path / "out", workers=1).ran == 1
    write_notebook("small.ipynb", BEGIN, FINISH.replace("count * 2.0", "count * 3.0"))
    done = rerun(sweep, tmp_path / "out", workers=1)
    assert (done.jobs, done.ran, done.reused) == (1, 1, 0)
    [job] = Store(tmp_path / "out").jobs()
    assert Store(tmp_path / "out").record(job.key)["result"]["headline"]["double"] == 9.0
    assert len(list((tmp_path / "out" / "jobs").iterdir())) == 3


def states_before_of(sweep: Path, tmp_path: Path) -> list[tuple[Job, str]]:
    from tpo_lab.reruns.plan.sweep import Sweep

    return states_before(Sweep.read(sweep), tmp_path / "out")


def test_a_chain_takes_results_at_the_same_point_and_seed(tmp_path: Path, write_notebook, write_sweep):
    fails = "if count == 5 and seed == 1: raise ValueError('no')"
    write_notebook("first.ipynb", BEGIN, fails, FINISH)
    takes = 'emit(out, headline={"got": doubled, "seed": seed}, weights=checkpoint)'
    declared = 'out: str = ""  # o\nseed: int = 0  # s\ndoubled: float = 0.0  # d\ncheckpoint: str = ""  # c\nrate: float = 1.0  # r\n'
    write_notebook("second.ipynb", BEGIN, takes, declared=declared)
    sweep = write_sweep(
        "chain:\n- notebook: ./first.ipynb\n- notebook: ./second.ipynb\n  takes: {doubled: headline.double, checkpoint: checkpoint}\n"
        "grid: {count: [4, 5], rate: [0.5]}\nseeds: [0, 1]\ntrackers: []\n"
    )
    done = rerun(sweep, tmp_path / "out", workers=2)
    assert (done.jobs, done.done, done.failed, done.skipped) == (8, 6, 1, 1)
    store = Store(tmp_path / "out")
    states = {(job.link, job.point["count"], job.seed): store.state(job) for job in store.jobs()}
    assert states.pop(("first", 5, 1)) == "failed" and states.pop(("second", 5, 1)) == "skipped" and set(states.values()) == {"done"}
    for job in store.jobs():
        if job.link == "second" and store.state(job) == "done":
            result = store.record(job.key)["result"]
            assert result["headline"] == {"got": job.point["count"] * 2.0, "seed": job.seed}
            assert result["weights"] == str(store.folder(job.after).path / "weights")


def test_a_field_that_the_first_link_does_not_give_fails_the_second(tmp_path: Path, write_notebook, write_sweep, small: Path):
    write_notebook("second.ipynb", BEGIN, FINISH)
    chain = "chain:\n- notebook: ./small.ipynb\n- notebook: ./second.ipynb\n  takes: {rate: headline.absent}\ntrackers: []\n"
    done = rerun(write_sweep(chain), tmp_path / "out", workers=1, retries=1)
    assert (done.done, done.failed, done.skipped) == (1, 1, 0)
    assert "takes: headline.absent: expected a field of the result of the job before: double, seed" in done.failures[0]["error"]


def test_one_sweep_in_a_folder(tmp_path: Path, write_sweep, small: Path):
    sweep = write_sweep("notebook: ./small.ipynb\ntrackers: []\n")
    holder = lock_holder(tmp_path / "out" / "lock")
    try:
        with pytest.raises(UsageError, match="out: expected a folder in which no other sweep runs"):
            rerun(sweep, tmp_path / "out", workers=1)
    finally:
        holder.kill()
        holder.communicate()
    assert rerun(sweep, tmp_path / "out", workers=1).done == 1


def test_wrong_calls_leave_no_folder(tmp_path: Path, write_sweep, small: Path, monkeypatch: pytest.MonkeyPatch):
    sweep = write_sweep("notebook: ./small.ipynb\n")
    with pytest.raises(UsageError, match="one of --workers and --scheduler"):
        rerun(sweep, tmp_path / "out", workers=1, scheduler="tcp://127.0.0.1:1")
    with pytest.raises(UsageError, match="coutn"):
        rerun(write_sweep("notebook: ./small.ipynb\ngrid: {coutn: [1]}\n"), tmp_path / "out")
    monkeypatch.setattr("tpo_lab.notebooks.execution.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="papermill"):
        rerun(sweep, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_at_random_times_it_loses_nothing_and_repeats_nothing(tmp_path: Path, write_notebook, write_sweep):
    write_notebook("small.ipynb", BEGIN, "time.sleep(0.5)", FINISH)
    sweep = write_sweep("notebook: ./small.ipynb\ngrid: {count: [1, 2, 3, 4]}\nseeds: [0, 1]\ntrackers: []\n")
    kill_at_random(sweep, tmp_path / "out", kills=3, seed=5, mark=str(tmp_path))
    summary = summary_of(start_sweep(sweep, tmp_path / "out", "--workers", "2", mark=str(tmp_path)))
    check_all_ran_once(tmp_path / "out", summary, [2.0 * count for count in (1, 2, 3, 4) for _ in (0, 1)])
    assert none_left(str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_control_c_saves_the_training_and_a_second_call_goes_on(tmp_path: Path, write_notebook, write_sweep, number: int):
    write_notebook("small.ipynb", BEGIN, TRAIN, "emit(out, headline={'double': count * 2.0}, begun_at=begun_at, step=step)")
    sweep = write_sweep("notebook: ./small.ipynb\ngrid: {count: [1, 2, 3]}\ntrackers: []\n")
    out = tmp_path / "out"
    first = start_sweep(sweep, out, "--workers", "2", mark=str(tmp_path))
    wait_for(lambda: sum(int(path.read_text() or "0") > 6 for path in out.glob("jobs/*/step")) == 2)
    os.kill(first.pid, number)
    document, err = first.communicate(timeout=120)
    assert first.returncode == 130 and "the same command goes on" in err and "Traceback" not in err
    assert json.loads(document)["error"]["kind"] == "interrupted"
    assert none_left(str(tmp_path))
    states = [[each["state"] for each in Store(out).attempts(job.key)] for job in Store(out).jobs()]
    assert states == [["interrupted"], ["interrupted"], []]
    saved = [int(path.read_text()) for path in sorted(out.glob("jobs/*/run/state"))]
    assert len(saved) == 2 and min(saved) > 6
    # the third job has no state to go on from, and is not waited for
    short = out / "jobs" / Store(out).jobs()[2].key / "run"
    short.mkdir()
    (short / "state").write_text("1")
    summary = summary_of(start_sweep(sweep, out, "--workers", "2"))
    assert (summary["done"], summary["ran"], summary["reused"]) == (3, 3, 0)
    begun = [Store(out).record(job.key)["result"]["begun_at"] for job in Store(out).jobs()]
    assert sorted(begun) == sorted([1, *saved])


def search(write_sweep: Callable[..., Path], trials: int) -> Path:
    return write_sweep(
        "notebook: ./small.ipynb\nseeds: [0, 1]\ntrackers: []\n"
        f"optuna: {{trials: {trials}, seed: 3, metric: headline.score, direction: maximize, over: {{rate: {{low: 0.0, high: 1.0}}}}}}\n"
    )


def test_a_search_with_optuna_goes_on_where_it_was(tmp_path: Path, write_notebook, write_sweep):
    pytest.importorskip("optuna", reason="optuna is not installed")
    fails = "if rate > 0.9: raise ValueError('too fast')"
    write_notebook("small.ipynb", BEGIN, fails, "emit(out, headline={'score': -(rate - 0.4) ** 2 + seed})")
    out = tmp_path / "out"
    first = rerun(search(write_sweep, 3), out, workers=2)
    assert first.jobs == 6 and first.done + first.failed == 6
    points = [(job.point["rate"], job.seed) for job in Store(out).jobs()]
    assert len({rate for rate, _ in points}) == 3 and {seed for _, seed in points} == {0, 1}
    more = rerun(search(write_sweep, 5), out, workers=2)
    assert more.jobs == 10 and more.reused == first.done
    assert [(job.point["rate"], job.seed) for job in Store(out).jobs()][:6] == points
    assert all(job.values["seed"] == job.seed and replace(job) == job for job in Store(out).jobs())


def test_events_of_the_small_notebook_are_what_the_checks_read(tmp_path: Path, small: Path, write_sweep):
    rerun(write_sweep("notebook: ./small.ipynb\ntrackers: []\n"), tmp_path / "out", workers=1)
    [job] = Store(tmp_path / "out").jobs()
    assert events(tmp_path / "out" / "jobs" / job.key) == ["begun", "finished"] and running_notes(tmp_path / "out") == []
    again = json.loads(json.dumps(rerun(write_sweep("notebook: ./small.ipynb\ntrackers: []\n"), tmp_path / "out", workers=1).to_dict()))
    check_all_ran_once(tmp_path / "out", again, [4.0])
