"""Tables written down: CSV, Markdown, LaTeX and the web page, with what is in them read back; and the figures of a run."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from tests.reruns.written import FAILURE, PIXEL, Wrote, scored, sweep_folder
from tpo_lab.errors import UsageError
from tpo_lab.reruns.display.cells import cell, rows_of
from tpo_lab.reruns.display.compact import compact_groups, compact_runs
from tpo_lab.reruns.display.figures import figures_of
from tpo_lab.reruns.display.formats import format_of, latex_text, to_csv, to_latex, to_markdown
from tpo_lab.reruns.display.page import Section, address, render
from tpo_lab.reruns.results.collected import runs_in
from tpo_lab.reruns.results.frames import frame_of
from tpo_lab.reruns.results.grouped import grouped_table
from tpo_lab.reruns.results.statistics import BOOTSTRAP, STUDENT_T
from tpo_lab.reruns.results.table import run_table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROWS = [{"name": "a|b_c\n<d>", "count": 3, "score": 0.123456, "is": True}, {"name": "50% & more", "count": None, "score": None, "is": None}]
FRAME = frame_of(ROWS, ["name", "count", "score", "is"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (float("nan"), ""),
        (pd.NA, ""),
        (True, "yes"),
        (3, "3"),
        (0.123456, "0.1235"),
        (1e-7, "1e-07"),
        ("a b", "a b"),
        (0.0, "0"),
    ],
)
def test_cell(value: object, text: str):
    assert cell(value) == text


@pytest.mark.parametrize(
    ("name", "form"), [("t.csv", "csv"), ("t.MD", "markdown"), ("t.tex", "latex"), ("a.b.html", "html"), ("t.parquet", "parquet")]
)
def test_format_by_the_ending(name: str, form: str):
    assert format_of(Path(name)) == form


def test_format_of_an_unknown_ending():
    with pytest.raises(UsageError, match=r"--out: expected a file that ends in \.csv, .*, got 't\.xlsx'"):
        format_of(Path("t.xlsx"))


def test_csv_comes_back_with_all_digits():
    read = pd.read_csv(io.StringIO(to_csv(FRAME)))
    assert read["name"].tolist() == [row["name"] for row in ROWS]
    assert read["score"][0] == 0.123456
    assert to_csv(FRAME).splitlines()[-1] == "50% & more,,,"


def test_markdown_has_as_many_cells_in_every_line():
    lines = to_markdown(FRAME, "A note.").splitlines()
    assert lines[:2] == ["A note.", ""]
    assert lines[2:] == [
        "| name | count | score | is |",
        "| --- | ---: | ---: | --- |",
        r"| a\|b_c &lt;d> | 3 | 0.1235 | yes |",
        "| 50% & more |  |  |  |",
    ]


def test_latex_has_nothing_that_is_read_as_a_command():
    text = to_latex(FRAME, "A note\nof two lines.")
    assert text.splitlines() == [
        "% A note of two lines.",
        r"\begin{tabular}{lrrl}",
        r"\toprule",
        r"name & count & score & is \\",
        r"\midrule",
        r"a|b\_c \textless{}d\textgreater{} & 3 & 0.1235 & yes \\",
        r"50\% \& more &  &  &  \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert latex_text("\\x{^~#$}") == r"\textbackslash{}x\{\textasciicircum{}\textasciitilde{}\#\$\}"


def test_rows_are_plain_values():
    rows = list(rows_of(FRAME))
    assert rows == ROWS
    assert json.loads(json.dumps(rows)) == ROWS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    runs = [
        scored({"steps": 4}, 0, 0.5),
        scored({"steps": 4}, 1, 0.75),
        scored({"steps": 8}, 0, 1.5),
        Wrote({"steps": 8}, 1, error=FAILURE),
    ]
    return sweep_folder(tmp_path / "a sweep", runs)


def test_compact_runs_say_what_went_wrong_in_one_column(folder: Path):
    short = compact_runs(run_table(runs_in(folder), ["headline.acc"]))
    assert list(short.columns) == ["key", "steps", "seed", "state", "acc", "seconds", "MB", "error"]
    assert short["error"].tolist() == ["", "", "", f"cell 7: ValueError: {FAILURE['message']}"]


def test_compact_runs_without_a_failure_have_no_column_for_it(tmp_path: Path):
    runs = runs_in(sweep_folder(tmp_path / "s", [scored({"steps": 4}, 0, 0.5)]))
    assert "error" not in compact_runs(run_table(runs, ["headline.acc"])).columns


def test_compact_groups_name_the_method_in_the_head(folder: Path):
    found = grouped_table(runs_in(folder), ["headline.acc"], {"steps": 4})
    short = compact_groups(found.frame, found.method)
    heads = ["metric", "steps", "n", "mean", "s.e.", "95% interval (Student's t)", "minus baseline", "95% interval, paired", "pairs"]
    assert list(short.columns) == heads
    assert short["n"].tolist() == ["2", "1 of 2 (1 failed)"]
    assert short.iloc[1]["minus baseline"] == 1.0 and short.iloc[1]["95% interval, paired"] == "", "one pair has no interval"
    assert found.frame["interval"].tolist() == [STUDENT_T] * 2
    assert f"95% interval ({BOOTSTRAP})" in compact_groups(grouped_table(runs_in(folder)[:1], ["headline.acc"]).frame, BOOTSTRAP).columns


class Read(HTMLParser):
    """What a browser would load or follow, and the cells of each row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.rows: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "a":
            self.links.append(str(found["href"]))
        elif tag in ("link", "script", "img"):
            self.loaded += [str(found[name]) for name in ("src", "href") if name in found]
        elif tag == "tr":
            self.rows.append(found.get("class") or "")
        elif tag == "td":
            self.cells.append(str(found["data-value"]))


