"""`tpo-lab rerun`: its summary, its exit status, its dry run, and what it says while it works."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.reruns.conftest import notebook_of
from tpo_lab.cli.sweep_screen import SweepScreen, remaining, view
from tpo_lab.reruns.running import rerun
from tpo_lab.reruns.running.progress import Progress, Running, Summary

EMIT = "from tpo_lab.notebooks import emit\nif count == 2: raise ValueError('[two]')\nemit(out, headline={'double': 2.0 * count})"
FAILURE = {"name": "small count=2", "cell": 3, "error": "ValueError: [two]", "notebook": "o/executed.ipynb"}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    (tmp_path / "small.ipynb").write_text(json.dumps(notebook_of(EMIT)))
    path = tmp_path / "rates.yaml"
    path.write_text("notebook: ./small.ipynb\ngrid: {count: [1, 2]}\ntrackers: []\n")
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The sweep is not run: what it is asked is written down."""
    seen: list[dict[str, Any]] = []

    def run(read: Any, out: Path, **options: Any) -> Summary:
        seen.append({"name": read.name, "out": out, **options})
        if options["retries"] == 9:
            raise KeyboardInterrupt
        failed = options["retries"] == 0
        return Summary(str(out), read.name, 2, 2 - failed, int(failed), 0, 1, 1, 3.25, [FAILURE] if failed else [])

    monkeypatch.setattr(rerun, "rerun", run)
    return seen


def test_options_reach_the_sweep_and_failures_are_the_exit_status(call, sweep: Path, tmp_path: Path, asked: list[dict[str, Any]]):
    done = call("rerun", sweep, "--out", tmp_path / "o", "--workers", 3, "--retry", 1, "--json")
    assert done.status == 0 and done.document["failures"] == []
    del asked[0]["tell"]
    assert asked[0] == {"name": "rates", "out": tmp_path / "o", "workers": 3, "scheduler": None, "retries": 1}
    done = call("rerun", sweep, "--out", tmp_path / "o", "--scheduler", "tcp://a:1", "--json")
    assert done.status == 1 and asked[1]["scheduler"] == "tcp://a:1"
    assert done.document == {
        "out": str(tmp_path / "o"),
        "name": "rates",
        **{"jobs": 2, "done": 1, "failed": 1, "skipped": 0, "ran": 1, "reused": 1},
        "seconds": 3.25,
        "failures": [FAILURE],
    }
    assert "ValueError: [two]" in call("rerun", sweep).out and "1 of 2 runs are done, 1 failed, 0 skipped" in call("rerun", sweep).words
    assert asked[-1]["out"] == Path("runs/rates").resolve()


def test_an_interrupt_says_how_to_go_on(call, sweep: Path, tmp_path: Path, asked: list[dict[str, Any]]):
    done = call("rerun", sweep, "--out", tmp_path / "o", "--retry", 9)
    assert (done.status, done.err) == (130, f"Interrupted. What is done is kept; the same command goes on in {tmp_path / 'o'}.\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("notebook: ./small.ipynb\ngrid: {cuont: [1]}\n", "Did you mean 'count'?"),
        ("notebook: ./small.ipynb\ngrid: {count: [many]}\n", "got 'many'"),
        ("notebook: ./smal.ipynb\n", "Did you mean 'small.ipynb'?"),
        ("notebook: ./small.ipynb\ngrid: {count: []}\n", "at least one entry"),
    ],
)
def test_a_wrong_sweep_is_one_sentence_and_starts_nothing(call, sweep: Path, tmp_path: Path, text: str, problem: str):
    sweep.write_text(text)
    done = call("rerun", sweep, "--out", tmp_path / "o")
    assert done.status == 2 and problem in done.err and len(done.err.splitlines()) == 1 and not (tmp_path / "o").exists()


def test_a_dry_run_lists_and_a_real_one_runs(call, sweep: Path, tmp_path: Path):
    pytest.importorskip("papermill", reason="papermill is not installed")
    dry = call("rerun", sweep, "--out", tmp_path / "o", "--dry-run", "--json")
    assert dry.status == 0 and [job["state"] for job in dry.document["jobs"]] == ["would run", "would run"]
    assert not (tmp_path / "o").exists()
    done = call("rerun", sweep, "--out", tmp_path / "o", "--workers", 1, "--json")
    assert done.status == 1 and (done.document["done"], done.document["failed"]) == (1, 1)
    lines = done.err.splitlines()
    assert len(lines) == 2 and "1/2 done after" in lines[0] and "in cell 3: ValueError: [two]" in lines[1]
    words = call("rerun", sweep, "--out", tmp_path / "o", "--dry-run").words
    assert "1 of 2 runs would run" in words
    again = call("rerun", sweep, "--out", tmp_path / "o", "--dry-run", "--json").document
    assert {job["name"]: job["state"] for job in again["jobs"]} == {"small count=1": "done", "small count=2": "would run"}


def test_a_search_has_no_list_beforehand(call, sweep: Path, tmp_path: Path):
    pytest.importorskip("optuna", reason="optuna is not installed")
    over = "{rate: {low: 0.0, high: 1.0}}"
    sweep.write_text(f"notebook: ./small.ipynb\noptuna: {{trials: 7, metric: headline.double, direction: maximize, over: {over}}}\n")
    assert "Optuna would choose 7 points" in call("rerun", sweep, "--dry-run").out


PROGRESS = Progress(
    counts={"done": 3, "failed": 1, "skipped": 0, "running": 2, "waiting": 4},
    running=(Running("small count=[5]", 2, 6, 12.4), Running("small count=6", 0, 0, 0.2)),
    ended=("done after 2.0 s: small count=4",),
    failures=("failed after 1.0 s: small count=2 in cell 3: ValueError: [two]",),
    seconds_left=83.4,
)


def test_the_live_table_shows_counts_cells_failures_and_time_left():
    console = Console(file=io.StringIO(), width=120)
    console.print(view(PROGRESS))
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "3 done 1 failed 0 skipped 2 running 4 waiting 0:01:23 left" in shown
    assert "small count=[5] │ 3/6 │ 12 s" in shown and "small count=6 │ - │ 0 s" in shown
    assert "failed after 1.0 s: small count=2 in cell 3: ValueError: [two]" in shown


def test_without_a_terminal_there_is_a_line_for_each_run_that_ends(capsys: pytest.CaptureFixture[str]):
    with SweepScreen() as screen:
        screen.tell(PROGRESS)
    assert capsys.readouterr().err == "4/10 done after 2.0 s: small count=4 (0:01:23 left)\n"
    assert remaining(None) == remaining(0.0) == ""
