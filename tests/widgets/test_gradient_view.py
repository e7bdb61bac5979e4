"""GradientView in a browser: its numbers, the keyboard, conflicts and the samples behind them, and the steps of a run."""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.widgets.gradient_fixtures import OWNERS, gradients, random_gradients, run_folder, trace, turning
from tpo_widgets import GradientView, together
from tpo_widgets.gradients.measurements import in_order

pytestmark = pytest.mark.browser

NORMS, COSINES = '[aria-label^="Norm of each"]', '[aria-label^="Cosine of every"]'
CELLS = """(table) => Object.fromEntries([...table.querySelectorAll("tbody tr")].map((line) =>
  [line.children[0].textContent, [...line.children].slice(1).map((cell) =>
    [cell.textContent, cell.className, cell.getAttribute("aria-label")])]))"""
FOCUSED = "() => document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"


def cells(page: Any, grid: str) -> dict[str, list[list[str]]]:
    """By row, text, class and name of each cell."""
    found: dict[str, list[list[str]]] = page.locator(grid).evaluate(CELLS)
    return found


def cell(page: Any, grid: str, module: str, column: int) -> Any:
    return page.locator(f"{grid} tbody tr", has=page.get_by_role("rowheader", name=module, exact=True)).locator("td").nth(column)


@pytest.fixture(scope="module")
def view_of() -> Any:
    return lambda **options: GradientView(trace(gradients()), **options)


def test_numbers_are_those_of_the_record(open_page: Any, view_of: Any):
    page, found = open_page(view_of()), gradients()
    norms, cosines = cells(page, NORMS), cells(page, COSINES)
    layers = ["llm.lora (all 3)", "llm.lora.0", "llm.lora.2", "llm.lora.10"]
    assert list(norms) == [*layers, "heads (all 2)", "heads.region", "heads.temporal", "connector"]
    for module in found.modules:
        for place, owner in enumerate(OWNERS):
            text, kind, name = norms[module][place]
            norm = found.norm(owner, module)
            if norm == 0:
                assert (text, kind) == ("", "tpo-g-zero") and name == f"{module}, {owner}: 0, it does not reach this module"
            else:
                assert kind == "tpo-g-norm" and float(text) == pytest.approx(norm, rel=0.06) and name.startswith(f"{module}, {owner}: ")
                assert float(name.split(": ")[1]) == pytest.approx(norm, rel=1e-3)
        pairs = [(one, other) for at, one in enumerate(OWNERS) for other in OWNERS[at + 1 :]]
        for place, (one, other) in enumerate(pairs):
            text, kind, name = cosines[module][place]
            cosine = found.cosine(one, other, module)
            if cosine is None:
                assert (text, kind) == ("", "tpo-g-none") and "does not reach" in name
            else:
                assert float(text) == pytest.approx(cosine, abs=0.0051) and kind == ("tpo-g-against" if cosine < 0 else "tpo-g-agree")
                assert name == f"{module}, {one} and {other}: cosine {cosine:.4f}"
    assert page.locator("[data-part=cost]").text_content() == "3 losses, 3 backward passes · 12 parameters in 6 modules · 3 samples"