def test_page_escapes_marks_failures_and_loads_nothing():
    frame = frame_of([{"error": "<script>x</script> \"q\" & 'p'", "n": 0.5}, {"error": "", "n": None}], ["error", "n"])
    text = render("<b>", "a & b", [Section("Runs <", "", frame, failed=[True, False])])
    read = Read(text)
    assert read.loaded == ["data:,"] and not re.search(r"https?:|@import|url\(", text)
    assert read.rows == ["", "failed", ""] and text.count("<script>") == 1
    assert read.cells == ["<script>x</script> \"q\" & 'p'", "0.5", "", ""]
    assert "prefers-color-scheme: dark" in text and "<h1>&lt;b&gt;</h1>" in text


def test_addresses_are_relative_and_lead_to_the_file(tmp_path: Path):
    file = tmp_path / "a sweep" / "jobs" / "50% #1.ipynb"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    link = address(file, tmp_path / "pages")
    assert link == "../a%20sweep/jobs/50%25%20%231.ipynb"
    (tmp_path / "pages").mkdir()
    assert (tmp_path / "pages" / unquote(link)).samefile(file)


def test_figures_are_those_written_and_those_shown(folder: Path):
    run = runs_in(folder)[0].folder
    (run / "run").mkdir()
    (run / "run" / "of training.png").write_bytes(b"x")
    (run / "own.svg").write_text("<svg/>")
    found = figures_of(run)
    assert [str(path.relative_to(run)) for path in found] == ["figures/cell-01-1.png", "own.svg"]
    assert found[0].read_bytes() == base64.b64decode(PIXEL)


def test_figures_follow_a_notebook_that_ran_again_and_a_broken_one_has_none(folder: Path):
    first, second = (run.folder for run in runs_in(folder)[:2])
    picture = figures_of(first)[0]
    picture.write_bytes(b"old")
    os.utime(picture, (1, 1))
    assert figures_of(first)[0].read_bytes() != b"old"
    (second / "executed.ipynb").write_text('{"cells": [')
    assert figures_of(second) == []


def test_figures_of_a_run_that_has_not_begun(tmp_path: Path):
    assert figures_of(tmp_path) == []


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_page_sorts_by_a_click_and_keeps_empty_cells_last(tmp_path: Path):
    sync_api = pytest.importorskip("playwright.sync_api")
    rows = [{"name": name, "score": score} for name, score in (("b", 2.5), ("a10", None), ("a9", 10.0), ("c", -1e-3))]
    (tmp_path / "page.html").write_text(render("t", "s", [Section("Runs", "", frame_of(rows, ["name", "score"]))]))
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())

        def names() -> list[str]:
            return page.locator("tbody tr td:first-child").all_inner_texts()

        page.get_by_role("button", name="score").click()
        assert names() == ["c", "b", "a9", "a10"]
        page.get_by_role("button", name="score").click()
        assert names() == ["a9", "b", "c", "a10"]
        page.get_by_role("button", name="name").click()
        assert names() == ["a9", "a10", "b", "c"], "numbers in names count as numbers"
        assert page.locator("th[aria-sort]").count() == 1 and not errors
        browser.close()
