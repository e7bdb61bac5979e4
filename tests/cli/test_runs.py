"""`tpo-lab runs`: tables in every format, one run, two side by side, the notebook opened, and calls that are wrong."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.reruns.written import FAILURE, NOTEBOOK, Wrote, scored, sweep_folder
from tpo_lab.reruns.disk.store import Store
from tpo_lab.reruns.display import opening
from tpo_lab.reruns.plan.job import Job
from tpo_lab.reruns.plan.sweep import Sweep
from tpo_lab.runs import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two points over two seeds; one run failed."""
    runs = [
        scored({"steps": 4}, 0, 0.5),
        scored({"steps": 4}, 1, 0.75),
        scored({"steps": 8}, 0, 1.0),
        Wrote({"steps": 8}, 1, error=FAILURE),
    ]
    return sweep_folder(tmp_path / "region-rate", runs, baseline={"steps": 4})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training run of two stages that was stopped."""
    made = RunFolder(tmp_path / "runs" / "first", {"recipe": {"name": "nano"}, "stage": "all", "options": {"seed": 3}})
    made.log(stage="1", step=1, seconds=0.5, lr=0.1, loss=2.0)
    made.log(stage="2.region", step=1, seconds=0.25, lr=0.2, loss=1.5, **{"region/l1": 0.75})
    return made.path


def key_of(folder: Path, place: int) -> str:
    return str(json.loads((folder / "sweep.json").read_text())["jobs"][place])


def test_table_is_grouped_where_there_are_seeds(call, folder: Path):
    done = call("runs", "table", folder)
    assert done.status == 0, done.err
    for words in ("Student's t)", "1 of 2 (1 failed)", "Runs that are not done", "cell 7: ValueError: a | b_c <d>"):
        assert words in done.words, words
    assert "4 runs: 3 done, 1 failed. 95% intervals: Student's t" in done.words and "from steps=4, seed by seed" in done.words


def test_table_as_json_has_runs_and_groups(call, folder: Path):
    document = call("runs", "table", folder, "--json").document
    assert document["states"] == {"done": 3, "failed": 1}
    assert [row["acc"] for row in document["runs"]] == [0.5, 0.75, 1.0, None]
    assert [row["error_message"] for row in document["runs"]][2:] == [None, FAILURE["message"]]
    grouped = document["grouped"]
    assert (grouped["interval"], grouped["level"], grouped["baseline"]) == ("Student's t", 0.95, {"steps": 4})
    assert [(row["n"], row["of"], row["missing"], row["difference"]) for row in grouped["rows"]] == [
        (2, 2, "", None),
        (1, 2, "1 failed", 0.5),
    ]


def test_table_reads_what_a_sweep_writes(call, tmp_path: Path):
    (tmp_path / "one.ipynb").write_text(json.dumps(NOTEBOOK))
    sweep = Sweep.of({"file": str(tmp_path / "s.yaml"), "name": "s", "notebook": "one.ipynb", "baseline": {"steps": 4}})
    jobs = [Job(f"{steps}" * 16, f"one steps={steps}", "one", str(tmp_path / "one.ipynb"), {"steps": steps}, 0, {}) for steps in (4, 8)]
    store = Store(tmp_path / "s")
    store.claim(sweep, jobs)
    for job, accuracy in zip(jobs, (0.5, 0.75), strict=True):
        folder = store.folder(job.key)
        (folder.path / "result.json").write_text(json.dumps({"job": job.key, "headline": {"acc": accuracy}}))
        folder.end(folder.begin("w"), "done", seconds=2.0)
    document = call("runs", "table", tmp_path / "s", "--group", "--json").document
    assert (document["states"], document["grouped"]["baseline"]) == ({"done": 2}, {"steps": 4})
    assert [row["difference"] for row in document["grouped"]["rows"]] == [None, 0.25]


def test_table_without_groups_has_a_row_per_run(call, folder: Path):
    read = pd.read_csv(io.StringIO(call("runs", "table", folder, "--no-group", "--format", "csv").out))
    assert list(read.columns[:8]) == ["key", "run", "link", "steps", "seed", "state", "acc", "seconds"]
    assert read["state"].tolist() == ["done", "done", "done", "failed"] and read["error_message"][3] == FAILURE["message"]
    assert "grouped" not in call("runs", "table", folder, "--no-group", "--json").document


def test_table_of_single_seeds_is_not_grouped_unless_asked(call, tmp_path: Path):
    out = sweep_folder(tmp_path / "s", [scored({"steps": 4}, 0, 0.5), scored({"steps": 8}, 0, 1.0)])
    assert "grouped" not in call("runs", "table", out, "--json").document
    for asked in (("--group",), ("--baseline", "steps=4")):
        rows = call("runs", "table", out, "--json", *asked).document["grouped"]["rows"]
        assert [row["mean"] for row in rows] == [0.5, 1.0]


def test_table_takes_metrics_and_a_baseline(call, folder: Path):
    done = call("runs", "table", folder, "--metric", "after.region", "--metric", "acc", "--baseline", "steps=8", "--json")
    rows = done.document["grouped"]["rows"]
    assert [(row["metric"], row["steps"]) for row in rows] == [(name, steps) for name in ("after.region.iou", "acc") for steps in (4, 8)]
    assert [row["difference"] for row in rows] == [0.0, None, -0.5, None]
    assert done.document["grouped"]["baseline"] == {"steps": 8}


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.md", "t.tex", "t.html", "t.txt"])
def test_table_is_written_as_its_file_is_called(call, folder: Path, tmp_path: Path, name: str):
    out = tmp_path / "made" / name
    done = call("runs", "table", folder, "--out", out)
    assert (done.status, done.words) == (0, f"2 rows: {out}")
    text = "" if name == "t.parquet" else out.read_text()
    if name == "t.csv":
        assert pd.read_csv(out)["mean"].tolist() == [0.625, 1.0]
    elif name == "t.parquet":
        assert pd.read_parquet(out)["missing"].tolist() == ["", "1 failed"]
    else:
        assert "Student's t" in text or "Student&#x27;s t" in text
        assert "0.625" in text and "1 failed" in text


def test_page_leads_to_notebooks_and_figures(call, folder: Path, tmp_path: Path):
    out = tmp_path / "pages" / "t.html"
    call("runs", "table", folder, "--out", out)
    text, key = out.read_text(), key_of(folder, 0)
    for link in (f"../region-rate/jobs/{key}/executed.ipynb", f"../region-rate/jobs/{key}/figures/cell-01-1.png"):
        assert f'href="{link}"' in text and (out.parent / link).is_file()
    assert text.count("class=failed") == 1


def test_format_may_be_said(call, folder: Path, tmp_path: Path):
    assert "\\begin{tabular}" in call("runs", "table", folder, "--format", "latex").out
    call("runs", "table", folder, "--format", "csv", "--out", tmp_path / "t.anything")
    assert len(pd.read_csv(tmp_path / "t.anything")) == 2
    assert call("runs", "table", folder, "--format", "markdown", "--json").document["states"] == {"done": 3, "failed": 1}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--format", "exel"), "--format: expected one of csv, html, latex, markdown, parquet, table, got 'exel'."),
        (("--format", "parquet"), "--out: expected a file for Parquet"),
        (("--out", "t.xlsx"), "--out: expected a file that ends in .csv"),
        (("--metric", "ac"), "--metric: expected a field of a result record, got 'ac'. Some that are there: headline.acc"),
        (("--baseline", "steps=5"), "--baseline: expected values of a point: steps=4; steps=8, got 'steps=5'"),
        (("--baseline", "steps"), "--baseline: expected NAME=VALUE, such as eval_samples=10, got 'steps'"),
    ],
)
def test_wrong_calls_of_table(call, folder: Path, words: tuple[str, ...], told: str):
    done = call("runs", "table", folder, *words)
    assert done.status == 2 and told in " ".join(done.err.split())
    assert done.out == ""


def test_table_of_no_sweep(call, tmp_path: Path):
    done = call("runs", "table", tmp_path)
    assert done.status == 2 and "DIR: expected the folder of a sweep, with sweep.json in it" in done.err
    assert call("runs", "table", tmp_path / "none").status == 2


def test_table_of_a_sweep_that_has_not_begun(call, tmp_path: Path):
    done = call("runs", "table", sweep_folder(tmp_path / "s", [Wrote({"steps": 4}, seed) for seed in (0, 1)]))
    assert done.status == 0 and "2 runs: 2 waiting." in done.words


def test_table_of_training_runs(call, run: Path):
    for where in (run, run.parent):
        (row,) = call("runs", "table", where, "--json").document["runs"]
        assert (row["run"], row["recipe"], row["seed"], row["state"], row["stages"]) == ("first", "nano", 3, "stopped", "all")
        assert (row["last_stage"], row["step"], row["loss"], row["region/l1"]) == ("2.region", 1, 1.5, 0.75)
    (run / "checkpoint").mkdir()
    assert "done" in call("runs", "table", run.parent).words
    done = call("runs", "table", run, "--metric", "loss")
    assert done.status == 2 and "--metric: expected none with training runs" in done.err


@pytest.mark.parametrize("shape", ["key", "start", "name"])
def test_show_tells_everything_of_a_run(call, folder: Path, shape: str):
    key = key_of(folder, 3)
    named = {"key": key, "start": key[:8], "name": "head steps=8 seed=1"}[shape]
    document = call("runs", "show", folder, named, "--json").document
    assert (document["key"], document["state"], document["error"]) == (key, "failed", FAILURE)
    assert (document["values"]["steps"], document["attempts"][0]["worker"]) == (8, "slot 1")
    assert document["files"]["notebook"].endswith(f"jobs/{key}/executed.ipynb") and "result" not in document["files"]
    view = call("runs", "show", folder, named)
    assert "error: cell 7: ValueError: a | b_c <d> and more" in view.words and "steps" in view.out


def test_show_of_a_run_that_is_not_there(call, folder: Path):
    done = call("runs", "show", folder, "head steps=8 seed=2")
    assert done.status == 2 and "Did you mean 'head steps=8 seed=" in done.err


def test_diff_shows_parameters_and_metrics_that_differ(call, folder: Path):
    differ = call("runs", "diff", folder, key_of(folder, 0), "head steps=8 seed=0", "--json").document["differ"]
    assert differ.pop("key") == [key_of(folder, 0), key_of(folder, 2)]
    assert differ == {"parameter steps": [4, 8], "result.headline.acc": [0.5, 1.0]}
    view = call("runs", "diff", folder, key_of(folder, 0), key_of(folder, 2))
    assert "+0.5" in view.out and "+4" in view.out


def test_diff_of_a_run_with_itself(call, folder: Path):
    done = call("runs", "diff", folder, key_of(folder, 0), key_of(folder, 0))
    assert (done.status, done.words) == (0, "head steps=4 seed=0 and head steps=4 seed=0 do not differ.")


def test_diff_of_two_folders(call, folder: Path, tmp_path: Path):
    other = sweep_folder(tmp_path / "other", [scored({"steps": 4}, 0, 0.25), scored({"steps": 4}, 1, 0.75)], commit="abc")
    differ = call("runs", "diff", folder, other, "--json").document["differ"]
    assert differ["environment.commit"] == [None, "abc"] and differ["baseline.steps"] == [4, None]
    assert differ["head steps=4 seed=0: acc"] == [0.5, 0.25] and "head steps=4 seed=1: acc" not in differ
    assert differ["head steps=8 seed=1: state"] == ["failed", None]
    jobs = [where / "jobs" / key_of(where, 0) for where in (folder, other)]
    of_runs = call("runs", "diff", *jobs, "--json").document["differ"]
    assert of_runs == {"environment.commit": [None, "abc"], "result.headline.acc": [0.5, 0.25]}


def test_diff_of_training_runs(call, run: Path, tmp_path: Path):
    other = RunFolder(tmp_path / "runs" / "second", {"recipe": {"name": "nano"}, "stage": "all", "options": {"seed": 4}})
    other.log(stage="2.region", step=1, seconds=0.25, lr=0.2, loss=1.0)
    differ = call("runs", "diff", run, other.path, "--json").document["differ"]
    assert differ == {"options.seed": [3, 4], "last.loss": [1.5, 1.0], "last.region/l1": [0.75, None]}


def test_diff_of_a_folder_without_a_run(call, tmp_path: Path):
    done = call("runs", "diff", tmp_path, tmp_path)
    assert done.status == 2 and "expected a folder with sweep.json, job.json or config.json in it" in done.err


def test_open_prints_the_path(call, folder: Path):
    key = key_of(folder, 0)
    done = call("runs", "open", folder, key[:8], "--print")
    assert done.status == 0 and Path(done.out.strip()).samefile(folder / "jobs" / key / "executed.ipynb")


def test_open_starts_jupyterlab(call, folder: Path, monkeypatch: pytest.MonkeyPatch):
    started: list[list[str]] = []

    def run(words: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        started.append(words)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(opening, "find_spec", lambda name: object() if name == "jupyterlab" else None)
    monkeypatch.setattr(opening.subprocess, "run", run)
    path = folder / "jobs" / key_of(folder, 0) / "executed.ipynb"
    assert call("runs", "open", folder, key_of(folder, 0)).status == 0
    assert started == [[sys.executable, "-m", "jupyterlab", str(path)]]


def test_open_without_jupyterlab_shows_a_page(call, folder: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("nbconvert")
    opened: list[str] = []
    monkeypatch.setattr(opening, "find_spec", lambda name: object() if name == "nbconvert" else None)
    monkeypatch.setattr(opening.webbrowser, "open", opened.append)
    assert call("runs", "open", folder, key_of(folder, 0)).status == 0
    page = folder / "jobs" / key_of(folder, 0) / "executed.html"
    assert opened == [page.resolve().as_uri()] and "Title" in page.read_text()


def test_open_needs_something_that_shows_notebooks(call, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    done = call("runs", "open", folder, key_of(folder, 0))
    assert done.status == 1 and "Opening a notebook needs the module 'jupyterlab'" in done.err


def test_open_of_a_run_that_has_not_begun(call, tmp_path: Path):
    done = call("runs", "open", sweep_folder(tmp_path / "s", [Wrote({}, 0)]), "head seed=0")
    assert done.status == 1 and "the run has not been executed yet" in done.err