def test_sentences_and_shares(open_page: Any, view_of: Any):
    page, found = open_page(view_of()), gradients()
    first = page.locator("ol.tpo-g-list button").first
    assert first.text_content() == "region and temporal pull against each other in llm.lora.0: cosine -0.80"
    bars = page.locator("[role=listbox] [role=option]")
    assert bars.evaluate_all("all => all.map(each => each.dataset.module)") == ["llm.lora", "llm.lora.0", "llm.lora.2", "llm.lora.10"]
    pieces = page.locator('[data-module="llm.lora.0"] rect[data-share]')
    drawn = pieces.evaluate_all("all => all.map((each) => [Number(each.dataset.share), each.getBBox().x, each.getBBox().width])")
    shares = [found.share(owner, "llm.lora.0") for owner in OWNERS]
    assert [share for share, *_ in drawn] == pytest.approx(shares, rel=1e-5) and min(shares) < 0 < 1 < max(shares)
    zero = page.locator("[role=listbox] .tpo-g-zero-line").evaluate("each => Number(each.getAttribute('x1'))")
    one = page.locator("[role=listbox] .tpo-g-one-line").evaluate("each => Number(each.getAttribute('x1'))")
    for share, left, width in drawn:
        assert width == pytest.approx(abs(share) * (one - zero), abs=1.1), "a share is as wide as it is large"
        assert left >= zero - 0.1 if share > 0 else left + width <= zero + 0.1, "and lies on its side of zero"
    edges = page.locator('[data-module="llm.lora.10"] rect[data-share]').evaluate_all(
        "all => all.map((each) => [Number(each.getAttribute('x')), Number(each.dataset.share)])"
    )
    ends = zero
    for left, share in edges:
        assert share > 0 and left == pytest.approx(ends, abs=0.1), "each begins where the one before it ends"
        ends += share * (one - zero)
    assert ends == pytest.approx(one, abs=0.1)


