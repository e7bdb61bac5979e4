"""RunsView without a browser: its numbers are those of the runs table, and its filters, links, curves and state."""

from __future__ import annotations

import io
import json
import math
import re
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.reruns.small_jobs import lock_holder
from tests.reruns.written import FAILURE, Wrote, sweep_folder
from tests.widgets.sweeps import RATES, grid, many, result
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.reruns import run_table, runs_in
from tpo_lab.reruns.disk.folder import JobFolder
from tpo_lab.reruns.display.cells import rows_of
from tpo_lab.reruns.results.statistics import STUDENT_T, spread
from tpo_lab.reruns.results.table import chosen_metrics
from tpo_lab.runs import RunFolder
from tpo_widgets import RunsView
from tpo_widgets.runs.columns import table_of
from tpo_widgets.runs.content import RunsContent
from tpo_widgets.runs.curves import Logs, over_seeds, thinned
from tpo_widgets.runs.filters import rows_that_pass


@pytest.fixture
def folder(sweep: Path) -> Path:
    return sweep


@pytest.fixture
def frame(folder: Path) -> pd.DataFrame:
    runs = runs_in(folder)
    return run_table(runs, chosen_metrics(runs))


def read(content: RunsContent, name: str) -> Any:
    return json.loads(content.resource(name).data)


