"""StageView in a browser: used by mouse, keys and Python; fed by a real training and by a file that another process writes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.widgets.bridge import Live
from tpo_lab import recipes, training
from tpo_lab.model import TPOModel
from tpo_lab.objective import LossReport
from tpo_lab.recipes import Recipe
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora, Stage
from tpo_widgets import StageView, together
from tpo_widgets.stages import view as stage_view

pytestmark = pytest.mark.browser

HEADS = ("region", "temporal")
PATIENCE_SEC = 30.0


def line(stage: str, step: int, **values: Any) -> dict[str, Any]:
    numbers = {"loss": 4 / step, "mlm": 3 / step, "region/l1": 1 / step, "region/giou": 0.5, "gradient/region": 2.0}
    return {"stage": stage, "step": step, "seconds": 0.5 * step, "lr": 1e-3, "rows": 8, "memory_mib": 700 + step, **numbers, **values}


def lines_of(**steps: int) -> list[dict[str, Any]]:
    names = {"one": "1", "temporal": "2.temporal", "region": "2.region"}
    return [line(names[stage], step) for stage, count in steps.items() for step in range(1, count + 1)]


def written(folder: Path, lines: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"recipe": recipes.recipe("nano").for_heads(HEADS).to_dict(), "stage": "all"}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return folder


def appended(folder: Path, *lines: dict[str, Any], end: str = "\n") -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("\n".join(map(json.dumps, lines)) + end)


def eventually(true: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE_SEC
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come true in {PATIENCE_SEC:g} s")


def text(page: Any, selector: str) -> str:
    return str(page.locator(selector).inner_text())


def curve_box(page: Any, key: str, which: str = "values") -> Any:
    return page.locator(f'path[data-curve="{key}"][data-which="{which}"]').first.bounding_box()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """40 steps of stage 1, and half of stage 2.temporal."""
    return written(tmp_path / "run", lines_of(one=40, temporal=100))


# the table


def test_cells_on_the_page_are_those_of_the_table(open_page: Callable[..., Any], build_tiny: Callable[..., TPOModel]):
    view = StageView("nano", build_tiny(HEADS))
    page = open_page(view)
    document = view.document
    for row in document["rows"]:
        cells = page.locator(f'tr[data-row="{row["key"]}"] td')
        assert cells.count() == len(document["stages"]) == 5
        for place, kind in enumerate(row["cells"]):
            cell, expected = cells.nth(place), document["kinds"][kind]
            assert cell.get_attribute("data-state") == expected["state"]
            assert (
                int(cell.get_attribute("data-trained")) == expected["trained"]
                and int(cell.get_attribute("data-total")) == expected["total"]
            )
            word = {"frozen": "frozen", "trained": "trained", "partly": "partly"}[expected["state"]]
            assert word in cell.inner_text() and cell.locator("svg").count() == 1
            assert all(f"{rate:g}".lstrip("0") in cell.inner_text() or "e-" in cell.inner_text() for rate in expected.get("rates", []))
    assert (
        page.locator('tr[data-row="heads.region"] td')
        .nth(2)
        .get_attribute("title")
        .startswith("region head in stage 2.region: trained at 0.002")
    )


@pytest.mark.parametrize("name", sorted(recipes.PRESETS))
def test_every_preset_fits_on_a_page_of_900_pixels(open_page: Callable[..., Any], name: str, artifacts: Path):
    page = open_page(StageView(name))
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 900
    assert page.locator(".tpo-st thead button").all_inner_texts() == [stage.name for stage in recipes.recipe(name).stages]
    cut = page.evaluate(
        """() => [...document.querySelectorAll('.tpo-st td, .tpo-st th')]
        .filter((cell) => cell.scrollWidth > cell.clientWidth + 1).map((cell) => cell.innerText)"""
    )
    assert cut == []
    page.screenshot(path=artifacts / f"stage_{name}.png", full_page=True)


def test_bars_of_the_data_are_as_long_as_the_shares(open_page: Callable[..., Any]):
    view = StageView("nano")
    page = open_page(view)
    for place, stage in enumerate(view.document["stages"]):
        bar = page.locator(".tpo-st-mix").nth(place)
        whole = bar.bounding_box()
        boxes = [each.bounding_box() for each in bar.locator("i").all()]
        assert [box["width"] / whole["width"] for box in boxes] == pytest.approx([share for _, share in stage["data"]], abs=0.012)
        assert all(box["height"] == pytest.approx(10, abs=0.5) for box in boxes)


def test_a_stage_is_chosen_by_mouse_by_key_and_from_python(live: Callable[..., Live]):
    view = StageView("nano")
    found = live(view)
    page = found.page
    page.locator(".tpo-st thead button").nth(1).click()
    found.until(lambda: view.stage == "2.temporal", "the stage in Python")
    assert page.locator(".tpo-st thead button").nth(1).get_attribute("aria-pressed") == "true"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    found.until(lambda: view.stage == "2.mask", "the next stage")
    page.keyboard.press("End")
    page.keyboard.press("Space")
    found.until(lambda: view.stage == "3b", "the last stage")
    page.keyboard.press("Space")
    found.until(lambda: view.stage == "", "no stage")
    page.locator('tr[data-row="vision"] td').nth(4).click()
    found.until(lambda: view.stage == "3a", "the stage of a cell")
    view.stage = "2.region"
    found.until_page("() => document.querySelectorAll('.tpo-st thead button')[3].getAttribute('aria-pressed') === 'true'")
    assert page.locator('td.tpo-st-chosen[data-state="trained"]').count() == 4


def test_a_head_is_one_playheads_for_two_views(live: Callable[..., Live], run: Path):
    table, other = StageView("nano"), StageView(run=run)
    together(table, other)
    found = live(table, other)
    page = found.page
    page.locator('tr[data-row="heads.temporal"] button').first.click()
    found.until(lambda: table.playhead.head == "temporal", "the head in Python")
    assert page.locator('button.tpo-st-head[aria-pressed="true"]').all_inner_texts() == ["temporal head"] * 2
    found.until_page(
        """() => document.querySelector('path[data-curve="region/l1"][data-which="medians"]').getAttribute('stroke-opacity') === '0.25'"""
    )
    table.playhead.head = ""
    found.until_page(
        """() => document.querySelector('path[data-curve="region/l1"][data-which="medians"]').getAttribute('stroke-opacity') === '1'"""
    )
    assert page.locator('button.tpo-st-head[aria-pressed="true"]').count() == 0


def test_drawing_a_view_chooses_nothing(live: Callable[..., Live], run: Path):
    view = StageView(run=run)
    live(view).pump()
    assert view.stage == "" and view.playhead.head == ""


# curves


def test_curves_lie_where_their_numbers_say(open_page: Callable[..., Any], run: Path):
    page = open_page(StageView(run=run))
    page.get_by_role("button", name="log scale").click()
    page.wait_for_function("() => document.querySelectorAll('.tpo-sc')[0].querySelectorAll('text').length > 3")
    chart = page.locator(".tpo-sc").first
    svg = chart.locator("svg.tpo-sc-svg").bounding_box()
    left, right = svg["x"] + 54, svg["x"] + svg["width"] - 20
    box = curve_box(page, "loss")
    # 40 steps of stage 1, then 100 of the 200 that stage 2.temporal stopped after: its axis ends there
    assert box["x"] == pytest.approx(left + (right - left) * 1 / 140, abs=1) and box["x"] + box["width"] == pytest.approx(right, abs=1)
    first = page.locator('path[data-curve="loss"][data-which="values"]').first.get_attribute("d").split("L")[:2]
    ys = [float(piece.split()[-1]) for piece in first]
    ticks = page.evaluate(
        """() => [...document.querySelectorAll('.tpo-sc svg text[text-anchor="end"]')].slice(0, 5)
        .map((each) => [each.textContent, +each.getAttribute('y') - 4])"""
    )
    scale = {float(name): place for name, place in ticks if name.replace(".", "").isdigit()}
    (low, at_low), (high, at_high) = min(scale.items()), max(scale.items())
    per_unit = (at_high - at_low) / (high - low)
    assert ys == pytest.approx([at_low + (4 - low) * per_unit, at_low + (2 - low) * per_unit], abs=1)


def test_the_readout_tells_the_numbers_of_the_step_under_the_mouse_and_by_key(open_page: Callable[..., Any], run: Path):
    page = open_page(StageView(run=run))
    chart = page.locator(".tpo-sc svg.tpo-sc-svg").first
    page.wait_for_selector('path[data-curve="loss"]', state="attached")
    box = chart.bounding_box()
    step = 40 + 25
    page.mouse.move(box["x"] + 54 + (box["width"] - 74) * step / 140, box["y"] + 120)
    said = text(page, ".tpo-sc-readout:not([hidden])")
    assert "stage 2.temporal, step 25" in said and "0.16" in said and "region/giou" in said and "0.5" in said
    assert page.locator(".tpo-sc-cross[visibility=visible]").count() == 5
    page.mouse.move(2, 2)
    assert page.locator(".tpo-sc-readout:not([hidden])").count() == 0
    chart.focus()
    page.keyboard.press("End")
    assert "stage 2.temporal, step 100" in text(page, ".tpo-sc-readout:not([hidden])")
    page.keyboard.press("Shift+ArrowLeft")
    assert "stage 2.temporal, step 86" in text(page, ".tpo-sc-readout:not([hidden])")
    assert "step 86" in page.locator(".tpo-sc-spoken[role=status]").first.text_content()
    page.keyboard.press("Escape")
    assert page.locator(".tpo-sc-readout:not([hidden])").count() == 0


def test_heads_are_taken_away_and_the_scale_is_switched(open_page: Callable[..., Any], run: Path):
    page = open_page(StageView(run=run))
    page.wait_for_selector('path[data-curve="region/l1"]', state="attached")
    before = curve_box(page, "mlm")
    toggle = page.get_by_role("button", name="curves of region")
    toggle.focus()
    page.keyboard.press("Space")
    page.wait_for_selector('path[data-curve="region/l1"]', state="detached")
    assert toggle.get_attribute("aria-pressed") == "false" and "region/l1" not in text(page, ".tpo-sr-legend")
    assert page.locator('path[data-curve="mlm"]').count() == 2
    page.get_by_role("button", name="log scale").click()
    page.wait_for_timeout(50)
    after = curve_box(page, "mlm")
    assert abs(before["height"] - after["height"]) > 5
    toggle.click()
    page.wait_for_selector('path[data-curve="region/l1"]', state="attached")


def test_a_chosen_stage_is_drawn_alone_and_finer(open_page: Callable[..., Any], tmp_path: Path):
    folder = written(
        tmp_path / "long", [line("1", step, **{"region/l1": 1 + (step * 7919 % 97) / 97}) for step in range(1, 5001)] + lines_of(temporal=9)
    )
    page = open_page(StageView(run=folder))
    page.wait_for_function("() => document.querySelector('.tpo-sr').dataset.fine.endsWith('/')")
    page.locator(".tpo-st thead button").first.click()
    page.wait_for_function("() => document.querySelector('.tpo-sr').dataset.fine.endsWith('/1')")
    assert "stage 1 only" in text(page, ".tpo-sr-tools")
    drawn = page.locator('path[data-curve="region/l1"][data-which="values"]').get_attribute("d")
    assert 380 <= drawn.count("L") + 1 <= 400
    page.locator(".tpo-st thead button").first.click()
    page.wait_for_function("() => document.querySelector('.tpo-sr-tools').innerText.includes('the whole run')")


def test_alarms_stand_in_a_list_and_on_the_curves(live: Callable[..., Live], tmp_path: Path):
    silent = [line("1", step, **{"gradient/region": 0.0}) for step in range(1, 61)]
    view = StageView(run=written(tmp_path / "run", silent))
    (alarm,) = view.alarms
    found = live(view)
    page = found.page
    item = text(page, ".tpo-sr-alarms li")
    assert "no gradient: region" in item and alarm.meaning in item and alarm.advice in item
    assert page.locator(".tpo-sr-alarms li[role=alert]").count() == 0
    page.locator(".tpo-sr-alarms button").click()
    found.until(lambda: view.stage == "1", "the stage of the alarm")
    found.until_page(
        "() => [...document.querySelectorAll('.tpo-sc-readout:not([hidden])')].some((each) => each.innerText.includes('stage 1, step 50'))"
    )
    chart = page.locator(".tpo-sc svg.tpo-sc-svg").first.bounding_box()
    mark = page.locator(".tpo-sc-mark path").first.bounding_box()
    assert mark["x"] + mark["width"] / 2 == pytest.approx(chart["x"] + 54 + (chart["width"] - 74) * 50 / 60, abs=1)


# while it trains


def small_recipe() -> Recipe:
    def stage(name: str, steps: int, *heads: str) -> Stage:
        rates = {"llm.lora.*": 1e-2, **{f"heads.{head}.*": 1e-2 for head in heads}, **{f"tokens.task.{head}": 1e-2 for head in heads}}
        losses = {"mlm": 1.0, "assign": 1.0, **dict.fromkeys(heads, 1.0)}
        data = dict.fromkeys(heads or HEADS, 1.0)
        shared: dict[str, Any] = {"batch_size": 2, "max_questions": 2, "warmup_ratio": 0.3, "precision": "fp32"}
        return Stage(name=name, title=f"stage {name}", learning_rates=rates, data=data, losses=losses, steps=steps, **shared)

    lora = Lora(rank=2, dropout=0.0, targets=("q_proj", "up_proj"))
    return Recipe(name="small", stages=(stage("1", 3), stage("2.region", 5, "region")), lora=lora, frames=4, resolution=64)


def last_points(view: StageView) -> dict[tuple[str, str], tuple[int, float]]:
    run = view.document["run"]
    return {
        (curve["key"], run["stages"][place]["name"]): (sum(steps), values[-1])
        for curve in run["curves"]
        for place, steps, values, *_ in curve["parts"]
    }


@pytest.mark.parametrize("with_folder", [False, True], ids=["listener alone", "with the folder"])
def test_a_real_training_grows_curves_that_end_at_its_metrics(
    live: Callable[..., Live],
    build_tiny: Callable[..., TPOModel],
    world: Callable[..., list[Sample]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    with_folder: bool,
):
    monkeypatch.setattr(stage_view, "UPDATE_SEC", 0.0)
    monkeypatch.setattr(stage_view, "_SHARE", 1e9)
    view = StageView(small_recipe(), build_tiny(HEADS))
    found = live(view)
    drawn: list[tuple[str, int, int, str]] = []
    hears = view.listen(tmp_path / "run") if with_folder else view.listener

    def listener(name: str, step: int, total: int, report: LossReport) -> None:
        hears(name, step, total, report)
        found.pump()
        before = drawn[-1][2] if drawn else 0
        found.page.wait_for_function("before => Number(document.querySelector('.tpo-sr').dataset.points) > before", arg=before)
        points = int(found.page.locator(".tpo-sr").get_attribute("data-points"))
        drawn.append((name, step, points, text(found.page, ".tpo-sr-words")))

    samples = [sample for index in range(3) for sample in world(index)]
    run = training.fit(build_tiny(HEADS), samples, small_recipe(), tmp_path / "run", listener=listener)
    assert view.error is None
    assert [(name, step) for name, step, *_ in drawn] == [("1", 1), ("1", 2), ("1", 3), *(("2.region", step) for step in range(1, 6))]
    counts = [points for *_, points, _ in drawn]
    assert counts == sorted(set(counts))
    assert "Training stage 2.region, step 4 of 5" in drawn[-2][3]
    ends = last_points(view)
    keys = {"loss", "mlm", "assign", "lr"} | ({"gradient/region"} if with_folder else set())
    for name in ("1", "2.region"):
        last = [each for each in run.metrics() if each["stage"] == name][-1]
        for key in keys & set(last) - {"lr"}:
            assert ends[key, name] == (last["step"], float(f"{last[key]:.4g}"))
    lr = {each["step"]: each["lr"] for each in run.metrics() if each["stage"] == "2.region"}
    assert ends["lr", "2.region"] == (5, pytest.approx(lr[5], rel=1e-3))
    assert ("gradient/region", "2.region") in ends if with_folder else ("gradient/region", "2.region") not in ends
    view.stop()
    found.pump()
    assert [each["state"] for each in view.document["run"]["stages"]] == ["done", "done"]
    assert text(found.page, ".tpo-st thead tr:nth-child(2) td:nth-child(2)").strip() == "done, 3 steps"
    assert "Done with stage 2.region" in text(found.page, ".tpo-sr-words") or "Finished" in text(found.page, ".tpo-sr-words")


def a_report(value: float) -> LossReport:
    return LossReport(torch.tensor(value), {"mlm": torch.tensor(value)}, {"mlm": 1.0})


def test_a_listener_updates_now_and_then_and_always_at_the_end_of_a_stage(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(stage_view.time, "monotonic", lambda: now[0])
    view = StageView("nano")
    seen: list[int] = []
    view.observe(lambda change: seen.append(change["new"]["run"]["now"]["step"]), "document")
    for step in range(1, 41):
        now[0] += 0.1
        view.listener("1", step, 40, a_report(1 / step))
    assert seen[0] == 1 and seen[-1] == 40 and len(seen) <= 10
    assert view.document["run"]["now"]["sec_per_step"] == pytest.approx(0.1, abs=1e-3)
    assert last_points(view)["mlm", "1"] == (40, 0.025)
    assert view.document["run"]["now"]["rows_per_sec"] == pytest.approx(80, rel=0.02)


def test_a_listener_never_stops_a_training(monkeypatch: pytest.MonkeyPatch):
    view = StageView("nano")
    view.listener("1", 1, 40, None)  # type: ignore[arg-type]
    assert isinstance(view.error, AttributeError)
    view.listener("9.unknown", 1, 2, a_report(1.0))
    view.listener("9.unknown", 2, 2, a_report(1.0))
    assert view.document["run"]["stages"][-1] == {
        "name": "9.unknown",
        "step": 2,
        "total": 2,
        "state": "done",
        "seconds": pytest.approx(0, abs=5),
    }


def test_a_training_in_another_thread_reaches_the_page(live: Callable[..., Live], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stage_view, "UPDATE_SEC", 0.0)
    view = StageView("nano")
    found = live(view)
    hears = view.listen()
    thread = threading.Thread(target=lambda: [hears("1", step, 40, a_report(1 / step)) for step in range(1, 41)])
    thread.start()
    found.until_page("() => document.querySelector('.tpo-sr-words').innerText.includes('step 40 of 40')")
    thread.join()
    assert view.error is None and last_points(view)["loss", "1"] == (40, 0.025)


def test_nobody_is_asked_for_fine_curves_while_training_holds_the_kernel(live: Callable[..., Live]):
    view = StageView("nano")
    found = live(view)
    asked: list[Any] = []
    answer = view._answer
    view.on_msg(answer, remove=True)
    view.on_msg(lambda *arguments: asked.append(arguments[1]))
    for step in (1, 2, 40):
        view.listener("1", step, 40, a_report(1.0))
        found.pump()
    view.stage = "1"
    found.pump()
    found.page.wait_for_timeout(100)
    found.pump()
    assert asked == []


# a run of another process


def test_follow_shows_what_grows_is_cut_breaks_and_comes_late(live: Callable[..., Live], tmp_path: Path):
    folder = tmp_path / "later" / "run"
    view = StageView("nano")
    found = live(view)
    view.follow(folder, every_sec=0.01)
    try:
        found.until_page("() => document.querySelector('.tpo-sr-words').innerText.includes('Waiting for the first step')")
        written(folder, lines_of(one=5))
        found.until_page("() => document.querySelector('.tpo-sr-words').innerText.includes('Training stage 1, step 5 of 40')")
        appended(folder, line("1", 6), line("1", 7), end="\n" + json.dumps(line("1", 8))[:30])
        found.until_page("() => document.querySelector('.tpo-sr-words').innerText.includes('step 7 of 40')")
        assert view.document["run"]["notes"] == []
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line("1", 8))[30:] + "\nnonsense\n")
        found.until_page("() => document.querySelector('.tpo-sr-words').innerText.includes('step 8 of 40')")
        found.until(lambda: "1 lines" in " ".join(view.document["run"]["notes"]), "the broken line")
        # a resumed run writes the file anew, and goes on from an earlier step
        (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines_of(one=3)))
        found.until(lambda: last_points(view)["loss", "1"] == (3, float(f"{4 / 3:.4g}")), "the shorter curve")
        appended(folder, *lines_of(one=40)[3:], *lines_of(temporal=2))
        found.until_page("() => document.querySelector('.tpo-sr-words').innerText.includes('Training stage 2.temporal, step 2 of 200')")
        assert view.error is None
    finally:
        view.stop()
    threads = [thread.name for thread in threading.enumerate()]
    assert "StageView.follow" not in threads
    found.pump()
    assert "Not finished: stage 2.temporal" in text(found.page, ".tpo-sr-words")
    appended(folder, line("2.temporal", 3))
    time.sleep(0.05)
    found.pump()
    assert last_points(view)["loss", "2.temporal"][0] == 2


def test_follow_takes_the_recipe_from_the_run_where_none_was_given(tmp_path: Path):
    view = StageView()
    assert view.problem
    view.follow(tmp_path / "run", every_sec=0.01)
    try:
        written(tmp_path / "run", lines_of(one=2))
        eventually(lambda: view.document.get("recipe", {}).get("name") == "nano" and view.document["run"]["now"], "the run")
        assert view.problem == "" and len(view.document["stages"]) == 5
    finally:
        view.stop()


def test_a_new_alarm_is_said_aloud(live: Callable[..., Live], tmp_path: Path):
    folder = written(tmp_path / "run", [line("1", step, **{"gradient/region": 0.0}) for step in range(1, 40)])
    view = StageView("nano")
    found = live(view)
    view.follow(folder, every_sec=0.01)
    try:
        found.until_page("() => document.querySelector('.tpo-sr-words').innerText.includes('step 39')")
        assert found.page.locator(".tpo-sr-alarms li").count() == 0
        appended(folder, *[line("1", step, **{"gradient/region": 0.0}) for step in range(40, 56)])
        found.until_page("() => document.querySelector('.tpo-sr-alarms li[role=alert]')")
    finally:
        view.stop()
    assert "no gradient: region" in text(found.page, ".tpo-sr-alarms li")


def test_updates_leave_the_page_as_it_is(live: Callable[..., Live], tmp_path: Path):
    folder = written(tmp_path / "run", lines_of(one=20))
    view = StageView("nano")
    found = live(view, height=500)
    page = found.page
    view.follow(folder, every_sec=0.01)
    try:
        found.until_page("() => document.querySelector('.tpo-sr-words').innerText.includes('step 20')")
        page.wait_for_selector('path[data-curve="mlm"]', state="attached")
        toggle = page.get_by_role("button", name="curves of region")
        toggle.click()
        toggle.focus()
        page.evaluate(
            """() => { window.scrollTo(0, 700);
            for (const each of document.querySelectorAll('table, svg.tpo-sc-svg, path[data-curve], .tpo-sr button')) each.kept = true; }"""
        )
        where = page.evaluate("() => [window.scrollY, document.documentElement.scrollHeight]")
        before = page.locator('path[data-curve="mlm"]').first.get_attribute("d")
        appended(folder, *lines_of(one=33)[20:])
        found.until_page("() => document.querySelector('.tpo-sr-words').innerText.includes('step 33')")
        found.until(lambda: page.locator('path[data-curve="mlm"]').first.get_attribute("d") != before, "the longer curve")
        assert page.evaluate("() => [window.scrollY, document.documentElement.scrollHeight]") == where
        assert page.evaluate("() => document.activeElement.dataset.owner") == "region" and toggle.get_attribute("aria-pressed") == "false"
        assert page.evaluate(
            "() => [...document.querySelectorAll('table, svg.tpo-sc-svg, path[data-curve], .tpo-sr button')].every((each) => each.kept)"
        )
    finally:
        view.stop()


def test_closing_a_view_ends_its_watch(tmp_path: Path):
    view = StageView("nano").follow(written(tmp_path / "run", lines_of(one=2)), every_sec=0.01)
    thread = view._thread
    assert thread is not None
    view.close()
    thread.join(PATIENCE_SEC)
    assert not thread.is_alive()


# bad input, and looks


def test_nonsense_is_a_panel_on_the_page(open_page: Callable[..., Any]):
    page = open_page(StageView(42), StageView("nano"))  # type: ignore[arg-type]
    assert "recipe: expected a recipe" in text(page, ".tpo-problem[role=alert]")
    assert page.locator(".tpo-st").count() == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_how_it_looks(open_page: Callable[..., Any], build_tiny: Callable[..., TPOModel], tmp_path: Path, artifacts: Path, dark: bool):
    lines = lines_of(one=40, temporal=200)
    lines += [line("2.region", step, **{"gradient/region": 0.0 if step > 30 else 3.0}) for step in range(1, 120)]
    recipe = recipes.recipe("nano")
    view = StageView(recipe, build_tiny(HEADS), run=written(tmp_path / "run", lines))
    page = open_page(view, dark=dark)
    page.wait_for_function("() => document.querySelector('.tpo-sr').dataset.fine")
    page.screenshot(path=artifacts / f"stage_{'dark' if dark else 'light'}.png", full_page=True)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 900
    smallest = page.evaluate(
        """() => Math.min(...[...document.querySelectorAll('.tpo-view *')]
        .filter((each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()))
        .map((each) => parseFloat(getComputedStyle(each).fontSize)))"""
    )
    assert smallest >= 11
    paper = page.evaluate("() => getComputedStyle(document.querySelector('.tpo-view')).backgroundColor")
    assert paper == ("rgb(22, 24, 29)" if dark else "rgb(255, 255, 255)")
    assert page.locator("svg[role=img]:not([aria-label])").count() == 0