def test_everything_by_keyboard(live: Any, view_of: Any):
    view = view_of()
    opened = live(view)
    page = opened.page
    page.locator(f"{COSINES} [tabindex='0']").focus()
    assert page.locator(f"{COSINES} [tabindex='0']").count() == 1, "one cell at a time can be reached by Tab"
    page.keyboard.press("Control+Home")
    for key in ("ArrowDown", "ArrowDown", "End"):
        page.keyboard.press(key)
    assert page.evaluate(FOCUSED) == "llm.lora.0, region and temporal: cosine -0.8000"
    assert view.pair == "" == view.module
    page.keyboard.press("Enter")
    opened.until(lambda: view.pair == "region|temporal" and view.module == "llm.lora.0")
    assert page.evaluate(FOCUSED).startswith("llm.lora.0, region and temporal"), "focus stays"
    for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "PageDown", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    assert page.evaluate(FOCUSED) == "heads.temporal, region and temporal: none, one of them does not reach it or is not finite"
    page.keyboard.press("Home")
    page.keyboard.press("Control+Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert "llm.lora.0" not in cells(page, COSINES) and "llm.lora.0" not in cells(page, NORMS), "both matrices fold"
    assert page.locator(f"{COSINES} tr[aria-expanded='false']").count() == 1
    assert page.evaluate(FOCUSED) == "llm.lora (all 3)"
    page.keyboard.press(" ")
    assert "llm.lora.0" in cells(page, COSINES)
    bars = page.locator("[role=listbox] [tabindex='0']")
    bars.focus()
    page.keyboard.press("End")
    assert page.evaluate(FOCUSED).startswith("llm.lora.10: ") and page.locator(".tpo-g-readout").text_content() == page.evaluate(FOCUSED)
    page.keyboard.press("Enter")
    opened.until(lambda: view.module == "llm.lora.10")
    per = page.get_by_role("button", name="Per parameter")
    per.focus()
    page.keyboard.press("Enter")
    opened.until(lambda: view.per_parameter)
    opened.until(lambda: float(cell(page, NORMS, "heads.region", 1).text_content()) == pytest.approx(3 / math.sqrt(3), rel=0.03))
    sort = page.get_by_label("Order of the modules")
    sort.select_option("strongest")
    assert next(iter(cells(page, COSINES))) == "llm.lora.0" and "llm.lora (all 3)" not in cells(page, COSINES)


def test_a_heading_sorts_by_its_pair(open_page: Any, view_of: Any):
    page, found = open_page(view_of()), gradients()
    page.locator(f"{COSINES} thead th").nth(1).click()
    assert page.locator(f"{COSINES} thead th").nth(1).get_attribute("aria-sort") == "ascending"
    known = {module: cosine for module in found.modules if (cosine := found.cosine("mlm", "region", module)) is not None}
    rows = list(cells(page, COSINES))
    assert rows[: len(known)] == sorted(known, key=lambda module: (round(known[module], 9), in_order(known).index(module)))
    page.locator(f"{COSINES} thead th").nth(1).click()
    assert next(iter(cells(page, COSINES))) == "llm.lora (all 3)"


def test_a_conflict_leads_to_its_samples_and_they_to_another_view(live: Any, view_of: Any):
    view = view_of()
    other = GradientView(trace(gradients()))
    together(view, other)
    opened = live(view, other)
    page = opened.page
    one, two = page.locator(".tpo-view").nth(0), page.locator(".tpo-view").nth(1)
    assert view.playhead.sample == "" and one.locator("[data-sample]").count() == 0
    one.locator("ol.tpo-g-list button").first.click()
    opened.until(lambda: (view.pair, view.module) == ("region|temporal", "llm.lora.0"))
    listed = one.locator("[data-sample]")
    assert listed.evaluate_all("all => all.map(each => each.dataset.sample)") == ["s2", "s1"], "the sample that teaches both comes first"
    assert listed.first.text_content() == "s2 What about s2?region 2, temporal 0.75"
    listed.nth(1).click()
    opened.until(lambda: view.playhead.sample == "s1")
    assert other.pair == "", "what is selected in a view is its own"
    other.pair, other.module = "temporal|region", "llm.lora.2"
    opened.until(lambda: two.locator("[data-sample='s1'][aria-pressed='true']").count() == 1, "the other view follows")
    assert two.locator(f"{COSINES} td[aria-selected='true']").get_attribute("aria-label").startswith("llm.lora.2, region and temporal")
    view.playhead.sample = "s2"
    opened.until(lambda: one.locator("[data-sample='s2'][aria-pressed='true']").count() == 1)
    two.locator(f"{NORMS} thead th").nth(3).click()
    opened.until(lambda: view.playhead.head == "temporal")
    assert one.locator(f"{NORMS} thead th[aria-selected='true']").text_content() == "temporal"
    two.locator(f"{NORMS} thead th").nth(1).click()
    opened.pump()
    assert view.playhead.head == "temporal", "mlm is no head"
    two.locator(f"{NORMS} thead th").nth(3).click()
    opened.until(lambda: view.playhead.head == "")


def test_selection_from_python(live: Any, view_of: Any):
    view = view_of()
    opened = live(view)
    view.pair, view.module = "region|temporal", "llm.lora.2"
    selected = f"{COSINES} td[aria-selected='true']"
    opened.until(lambda: opened.page.locator(selected).count() == 1)
    assert opened.page.locator(selected).get_attribute("aria-label").startswith("llm.lora.2, region and temporal")
    view.per_parameter = True
    opened.until(lambda: opened.page.locator("button[aria-pressed='true']", has_text="Per parameter").count() == 1)
    view.pair = ""
    opened.until(lambda: opened.page.locator(selected).count() == 0)


def test_steps_of_a_run(live: Any, tmp_path: Path):
    view = GradientView(run=run_folder(tmp_path, turning(6)))
    opened = live(view)
    page = opened.page
    opened.until(lambda: page.locator("path.tpo-g-curve[data-name='region']").get_attribute("d").count("L") == 5, "all steps are drawn")
    assert page.locator("h3").first.text_content() == "Gradients of stage 3a, before step 250"
    view.module = "llm.lora.2"
    opened.until(lambda: float(cell(page, NORMS, "llm.lora.2", 1).text_content()) == 7)
    slider = page.get_by_label("Measurement of the run")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    opened.until(lambda: view.measurement == 7)
    opened.until(lambda: float(cell(page, NORMS, "llm.lora.2", 1).text_content()) == 6)
    page.keyboard.press("Home")
    opened.until(lambda: view.measurement == 0)
    opened.until(lambda: page.locator("h3").first.text_content() == "Gradients of stage 1, before step 1")
    norms = cells(page, NORMS)
    assert list(norms) == ["tokens.rows.output"] and norms["tokens.rows.output"][2][1] == "tpo-g-absent", "temporal has no loss in stage 1"
    assert "No layer of the language model learns" in page.get_by_label("Shares in the language model").text_content()
    assert slider.get_attribute("aria-valuetext") == "stage 1, step 1 (1 of 9)"
    view.measurement = 3
    opened.until(lambda: "stage 3a, before step 1" in page.locator("h3").first.text_content())
    opened.until(lambda: cells(page, COSINES)["llm.lora.2"][2][0] == "+0.89")
    view.measurement = 8
    opened.until(lambda: cells(page, COSINES)["llm.lora.2"][2][0] == "-0.89")
    assert page.locator("[data-stage]").evaluate_all("all => all.slice(0, 2).map(each => each.dataset.stage)") == ["1", "3a"]
    view.pair = "region|temporal"
    opened.until(lambda: page.locator("[data-sample]").count() == 3)
    page.locator("[data-sample='d']").click()
    opened.until(lambda: view.playhead.sample == "d")


def test_curves_are_where_their_numbers_are(open_page: Any, tmp_path: Path):
    """Pixels of the drawn curve of one pair, against the cosines of the record; a click there goes to that step."""
    view = GradientView(run=run_folder(tmp_path, turning(9)))
    view.pair, view.module = "region|temporal", "llm.lora.2"
    page = open_page(view)
    page.wait_for_function("() => document.querySelectorAll('path.tpo-g-bold[d*=L]').length === 1")
    page.locator(".tpo-g-figure").nth(1).scroll_into_view_if_needed()
    points = page.evaluate("""() => [...document.querySelectorAll('.tpo-g-figure circle.tpo-g-pair')].map((dot) => {
      const box = dot.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })""")
    zero, top = (
        page.evaluate(
            f"() => document.querySelectorAll('.tpo-g-figure')[1].querySelectorAll('svg line')[{place}].getBoundingClientRect().y"
        )
        for place in (2, 4)
    )
    assert len(points) == 9 and zero > top
    for place, (_, y) in enumerate(points):
        vector = (2.0 - 4.0 * place / 8, 1.0)
        assert zero - y == pytest.approx((zero - top) * vector[0] / math.hypot(*vector), abs=1.0)
    page.mouse.click(points[2][0], points[2][1])
    page.wait_for_function("() => tpoPage.models[0].get('measurement') === 5")
    page.wait_for_function("() => document.querySelector('h3').textContent.endsWith('before step 100')")
    assert float(cell(page, NORMS, "llm.lora.2", 1).text_content()) == 4
    page.mouse.move(points[4][0], points[4][1])
    page.wait_for_function("() => document.querySelectorAll('.tpo-g-figure')[0].textContent.includes('region 6')")


def test_a_trace_beside_a_run(live: Any, tmp_path: Path):
    view = GradientView(trace(gradients()), run=run_folder(tmp_path, turning(2)))
    opened = live(view)
    page = opened.page
    button = page.get_by_role("button", name="Trace")
    assert view.measurement == -1 and button.get_attribute("aria-pressed") == "true"
    page.get_by_label("Measurement of the run").fill("4")
    opened.until(lambda: view.measurement == 4)
    opened.until(lambda: button.get_attribute("aria-pressed") == "false")
    button.click()
    opened.until(lambda: view.measurement == -1)
    opened.until(lambda: page.locator("h3").first.text_content() == "Gradients of stage 3a")


def test_hundreds_of_modules_stay_usable(open_page: Any):
    layers = [f"llm.{part}.{layer}" for part in ("base", "lora") for layer in range(32)] + [f"vision.{layer}" for layer in range(180)]
    view = GradientView(trace(random_gradients(("mlm", "assign", "region", "temporal", "mask"), layers), [{"mlm": 1.0}]))
    page = open_page(view)
    page.wait_for_selector(f"{NORMS} td")
    assert page.locator(f"{COSINES} tbody tr").count() < 70, "large groups are folded at first"
    page.get_by_label("Order of the modules").select_option("strongest")
    assert page.locator(f"{COSINES} tbody tr").count() == len(layers)
    assert page.locator(f"{COSINES}").evaluate("table => table.parentElement.clientHeight") < 500
    assert page.evaluate("document.documentElement.scrollWidth") <= 900
    page.locator("ol.tpo-g-list button").first.click()
    page.wait_for_selector(f"{COSINES} td[aria-selected='true']")
    seen = page.locator(f"{COSINES} td[aria-selected='true']").evaluate("""(cell) => {
      const inside = cell.getBoundingClientRect(), around = cell.closest('.tpo-g-scroll').getBoundingClientRect();
      return inside.top >= around.top && inside.bottom <= around.bottom + 1; }""")
    assert seen, "the selected cell is scrolled to in its matrix"


def test_not_finite_and_one_owner(open_page: Any):
    found = gradients()
    products = {module: each.clone() for module, each in found.products.items()}
    products["llm.lora.0"][1, :] = products["llm.lora.0"][:, 1] = math.nan
    page = open_page(GradientView(trace(dataclasses.replace(found, products=products))))
    assert cells(page, NORMS)["llm.lora.0"][1][:2] == ["not finite", "tpo-g-bad"]
    assert cells(page, COSINES)["llm.lora.0"][2][1] == "tpo-g-none"
    assert page.locator('[data-module="llm.lora.0"]').get_attribute("aria-label") == "llm.lora.0: there is no step"
    alone = open_page(GradientView(trace(gradients({"connector": [[1.0, 2.0]]}, ("mlm",)), [{"mlm": 1.0}])))
    assert "There is one loss only" in alone.locator(".tpo-view").text_content() and alone.locator(COSINES).count() == 0
    assert float(cells(alone, NORMS)["connector"][0][0]) == pytest.approx(math.sqrt(5), rel=0.03)


def test_a_run_without_measurements_is_a_panel_with_the_way_out(open_page: Any, tmp_path: Path):
    page = open_page(GradientView(run=tmp_path), GradientView(trace(None)))
    problems = page.locator(".tpo-problem").all_text_contents()
    assert "tpo-lab train --probe-every 50" in problems[0] and "gradients=True" in problems[1]


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark(open_page: Any, tmp_path: Path, artifacts: Path, dark: bool):
    """Colours of known cells on the screenshot: orange where two pull against each other, blue where they go together."""
    view = GradientView(trace(gradients()), run=run_folder(tmp_path, turning(6)))
    view.pair, view.module = "region|temporal", "llm.lora.10"
    page = open_page(view, dark=dark)
    page.wait_for_function("() => document.querySelectorAll('path.tpo-g-bold[d*=L]').length === 1")
    assert page.evaluate("document.documentElement.scrollWidth") <= 900
    shot = page.screenshot(path=artifacts / f"gradient_view_{'dark' if dark else 'light'}.png", full_page=True)
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)

    def colour(module: str, column: int) -> np.ndarray:
        box = cell(page, COSINES, module, column).bounding_box()
        return pixels[round(box["y"]) + 5, round(box["x"]) + 6]

    against, together, none = colour("llm.lora.0", 2), colour("llm.lora.10", 2), colour("heads.region", 2)
    assert against[0] - against[2] > 40 and together[2] - together[0] > 40
    assert abs(none - none.mean()).max() < 12, "hatched cells have no colour"
    paper = pixels[20, 30]
    assert (paper.mean() < 60) == dark
    small = page.evaluate("""() => Math.min(...[...document.querySelectorAll('.tpo-view *')]
      .filter((each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()))
      .map((each) => parseFloat(getComputedStyle(each).fontSize) * (each.getScreenCTM ? each.getScreenCTM().a : 1)))""")
    assert small >= 11


def test_narrow_pages_scroll_inside_the_view(open_page: Any, tmp_path: Path):
    """Where there is little room, the page itself does not get wider, and texts do not get smaller."""
    view = GradientView(run=run_folder(tmp_path, turning(6)))
    page = open_page(view, width=480)
    page.wait_for_selector(f"{NORMS} td")
    assert page.evaluate("document.documentElement.scrollWidth") <= 480
    assert page.locator("[role=listbox]").evaluate("each => each.getScreenCTM().a") >= 1