def decoded(document: dict[str, Any], rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows as the front end reads them."""
    columns = {each["name"]: (each.get("categories"), rows["values"][each["name"]]) for each in document["columns"]}
    found = []
    for row in range(len(rows["ids"])):
        values = {name: coded[row] for name, (_, coded) in columns.items()}
        found.append({name: value if value is None or not columns[name][0] else columns[name][0][value] for name, value in values.items()})
    return found


def test_every_number_is_that_of_the_runs_table(folder: Path, frame: pd.DataFrame):
    content = RunsContent.of(folder)
    rows = decoded(content.document, content.document["rows"])
    assert content.document["rows"]["ids"] == frame["key"].tolist()
    for mine, theirs in zip(rows, rows_of(frame), strict=True):
        for name in ("lr", "mode", "seed", "state", "acc", "iou", "loss", "seconds"):
            assert mine[name] == theirs[name], name
    assert rows[5]["note"] == f"cell 7: ValueError: {' '.join(FAILURE['message'].split())}" and rows[5]["state"] == "failed"
    assert rows[0]["started"] == "2030-01-02 03:04" and rows[11]["started"] is None
    assert content.document["states"] == {"done": 10, "failed": 1, "waiting": 1}


def test_a_folder_and_its_table_show_the_same(folder: Path, frame: pd.DataFrame):
    one, other = RunsContent.of(folder), RunsContent.of(frame)
    assert other.table.ids == one.table.ids and other.table.notebooks == one.table.notebooks
    assert [each for each in one.table.columns if each.name != "started"] == list(other.table.columns)
    assert other.axes == one.axes == ["lr", "mode", "acc", "loss", "iou"] and other.colour == "acc"


def test_what_varies_is_shown_and_the_rest_is_there_to_be_chosen(folder: Path):
    content = RunsContent.of(folder)
    assert content.shown == ["lr", "mode", "seed", "state", "acc", "loss", "iou", "seconds", "started", "note"]
    assert {"run", "link", "peak_memory_mb", "attempts"} <= set(content.table.names)
    kinds = {each["name"]: (each["role"], each["kind"], each["log"], each["lower"]) for each in content.document["columns"]}
    assert kinds["lr"] == ("parameter", "number", True, False) and kinds["mode"] == ("parameter", "category", False, False)
    assert kinds["acc"] == ("metric", "number", False, False) and kinds["loss"] == ("metric", "number", False, True)
    assert kinds["state"] == ("status", "category", False, False) and kinds["note"][1] == "words"


def test_metrics_are_the_headline_or_what_is_asked_for(folder: Path):
    assert table_of(folder, ["after"]).metrics == ["after.region.iou"]
    assert table_of(folder, lower=["acc"]).column("acc").lower and not table_of(folder, lower=["acc"]).column("loss").lower
    view = RunsView(folder, metrics=["after.regin"])
    assert "Some that are there: after.region.iou" in view.problem
    assert "Did you mean 'acc'" in RunsView(folder, lower=["ac"]).problem


def test_best_values_are_the_greatest_or_the_least(folder: Path, frame: pd.DataFrame):
    table = table_of(folder)
    assert table.column("acc").best() == frame["acc"].max() and table.column("loss").best() == frame["loss"].min()
    assert table.column("acc").best([0]) is None, "of one run there is no best"


def test_what_a_search_minimises_is_best_where_it_is_least(folder: Path):
    sweep = json.loads((folder / "sweep.json").read_text())
    for metric, lower in (("headline.acc", {"acc", "loss"}), ("headline.loss", {"loss"})):
        (folder / "sweep.json").write_text(json.dumps({**sweep, "search": {"metric": metric, "direction": "minimize"}}))
        assert {each.name for each in table_of(folder).columns if each.lower} == lower


def test_runs_that_run_and_runs_whose_process_was_killed(folder: Path):
    waiting = JobFolder(runs_in(folder)[11].folder)
    waiting.note({**waiting.begin("slot 1"), "cell": 3, "cells": 9})
    stale = table_of(folder)
    assert stale.column("state").values[11] == "stale" and stale.column("note").values[11] == "cell 3 of 9" and not stale.active
    held = lock_holder(waiting.lock)
    try:
        running = table_of(folder)
        assert running.column("state").values[11] == "running" and running.active
        assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d", running.column("started").values[11])
    finally:
        held.kill()
        held.wait()


@pytest.mark.parametrize(
    ("filters", "search", "expected"),
    [
        ({}, "", range(12)),
        ({"acc": ">=0.6"}, "", [2, 3, 6, 7, 8, 9, 10]),
        ({"acc": "0.55..0.6"}, "", [2, 4]),
        ({"acc": "0.6..0.55"}, "", [2, 4]),
        ({"acc": ">0.55 <0.61"}, "", [2]),
        ({"lr": "=1e-3"}, "", [4, 5, 6, 7]),
        ({"lr": "!=1e-3 <1"}, "", [0, 1, 2, 3, 8, 9, 10, 11]),
        ({"lr": " "}, "", range(12)),
        ({"mode": ["focal"], "seed": "1"}, "", [3, 7, 11]),
        ({"mode": "FOC"}, "", [2, 3, 6, 7, 10, 11]),
        ({"state": ["failed", "waiting"]}, "", [5, 11]),
        ({"iou": [None]}, "", [0, 1, 4, 5, 8, 9, 11]),
        ({"note": "valueerror"}, "", [5]),
        ({}, "LR=0.1 mode=plain", [8, 9]),
        ({"acc": "<0"}, "", []),
        ({"gone": "1"}, "", range(12)),
    ],
)
def test_filters(folder: Path, filters: dict[str, Any], search: str, expected: Any):
    assert rows_that_pass(table_of(folder), filters, search) == list(expected)


@pytest.mark.parametrize("given", [">>1", "1..", "abc", ">=", 3, None])
def test_what_is_no_filter_is_refused(folder: Path, given: Any):
    view = RunsView(folder)
    with pytest.raises(UsageError, match=r"filters\['acc'\]: expected"):
        view.filters = {"acc": given}
    with pytest.raises(UsageError, match="Did you mean 'acc'"):
        view.filters = {"ac": ">1"}
    assert view.filters == {} and len(view.filtered) == 12


def test_filters_and_selection_from_python(folder: Path):
    view = RunsView(folder)
    ids = list(view.content.table.ids)
    told: list[list[str]] = []
    view.observe(lambda change: told.append(change["new"]), "filtered")
    view.filters = {"mode": ["focal"]}
    view.search = "seed=0"
    assert view.filtered == [ids[row] for row in (2, 6, 10)] == told[-1]
    view.filtered = [ids[4], ids[1]]
    assert view.filtered == [ids[1], ids[4]], "in the sweep's order"
    assert (view.filters, view.search, view.only) == ({}, "", [ids[4], ids[1]])
    view.only = None
    assert view.filtered == ids
    view.selected = [ids[3]]
    for trait, value in [
        ("selected", ["x"]),
        ("filtered", ["x"]),
        ("columns", ["x"]),
        ("axes", ["note"]),
        ("colour", "mode"),
        ("order", ["acc"]),
    ]:
        with pytest.raises(UsageError, match=f"{trait}: expected"):
            setattr(view, trait, value)
    assert view.selected == [ids[3]] and view.filtered == ids


def test_no_runs_one_run_and_only_failed_ones(tmp_path: Path):
    (tmp_path / "none").mkdir()
    none = RunsView(sweep_folder(tmp_path / "none", []))
    one = RunsView(sweep_folder(tmp_path / "one", grid()[:1]))
    failed = RunsView(sweep_folder(tmp_path / "failed", [Wrote({"lr": rate}, 0, error=FAILURE) for rate in RATES]))
    assert (none.problem, none.document["total"], none.filtered) == ("", 0, [])
    assert (one.problem, one.content.axes, one.content.shown[:4]) == ("", ["lr", "mode", "acc", "loss"], ["lr", "mode", "state", "acc"])
    assert (failed.problem, failed.content.axes, failed.content.colour) == ("", ["lr"], "")
    assert failed.document["states"] == {"failed": 3} and "note" in failed.content.shown
    for view in (none, one, failed):
        json.dumps(view.document, allow_nan=False)
        assert Image.open(io.BytesIO(view.to_png(width=700))).width == 700
        assert "tpo" in view.to_html()


def test_numbers_that_are_none_and_words_of_every_kind(tmp_path: Path):
    words = ["größe ✓ 漢字", "</script><b>", "x" * 5000, "a\nb", " "]
    runs = [
        Wrote({"word": word, "deep": [1, {"a": 2}]}, 0, result(acc=[math.nan, math.inf, 0.5, 1e-9, 0.0][place]))
        for place, word in enumerate(words)
    ]
    content = RunsContent.of(sweep_folder(tmp_path / "s", runs))
    rows = decoded(content.document, content.document["rows"])
    assert [row["acc"] for row in rows] == [None, None, 0.5, 1e-9, 0.0]
    assert [row["word"] for row in rows][:2] == words[:2] and len(rows[2]["word"]) == 400 and rows[2]["word"].endswith("…")
    assert rows[0]["deep"] == '[1, {"a": 2}]' and "deep" not in content.shown
    json.dumps(content.document, allow_nan=False)
    assert RunsView(tmp_path / "s").to_html().count("</script>") == 2


@pytest.mark.parametrize("given", ["nowhere", "empty", 7, [1, 2]])
def test_what_is_no_sweep_becomes_a_panel(tmp_path: Path, given: Any):
    (tmp_path / "empty").mkdir()
    view = RunsView(tmp_path / given if isinstance(given, str) else given)
    assert view.problem.startswith("RunsView: runs: expected the folder of a sweep") and view.problem.count(". ") <= 1
    assert view.filtered == [] and view.problem in view.to_html()
    with pytest.raises(UsageError, match="runs: expected runs that can be shown"):
        view.to_plotly()


def test_any_table_will_do(tmp_path: Path):
    frame = pd.DataFrame(
        {"lr": [1, 10, 100], "loss": [0.5, np.nan, 0.25], 3: ["a", "b", None], "ok": [True, False, True]}, index=["x", "y", "z"]
    )
    table = table_of(frame)
    assert table.ids == ("x", "y", "z") and table.metrics == ["loss"] and table.varied == ["lr", "3", "ok"]
    assert table.column("loss").values == (0.5, None, 0.25) and table.column("3").values == ("a", "b", None)
    assert table.column("ok").values == ("yes", "no", "yes") and table.column("lr").is_log
    assert table_of(frame, metrics=["lr"]).metrics == ["lr"]
    assert table_of(pd.DataFrame({"x": [1, 1]}, index=["a", "a"])).ids == ("0", "1")
    assert "expected columns of different names" in RunsView(pd.DataFrame([[1, 2]], columns=["a", "a"])).problem


def test_a_folder_of_training_runs(tmp_path: Path):
    for place, name in enumerate(["one", "two"]):
        made = RunFolder(tmp_path / "runs" / name, {"recipe": {"name": "nano"}, "stage": "all", "options": {"seed": place}})
        made.log(stage="1", step=1, seconds=0.5, loss=2.0 - place)
    content = RunsContent.of(tmp_path / "runs")
    assert content.table.ids == ("one", "two") and content.table.metrics == ["loss"] and content.document["states"] == {"stopped": 2}
    assert read(content, 'curve ["two","loss"]') == {"steps": [1.0], "values": [1.0]}


def test_links_lead_to_the_executed_notebooks(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (runs_in(folder)[2].folder / "executed.html").write_text("<p>")
    content = RunsContent.of(folder)
    links = content.document["rows"]["links"]
    assert links[0] == [f"jobs/{content.table.ids[0]}/executed.ipynb"] and len(links[2]) == 2 and links[11] is None
    for where in (tmp_path, tmp_path / "reports" / "deep", folder):
        where.mkdir(parents=True, exist_ok=True)
        view = RunsView(folder)
        before = view.base
        view.to_html(where / "page.html")
        state = json.loads(re.search(r'<script type="application/json" id="state">(.*?)</script>', (where / "page.html").read_text())[1])
        base = state["views"][0]["state"]["base"]
        for link in filter(None, links):
            for each in link:
                assert (where / base / unquote(each)).is_file()
        assert str(tmp_path) not in (where / "page.html").read_text(), "no path of this machine"
        assert view.base == before
    monkeypatch.chdir(folder.parent)
    assert RunsView(folder).base == "sweep"


def test_opening_a_run_tells_python(folder: Path):
    view, opened = RunsView(folder), []
    view.on_open(opened.append)
    for name in (view.filtered[0], view.filtered[11], "nobody"):
        view._answer(view, {"opened": name}, [])
    (path,) = opened
    assert path == folder.resolve() / "jobs" / view.filtered[0] / "executed.ipynb" and view.opened == str(path)


def test_curves_are_what_was_logged(folder: Path):
    content = RunsContent.of(folder)
    first, failed = content.table.ids[0], content.table.ids[5]
    assert read(content, "terms") == {"terms": ["loss", "region/l1", "seconds", "lr", "gradient/region"]}
    assert read(content, f'curve ["{content.table.ids[1]}","loss"]') == {"steps": [1, 2, 3, 4, 5], "values": [3, 2, 1.66667, 1.5, 1.4]}
    with pytest.raises(TPOError, match=r"no metrics\.jsonl"):
        content.resource(f'curve ["{failed}","loss"]')
    with pytest.raises(UsageError, match="Did you mean 'loss'"):
        content.resource(f'curve ["{first}","los"]')
    for name in ("frame 1", "curve x", "curve [1]"):
        with pytest.raises(UsageError, match="resource: expected"):
            content.resource(name)


def test_stages_follow_each_other_and_trainings_are_named(tmp_path: Path):
    (run,) = grid()[:1]
    folder = sweep_folder(tmp_path / "s", [run])
    for part in ("3a", "3b"):
        made = RunFolder(folder / "jobs" / run.key / "run" / part, {})
        for stage in ("1", "2"):
            for step in (1, 2):
                made.log(stage=stage, step=step, loss=float(step), **{"nan": math.nan})
    content = RunsContent.of(folder)
    assert read(content, "terms") == {"terms": ["3a · loss", "3b · loss"]}
    found = read(content, f"curve {json.dumps([run.key, '3b · loss'])}")
    assert found == {"steps": [1, 2, 3, 4], "values": [1, 2, 1, 2]}


def test_the_mean_over_seeds_is_that_of_the_statistics(folder: Path):
    content = RunsContent.of(folder)
    ids = content.table.ids
    found = read(content, f"mean {json.dumps([[ids[0], ids[1]], 'loss'])}")
    expected = [spread([2 / step, 2 / step + 1], STUDENT_T) for step in range(1, 6)]
    assert found["steps"] == [1, 2, 3, 4, 5]
    assert found["mean"] == [each.mean for each in expected] and found["low"] == [each.low for each in expected]
    assert over_seeds([([1, 2], [1.0, 2.0]), ([2, 3], [4.0, 5.0])])["mean"] == [3.0], "where all have a value"
    assert over_seeds([([1], [1.0])])["low"] == [None]


def test_long_curves_keep_their_ends_and_their_spikes():
    rng = np.random.default_rng(0)
    values = rng.normal(size=20_001).tolist()
    values[7_777], values[12_345] = 99.0, -99.0
    steps, kept = thinned(list(range(20_001)), values)
    assert len(steps) <= 300 and steps == sorted(set(steps)) and steps[0] == 0 and steps[-1] == 20_000
    assert kept == [values[step] for step in steps] and 99.0 in kept and -99.0 in kept
    assert thinned([1, 2], [3.0, 4.0]) == ([1, 2], [3.0, 4.0])


def test_logs_are_read_again_where_they_have_grown(tmp_path: Path):
    made = RunFolder(tmp_path / "run", {})
    made.log(step=1, loss=1.0)
    logs = Logs({"a": tmp_path})
    assert logs.curve("a", "loss") == ([1.0], [1.0])
    made.log(step=2, loss=0.5)
    assert logs.among({"a": tmp_path}).curve("a", "loss") == ([1.0, 2.0], [1.0, 0.5])


def test_refresh_reads_the_folder_again_and_keeps_what_was_chosen(tmp_path: Path):
    runs = grid()
    folder = sweep_folder(tmp_path / "s", runs)
    view = RunsView(folder)
    view.filters, view.selected, view.order = {"state": ["waiting"]}, [runs[11].key], ["acc", "descending"]
    assert view.filtered == [runs[11].key]
    job = JobFolder(folder / "jobs" / runs[11].key)
    note = job.begin("w")
    (job.path / "result.json").write_text(json.dumps({**result(acc=0.875), "job": runs[11].key}))
    job.end(note, "done")
    view.refresh()
    assert view.content.table.column("acc").values[11] == 0.875 and view.filtered == []
    assert (view.filters, view.selected, view.order) == ({"state": ["waiting"]}, [runs[11].key], ["acc", "descending"])
    document = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps({**document, "jobs": document["jobs"][:3]}))
    view.refresh()
    assert view.selected == [] and view.document["total"] == 3
    (folder / "sweep.json").unlink()
    view.refresh()
    assert "expected the folder of a sweep" in view.problem
    (folder / "sweep.json").write_text(json.dumps(document))
    view.refresh()
    assert view.problem == "" and view.document["total"] == 12


def test_follow_sees_what_comes_and_ends_with_the_runs(tmp_path: Path):
    runs = [*grid()[:2], Wrote({"lr": 7.0, "mode": "plain"}, 0)]
    folder = sweep_folder(tmp_path / "s", runs)
    view, seen = RunsView(folder), threading.Event()
    view.observe(lambda change: seen.set() if change["new"]["states"].get("running") else None, "document")
    held = lock_holder(folder / "jobs" / runs[2].key / "lock")
    try:
        view.follow(0.02)
        assert view.following and seen.wait(30)
    finally:
        held.kill()
        held.wait()
    end = time.monotonic() + 30
    while view.following and time.monotonic() < end:
        time.sleep(0.02)
    assert not view.following, "it ends where nothing runs any more"
    assert view.document["states"] == {"done": 2, "waiting": 1}
    view.follow(100)
    view.stop()
    assert not view.following
    view.follow(100)
    view.close()
    assert not view.following
    with pytest.raises(UsageError, match="seconds: expected more than 0"):
        view.follow(0)


def test_two_thousand_runs_travel_as_one_resource(tmp_path: Path):
    folder = many(tmp_path / "s", 2000)
    view = RunsView(folder)
    view.filters, view.selected = {"mode": ["a", "b"]}, list(view.content.table.ids[:40])
    assert len(str(view.get_state())) <= 100_000
    assert len(json.dumps(view.document, allow_nan=False)) <= 30_000
    assert view.document["total"] == 2000 and 0 < len(view.document["rows"]["ids"]) < 500
    rows = read(view.content, view.document["more"])
    assert rows["ids"] == list(view.content.table.ids) and len(decoded(view.document, rows)) == 2000
    frame = run_table(runs_in(folder), ["headline.acc"])
    assert [row["acc"] for row in decoded(view.document, rows)] == [row["acc"] for row in rows_of(frame)]
    assert len(view.content.resource(view.document["more"]).data) < 400_000
    assert next(iter(view.content.names())) == view.document["more"]
    assert len(view.filtered) == sum(word in ("a", "b") for word in view.content.table.column("mode").values)


def test_an_ordinary_state_is_small(folder: Path):
    view = RunsView(folder)
    assert len(str(view.get_state())) <= 100_000 and len(json.dumps(view.document)) < 12_000
    assert len(view._esm) <= 55_000


def test_plotly_gets_the_runs_that_pass(folder: Path, frame: pd.DataFrame):
    pytest.importorskip("plotly")
    view = RunsView(folder)
    view.filters = {"mode": ["focal"]}
    (trace,) = view.to_plotly().data
    assert [each.label for each in trace.dimensions] == ["lr", "mode", "acc", "loss", "iou"]
    there = frame[(frame["mode"] == "focal") & frame["acc"].notna()]
    assert list(trace.dimensions[2].values) == there["acc"].tolist() == list(trace.line.color)
    assert list(trace.dimensions[0].values) == pytest.approx(np.log10(there["lr"].astype(float)).tolist())
    assert list(trace.dimensions[0].ticktext) == ["0.0001", "0.001", "0.01", "0.1"]
    assert list(trace.dimensions[1].ticktext) == ["focal", "plain"]
    view.axes, view.colour = ["seed", "loss"], "loss"
    assert [each.label for each in view.to_plotly().data[0].dimensions] == ["seed", "loss"]


def test_the_picture_has_the_best_runs_and_the_lines(folder: Path):
    view = RunsView(folder)
    light, dark = (np.asarray(view.content.picture(view.moment, dark=dark, width=800)) for dark in (False, True))
    assert light.shape == dark.shape and light.shape[1] == 800
    assert (light[0, 0] == 255).all() and dark[0, 0].max() < 40
    orange = np.array([0xC4, 0x70, 0x1A])
    assert (np.abs(light.astype(int) - orange).max(-1) < 12).sum() > 100, "the line of the best run"
