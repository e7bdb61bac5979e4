"""RunsView in a browser: what is done by mouse and keyboard reaches Python, and what Python sets is shown."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.reruns.written import FAILURE, Wrote, sweep_folder
from tests.widgets.bridge import Live
from tests.widgets.sweeps import accuracy, grid, many, result
from tpo_lab.reruns.disk.folder import JobFolder
from tpo_widgets import RunsView
from tpo_widgets.runs.filters import rows_that_pass

pytestmark = pytest.mark.browser

AXIS = """(name) => {
  const place = document.querySelector(`g[data-axis="${name}"] > line`).getBoundingClientRect();
  return [place.x, place.width, place.bottom, place.y];
}"""
NONE = "\N{EN DASH}"
ACTIVE = "() => document.getElementById(document.activeElement.getAttribute('aria-activedescendant')).dataset.row"
SMALLEST_TEXT = """() => Math.min(
  ...[...document.querySelectorAll('.tpo-view *')].map((each) => parseFloat(getComputedStyle(each).fontSize)))"""
ROWS = "() => [...document.querySelectorAll('tbody tr[data-id]')].map((row) => row.dataset.id)"
CELLS = """(name) => {
  const head = document.querySelector(`th[data-column="${name}"]`), place = [...head.parentNode.children].indexOf(head);
  return [...document.querySelectorAll('tbody tr[data-id]')].map((row) => row.children[place].textContent);
}"""


@pytest.fixture
def folder(sweep: Path) -> Path:
    return sweep


@pytest.fixture
def view(folder: Path) -> RunsView:
    return RunsView(folder)


@pytest.fixture
def on_page(live: Callable[..., Live], view: RunsView) -> Live:
    opened = live(view)
    opened.until_page("() => document.querySelector('.tpo-runs-legend button')")
    return opened


def ids(view: RunsView, *rows: int) -> list[str]:
    return [view.content.table.ids[row] for row in rows]


def shown(live: Live) -> list[str]:
    return list(live.page.evaluate(ROWS))


def axis(live: Live, name: str) -> tuple[float, float, float]:
    """Where an axis is on the page: x, its foot and its head, in pixels."""
    x, width, foot, head = live.page.evaluate(AXIS, name)
    return x + width / 2, foot, head


def written(group: Any, kind: str) -> list[str]:
    """The words of an axis, without their titles."""
    return list(group.locator(f"text.{kind}").evaluate_all("(found) => found.map((each) => each.lastChild.data)"))


def brushed(live: Live, name: str, low: float, high: float) -> None:
    x, foot, head = axis(live, name)
    mouse = live.page.mouse
    mouse.move(x, foot - low * (foot - head))
    mouse.down()
    mouse.move(x, foot - (low + high) / 2 * (foot - head))
    mouse.move(x, foot - high * (foot - head))
    mouse.up()


def test_the_table_shows_the_numbers_of_the_runs(on_page: Live, view: RunsView):
    assert shown(on_page) == list(view.content.table.ids)
    values = view.content.table.column("acc").values
    best = max(value for value in values if value is not None)
    told = [("★ " if value == best else "") + (NONE if value is None else f"{value:.4g}") for value in values]
    assert on_page.page.evaluate(CELLS, "acc") == told
    assert on_page.page.evaluate(CELLS, "lr")[::4] == ["0.0001", "0.001", "0.1"]
    assert on_page.page.evaluate(CELLS, "state")[5] == "✕failed"
    assert on_page.page.evaluate(CELLS, "note")[5] == f"cell 7: ValueError: {' '.join(FAILURE['message'].split())}"
    aligned = "() => getComputedStyle(document.querySelector('tbody td.n')).textAlign"
    assert on_page.page.evaluate(aligned) == "right"
    assert on_page.page.evaluate("() => document.documentElement.scrollWidth") <= 900
    assert view.selected == [] and view.filters == {}, "a view does nothing on its own"


def test_heads_sort_by_mouse_and_keyboard(on_page: Live, view: RunsView):
    head = on_page.page.locator('th[data-column="acc"]')
    head.locator("button").click()
    on_page.until(lambda: view.order == ["acc", "ascending"])
    on_page.until(lambda: head.get_attribute("aria-sort") == "ascending")
    assert on_page.until(lambda: shown(on_page) == ids(view, *view.content.table.ordered("acc", descending=False)))
    head.locator("button").press("Enter")
    on_page.until(lambda: view.order == ["acc", "descending"])
    assert on_page.until(lambda: shown(on_page) == ids(view, *view.content.table.ordered("acc", descending=True)))
    head.locator("button").press("Enter")
    on_page.until(lambda: view.order == [])
    view.order = ["loss", "descending"]
    on_page.until_page("() => document.querySelector('th[data-column=loss]').ariaSort === 'descending'")


def test_filters_that_are_typed_reach_python(on_page: Live, view: RunsView):
    box = on_page.page.get_by_label("Filter acc")
    box.type(">=0.6 <0.7")
    on_page.until(lambda: view.filters == {"acc": ">=0.6 <0.7"})
    assert view.filtered == ids(view, 2, 3, 6, 7, 8, 9)
    assert on_page.until(lambda: shown(on_page) == view.filtered)
    assert box.input_value() == ">=0.6 <0.7"
    box.fill(">=")
    on_page.pump()
    assert box.get_attribute("aria-invalid") == "true" and view.filters == {"acc": ">=0.6 <0.7"}
    box.fill("")
    on_page.until(lambda: view.filters == {})
    on_page.page.get_by_label("Search in all words").fill("ValueError")
    on_page.until(lambda: view.filtered == ids(view, 5))
    on_page.until(lambda: "1 pass the filters" in on_page.page.inner_text(".tpo-runs-head"))
    on_page.page.get_by_role("button", name="Clear filters").click()
    on_page.until(lambda: view.search == "" and len(view.filtered) == 12)


def test_categories_are_checked_and_the_window_closes_with_escape(on_page: Live, view: RunsView):
    button = on_page.page.locator('button[data-filter="state"]')
    button.click()
    panel = on_page.page.get_by_role("dialog", name="Filter state")
    panel.get_by_label("done").uncheck()
    on_page.until(lambda: view.filters == {"state": ["failed", "waiting"]})
    assert view.filtered == ids(view, 5, 11)
    panel.get_by_label("waiting").press("Escape")
    assert panel.count() == 0 and on_page.page.evaluate("() => document.activeElement.dataset.filter") == "state"
    on_page.until(lambda: button.inner_text() == "2 of 3 ▾")


def test_filters_from_python_are_shown(on_page: Live, view: RunsView):
    view.filters = {"acc": "0.55..0.6", "mode": ["focal"]}
    on_page.until(lambda: shown(on_page) == ids(view, 2) == view.filtered)
    assert on_page.page.get_by_label("Filter acc").input_value() == "0.55..0.6"
    assert on_page.page.locator('button[data-filter="mode"]').inner_text() == "focal ▾"
    assert on_page.page.locator('g[data-axis="acc"] rect.brush').count() == 1
    view.filtered = ids(view, 7, 1)
    on_page.until(lambda: shown(on_page) == ids(view, 1, 7))
    on_page.page.get_by_role("button", name="2 runs were chosen; show all again").click()
    on_page.until(lambda: view.only is None and len(view.filtered) == 12)


def test_the_browser_and_python_filter_alike(on_page: Live, view: RunsView):
    cases: list[tuple[dict[str, Any], str]] = [
        ({"acc": ">=0.6"}, ""),
        ({"acc": "0.6..0.55"}, ""),
        ({"lr": "!=1e-3 <1"}, ""),
        ({"lr": "1E-4..+.001"}, ""),
        ({"iou": [None]}, ""),
        ({"iou": "!=3"}, ""),
        ({"mode": "FOC"}, ""),
        ({"mode": [], "acc": ">0"}, ""),
        ({"note": "valueERROR", "seed": "1"}, ""),
        ({}, "lr=0.1 MODE"),
        ({"acc": "  "}, "  focal"),
    ]
    for filters, search in cases:
        view.filters, view.search = filters, search
        expected = ids(view, *rows_that_pass(view.content.table, filters, search))
        assert view.filtered == expected
        on_page.until(lambda expected=expected: shown(on_page) == expected, str(filters))


def test_runs_are_selected_by_mouse(on_page: Live, view: RunsView):
    rows = on_page.page.locator("tbody tr[data-id]")
    rows.nth(2).locator("td").nth(2).click()
    on_page.until(lambda: view.selected == ids(view, 2))
    on_page.until(lambda: rows.nth(2).get_attribute("aria-selected") == "true")
    rows.nth(5).locator("td").nth(2).click(modifiers=["Shift"])
    on_page.until(lambda: view.selected == ids(view, 2, 3, 4, 5))
    assert "cell 7: ValueError" in on_page.page.inner_text(".tpo-runs-about")
    rows.nth(3).locator("td").nth(2).click(modifiers=["Control"])
    on_page.until(lambda: view.selected == ids(view, 2, 4, 5))
    rows.nth(0).locator("td").first.click()
    on_page.until(lambda: view.selected == ids(view, 2, 4, 5, 0))
    on_page.page.get_by_role("button", name="Only selected").click()
    on_page.until(lambda: view.filtered == ids(view, 0, 2, 4, 5))


def test_runs_are_selected_by_keyboard(on_page: Live, view: RunsView):
    grid = on_page.page.get_by_role("grid")
    grid.focus()
    for key in ("ArrowDown", "ArrowDown", " "):
        grid.press(key)
    on_page.until(lambda: view.selected == ids(view, 1))
    assert on_page.page.evaluate(ACTIVE) == "1"
    for key in ("Shift+ArrowDown", "Shift+ArrowDown"):
        grid.press(key)
    on_page.until(lambda: view.selected == ids(view, 1, 2, 3))
    grid.press("End")
    grid.press(" ")
    on_page.until(lambda: view.selected == ids(view, 1, 2, 3, 11))
    grid.press("Control+a")
    on_page.until(lambda: len(view.selected) == 12)
    grid.press("Escape")
    on_page.until(lambda: view.selected == [])


def test_selection_from_python_is_shown(live: Callable[..., Live], tmp_path: Path):
    view = RunsView(many(tmp_path / "many", 300))
    on_page = live(view)
    on_page.until(lambda: "reading" not in on_page.page.inner_text(".tpo-runs-head"))
    view.selected = ids(view, 250)
    on_page.until_page("() => document.querySelector('tbody tr[aria-selected=true]')")
    row = on_page.page.locator("tbody tr[aria-selected=true]")
    box = on_page.page.locator(".tpo-runs-box").bounding_box()
    place = on_page.until(lambda: (found := row.bounding_box()) and found["y"] > box["y"] and found)
    assert row.get_attribute("data-id") == ids(view, 250)[0] and place["y"] + place["height"] <= box["y"] + box["height"] + 1
    assert on_page.page.locator("path.chosen").count() == 1


def test_enter_opens_the_notebook(on_page: Live, view: RunsView, folder: Path):
    opened: list[Path] = []
    view.on_open(opened.append)
    on_page.page.evaluate("() => document.addEventListener('click', (event) => event.target.closest('a') && event.preventDefault(), true)")
    on_page.page.locator("tbody tr[data-id]").nth(3).get_by_text("open").click()
    on_page.until(lambda: opened)
    assert opened[0] == folder.resolve() / "jobs" / ids(view, 3)[0] / "executed.ipynb" and view.opened == str(opened[0])
    grid = on_page.page.get_by_role("grid")
    grid.press("Home")
    grid.press("Enter")
    on_page.until(lambda: len(opened) == 2)
    assert opened[1].parent.name == ids(view, 0)[0]
    assert view.selected == [], "a link does not select"


@pytest.mark.parametrize(
    ("notebook", "base", "path"),
    [
        ("course/one two.ipynb", "runs/sweep", "course/runs/sweep/jobs/"),
        ("RTC:course/deep/one.ipynb", "../runs/sweep", "course/runs/sweep/jobs/"),
        ("one.ipynb", "../runs/sweep", None),
    ],
)
def test_in_jupyter_lab_links_lead_below_the_servers_root(
    open_page: Callable[..., Any], view: RunsView, notebook: str, base: str, path: str | None
):
    page = open_page(view)
    page.evaluate(
        """([notebook, base]) => {
          const config = document.createElement("script");
          Object.assign(config, { id: "jupyter-config-data", type: "application/json", textContent: '{"baseUrl": "/user/me/"}' });
          document.body.append(config);
          tpoPage.models[0].widget_manager.context = { path: notebook };
          tpoPage.models[0].set("base", base);
        }""",
        [notebook, base],
    )
    if path is None:
        page.wait_for_function("() => document.querySelector('tbody tr').textContent.includes('outside')")
        assert page.locator("tbody a").count() == 0
        return
    page.wait_for_selector("tbody a[data-commandlinker-command='docmanager:open']")
    link, expected = page.locator("tbody a").first, f"{path}{ids(view, 0)[0]}/executed.ipynb"
    assert json.loads(link.get_attribute("data-commandlinker-args")) == {"path": expected}
    assert link.get_attribute("href") == f"/user/me/lab/tree/{expected}"


def test_a_range_that_is_brushed_filters_the_table(on_page: Live, view: RunsView):
    brushed(on_page, "acc", 0.3, 0.7)
    on_page.until(lambda: "acc" in view.filters)
    low, high = map(float, view.filters["acc"].split(".."))
    assert (low, high) == pytest.approx((0.5 + 0.3 * 0.25, 0.5 + 0.7 * 0.25), abs=0.003)
    assert view.filtered == ids(
        view, *(row for row, value in enumerate(view.content.table.column("acc").values) if value and low <= value <= high)
    )
    assert on_page.until(lambda: shown(on_page) == view.filtered)
    x, foot, head = axis(on_page, "acc")
    on_page.page.mouse.move(x, foot - 0.5 * (foot - head))
    on_page.page.mouse.down()
    on_page.page.mouse.move(x, foot - 0.6 * (foot - head), steps=4)
    on_page.page.mouse.up()
    on_page.until(lambda: float(view.filters["acc"].split("..")[0]) == pytest.approx(0.6, abs=0.003), "the whole brush moves")
    among = axis(on_page, "mode")[0]
    brushed(on_page, "mode", 0.55, 0.95)
    on_page.until(lambda: view.filters.get("mode") == ["plain"])
    on_page.page.mouse.click(among, foot - 20)
    on_page.until(lambda: "mode" not in view.filters)
    brushed(on_page, "lr", 0.2, 0.5)
    on_page.until(lambda: "lr" in view.filters)
    low, high = map(float, view.filters["lr"].split(".."))
    assert (low, high) == pytest.approx((1e-4 * 1000**0.2, 1e-4 * 1000**0.5), rel=0.05), "the axis of the rate is logarithmic"


def test_axes_are_brushed_moved_and_made_linear_by_keyboard(on_page: Live, view: RunsView):
    at = on_page.page.locator('g[data-axis="acc"]')
    at.focus()
    at.press("ArrowDown")
    on_page.until(lambda: view.filters == {"acc": "0.5..0.7375"})
    at.press("Shift+ArrowUp")
    on_page.until(lambda: view.filters == {"acc": "0.5125..0.7375"})
    on_page.until(lambda: at.get_attribute("aria-valuetext") == "0.5125..0.7375")
    at.press("Escape")
    on_page.until(lambda: view.filters == {})
    at.press("ArrowLeft")
    on_page.until(lambda: view.axes == ["lr", "acc", "mode", "loss", "iou"])
    at.press("ArrowRight")
    on_page.until(lambda: view.axes == ["lr", "mode", "acc", "loss", "iou"])
    rate = on_page.page.locator('g[data-axis="lr"]')
    rate.focus()
    assert written(rate, "log") == ["log"] and written(rate, "tick") == ["0.0001", "0.001", "0.1"]
    rate.press("l")
    assert written(rate, "log") == ["linear"]
    words = on_page.page.locator('g[data-axis="mode"]')
    words.focus()
    words.press("ArrowDown")
    on_page.until(lambda: view.filters == {"mode": ["focal"]})


def test_axes_are_dragged_by_their_names(on_page: Live, view: RunsView):
    name = on_page.page.locator('g[data-axis="loss"] text.name').bounding_box()
    to = axis(on_page, "lr")[0]
    on_page.page.mouse.move(name["x"] + name["width"] / 2, name["y"] + 5)
    on_page.page.mouse.down()
    on_page.page.mouse.move(to + 4, name["y"] + 5, steps=12)
    on_page.page.mouse.up()
    on_page.until(lambda: view.axes == ["loss", "lr", "mode", "acc", "iou"])
    view.axes = ["acc", "seed"]
    on_page.until_page("() => document.querySelectorAll('g.axis').length === 2")
    on_page.page.get_by_role("button", name="Axes").click()
    on_page.page.get_by_role("dialog", name="Axes").get_by_label("loss").check()
    on_page.until(lambda: view.axes == ["acc", "seed", "loss"])
    on_page.page.get_by_label("Colour by").select_option("loss")
    on_page.until(lambda: view.colour == "loss")


def test_pointing_at_a_line_marks_its_row_and_the_other_way_round(on_page: Live, view: RunsView):
    x, foot, _ = axis(on_page, "acc")
    lowest = view.content.table.column("acc").values.index(accuracy(1e-4, "plain", 0))
    on_page.page.mouse.move(x + 14, foot - 16)
    on_page.page.mouse.move(x + 15, foot - 16)
    on_page.page.locator("tbody tr[data-id]").nth(lowest).hover()
    path = on_page.page.locator("path.pointed:not(.curve)").get_attribute("d")
    points = [tuple(map(float, point.split())) for point in path[1:].split("L")]
    corner = on_page.page.locator("svg.tpo-runs-chart").first.bounding_box()
    assert points[2][1] == pytest.approx(foot - corner["y"], abs=1), "the least accuracy is at the foot of its axis"
    middle = [(points[0][0] + points[1][0]) / 2 + corner["x"], (points[0][1] + points[1][1]) / 2 + corner["y"]]
    on_page.page.mouse.move(*middle)
    marked = on_page.page.locator("tbody tr.pointed")
    assert marked.count() == 1 and marked.get_attribute("data-id") in ids(view, 0, 1), "seeds 0 and 1 share this part"


def test_learning_curves_are_those_of_the_selected_runs(on_page: Live, view: RunsView):
    page = on_page.page
    assert page.locator("path.curve").count() == 3 and page.locator(".tpo-runs-legend button.off").count() == 9
    view.selected = ids(view, 3, 0)
    on_page.until_page("() => document.querySelectorAll('path.curve').length === 2")
    assert [text.split("last")[1].strip() for text in page.locator(".tpo-runs-legend button").all_inner_texts()] == ["2.4", "0.4"]
    points = page.locator(f'path.curve[data-run="{ids(view, 0)[0]}"]').get_attribute("d")[1:].split("L")
    ys = [float(point.split()[1]) for point in points]
    low, high, values = 0.4, 4.0, [2 / step for step in range(1, 6)]
    assert ys == pytest.approx([206 - (value - low) / (high - low) * 196 for value in values], abs=0.2)
    page.get_by_label("Term").select_option("region/l1")
    on_page.until(lambda: view.term == "region/l1")
    view.selected = []
    page.get_by_role("button", name="mean over seeds").click()
    on_page.until_page("() => document.querySelectorAll('path.band').length === 1")
    assert "(2 seeds)" in page.locator(".tpo-runs-legend button").first.inner_text()


def test_a_refresh_keeps_scroll_focus_filters_and_selection(live: Callable[..., Live], tmp_path: Path):
    runs = [Wrote({"lr": place / 100, "number": place}, place, result(acc=place / 60)) for place in range(59)]
    runs.append(Wrote({"lr": 0.5, "number": 59}, 59))
    folder = sweep_folder(tmp_path / "s", runs)
    view = RunsView(folder)
    on_page = live(view)
    box, typed = on_page.page.locator(".tpo-runs-box"), on_page.page.get_by_label("Filter acc")
    on_page.until(lambda: "reading" not in on_page.page.inner_text(".tpo-runs-head"))
    view.selected, view.columns = ids(view, 2), ["number", "state", "acc", "seconds"]
    on_page.pump()
    on_page.until_page("() => document.querySelectorAll('th[data-column]').length === 4")
    typed.click()
    typed.type(">=0.05")
    on_page.until(lambda: view.filters)
    box.evaluate("(each) => { each.scrollTop = 500; }")
    job = JobFolder(folder / "jobs" / runs[59].key)
    note = job.begin("w")
    (job.path / "result.json").write_text(json.dumps({**result(acc=0.99), "job": runs[59].key}))
    job.end(note, "done")
    view.refresh()
    on_page.until(lambda: "60 done" in on_page.page.inner_text(".tpo-runs-head"))
    on_page.until(lambda: "reading" not in on_page.page.inner_text(".tpo-runs-head"))
    assert box.evaluate("(each) => each.scrollTop") == 500
    assert on_page.page.evaluate("() => document.activeElement.dataset.filter") == "acc" and typed.input_value() == ">=0.05"
    assert view.selected == ids(view, 2) and view.filters == {"acc": ">=0.05"}
    assert runs[59].key in view.filtered
    box.evaluate("(each) => { each.scrollTop = 5000; }")
    on_page.until(lambda: shown(on_page)[-1] == runs[59].key)
    typed.type("1")
    on_page.until(lambda: view.filters == {"acc": ">=0.051"})


def test_two_thousand_runs_are_filtered_and_sorted_in_the_browser(open_page: Callable[..., Any], artifacts: Path):
    numbers = np.arange(2000)
    table = {"lr": 10.0 ** -(1 + numbers % 4), "mode": np.array(["a", "b", "c"])[numbers % 3], "number": numbers, "acc": numbers / 2000}
    view = RunsView(pd.DataFrame(table), metrics=["acc"])
    page = open_page(view)
    page.wait_for_function("() => !document.querySelector('.tpo-runs-head').textContent.includes('reading')")
    assert page.locator("tbody tr[data-id]").count() < 60, "only what is looked at is drawn"
    page.get_by_label("Filter number").fill("1990..1999")
    page.wait_for_function("() => document.querySelectorAll('tbody tr[data-id]').length === 10")
    page.get_by_label("Filter number").fill("")
    page.locator('th[data-column="number"] button').click()
    page.locator('th[data-column="number"] button').click()
    page.wait_for_function("() => document.querySelector('tbody tr[data-id]').dataset.row === '1999'")
    page.locator(".tpo-runs-box").evaluate("(each) => { each.scrollTop = each.scrollHeight; }")
    page.wait_for_function("() => [...document.querySelectorAll('tbody tr[data-id]')].at(-1).dataset.row === '0'")
    page.screenshot(path=artifacts / "runs_2000.png", full_page=True)


def test_odd_sweeps_are_drawn(open_page: Callable[..., Any], tmp_path: Path):
    (tmp_path / "none").mkdir()
    none = open_page(RunsView(sweep_folder(tmp_path / "none", [])))
    assert "No runs yet." in none.inner_text(".tpo-view")
    one = open_page(RunsView(sweep_folder(tmp_path / "one", grid()[:1])))
    assert one.locator("tbody tr[data-id]").count() == 1 and one.locator("td.best").count() == 0
    failed = open_page(RunsView(sweep_folder(tmp_path / "failed", [Wrote({"lr": rate}, 0, error=FAILURE) for rate in (0.1, 0.2)])))
    assert failed.locator("tbody td.tpo-runs-failed").count() == 2 and "No run has logged a training" in failed.inner_text(".tpo-view")
    words = ["größe ✓ 漢字", "</script><b>bold</b>", "x" * 5000]
    odd = open_page(RunsView(sweep_folder(tmp_path / "odd", [Wrote({"word": word}, 0, result(acc=0.5)) for word in words])))
    assert odd.locator("tbody td[title='größe ✓ 漢字']").count() == 1 and odd.locator("tbody b").count() == 0
    assert odd.evaluate("() => document.documentElement.scrollWidth") <= 900
    panel = open_page(RunsView(tmp_path / "nowhere"))
    assert "expected the folder of a sweep" in panel.inner_text("[role=alert]")


def test_a_page_from_disk_links_to_notebooks_that_are_there(new_page: Callable[..., Any], view: RunsView, tmp_path: Path):
    (tmp_path / "reports").mkdir()
    view.to_html(tmp_path / "reports" / "page.html")
    page = new_page()
    page.goto((tmp_path / "reports" / "page.html").as_uri())
    page.wait_for_selector("tbody a")
    links = page.evaluate("() => [...document.querySelectorAll('tbody a')].map((link) => [link.getAttribute('href'), link.href])")
    assert len(links) == 11
    for written, followed in links:
        assert written.startswith("../sweep/jobs/") and Path(followed.removeprefix("file://")).is_file()


@pytest.mark.parametrize("dark", [False, True])
def test_lines_are_where_their_numbers_are(open_page: Callable[..., Any], tmp_path: Path, artifacts: Path, dark: bool):
    values = {0.0: 0.0, 10.0: 0.25, 40.0: 1.0}
    view = RunsView(
        sweep_folder(tmp_path / "s", [Wrote({"x": x}, 0, result(acc=acc)) for x, acc in values.items()]), theme="dark" if dark else "light"
    )
    view.axes, view.selected = ["x", "acc"], []
    page = open_page(view, dark=dark)
    page.screenshot(path=artifacts / f"runs_{'dark' if dark else 'light'}.png", full_page=True)
    lines = [page.locator(f'g[data-axis="{name}"] > line').first.bounding_box() for name in ("x", "acc")]
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")).astype(int)
    (left, right), head, foot = [line["x"] for line in lines], lines[0]["y"], lines[0]["y"] + lines[0]["height"]
    for x, acc in values.items():
        for share in (0.3, 0.55):
            across, height = round(left + share * (right - left)), foot - ((1 - share) * x / 40 + share * acc) * (foot - head)
            near = np.arange(round(height) - 4, round(height) + 5)
            weights = np.abs(pixels[near, across] - pixels[int(foot) + 3, across]).max(-1).astype(float)
            assert weights.max() > 60 and float((near * weights).sum() / weights.sum()) == pytest.approx(height, abs=1.0)


def test_screens_of_an_ordinary_sweep(open_page: Callable[..., Any], view: RunsView, artifacts: Path):
    view.filters, view.selected = {"acc": ">=0.55"}, ids(view, 0, 3)
    for dark in (False, True):
        page = open_page(view, dark=dark)
        page.wait_for_selector("path.curve")
        page.screenshot(path=artifacts / f"runs_view_{'dark' if dark else 'light'}.png", full_page=True)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 900
        assert page.evaluate(SMALLEST_TEXT) >= 11
        assert re.search(r"12 runs: 10 done, 1 failed, 1 waiting · \d+ pass the filters · 2 selected", page.inner_text(".tpo-runs-head"))
