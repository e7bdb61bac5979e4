"""TokenView in a browser: what is drawn stands where the record says, and what is selected is selected in Python too."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.widgets.planted_trace import HOT, SIDE, SIZE_WH, TIMES_SEC, planted_trace, with_attention
from tpo_lab.probes.trace import Trace
from tpo_widgets import TokenView, source, together

pytestmark = pytest.mark.browser
COLD, WARM = (0x08, 0x05, 0x1D), (0xFC, 0xFD, 0xBF)


@pytest.fixture(scope="module")
def several(clip: Path) -> Trace:
    return planted_trace(clip, samples=3)


def token(trace: Trace, text: str) -> int:
    """Where a text stands in the row."""
    return next(each.index for each in trace.samples[0].tokens if each.text == text)


def heat_drawn(name: str) -> str:
    """Whether the large frame has a map over it, and all frames of the strip are there."""
    strip = "[...document.querySelectorAll('.tpo-tk-strip canvas')].every((each) => each.style.backgroundImage)"
    return f"() => document.querySelector('.tpo-stage canvas')?.dataset.map === '{name}' && {strip}"


def pixels(page: Any, selector: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")).astype(int)


def extent(picture: np.ndarray, colour: tuple[int, int, int]) -> list[int]:
    """Left, top, right and lower edge of what has a colour."""
    ys, xs = np.nonzero(np.abs(picture - np.array(colour)).max(-1) < 30)
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


@pytest.mark.parametrize("dark", [False, True])
def test_a_hot_cell_is_drawn_in_its_place(open_page: Any, planted: Trace, artifacts: Path, dark: bool):
    view = TokenView(planted)
    view.layer, view.opacity, view.playhead.time_sec = 4, 1.0, TIMES_SEC[HOT[0]]
    page = open_page(view, dark=dark)
    page.wait_for_function(heat_drawn("attention/2"))
    page.wait_for_timeout(100)
    _, row, column = HOT
    wanted = np.array([column, row, column + 1, row + 1]) / SIDE
    for place, selector in enumerate((".tpo-stage canvas", *(f".tpo-tk-strip button:nth-child({frame + 1}) canvas" for frame in range(4)))):
        picture = pixels(page, selector)
        size = np.array([picture.shape[1], picture.shape[0]])
        assert size[0] / size[1] == pytest.approx(SIZE_WH[0] / SIZE_WH[1], abs=0.03)
        if place in (0, 1 + HOT[0]):
            assert np.abs(np.array(extent(picture, WARM)) - wanted * np.tile(size, 2)).max() <= 1, selector
        else:
            assert np.abs(picture[1:-1, 1:-1] - np.array(COLD)).max() < 30, f"{selector} has no hot cell"
    page.screenshot(path=artifacts / f"token_{'dark' if dark else 'light'}.png", full_page=True)


def test_opacity_mixes_the_frame_and_the_map(open_page: Any, planted: Trace):
    view = TokenView(planted)
    view.layer, view.opacity, view.playhead.time_sec = 4, 0.25, TIMES_SEC[HOT[0]]
    page = open_page(view)
    page.wait_for_function(heat_drawn("attention/2"))
    page.wait_for_timeout(100)
    picture = pixels(page, ".tpo-stage canvas")
    grey = np.linspace(30, 220, 10)[2]
    hot, cold = picture[picture.shape[0] // 6, -picture.shape[1] // 6], picture[-10, 10]
    assert hot == pytest.approx(0.75 * grey + 0.25 * np.array(WARM), abs=6)
    assert cold == pytest.approx(0.75 * grey + 0.25 * np.array(COLD), abs=6)


def test_probabilities_and_marks_are_the_records(open_page: Any, planted: Trace):
    page = open_page(TokenView(planted))
    routes = planted.samples[0].routes
    cards = page.locator(".tpo-tk-card").evaluate_all(
        """(all) => all.map((card) => [card.dataset.place, [...card.querySelectorAll('tr')].map((row) =>
            [row.dataset.route, row.querySelector('.n').textContent, parseFloat(row.querySelector('.tpo-tk-bar div').style.width),
             row.querySelector('.tpo-tk-marks').innerText])])"""
    )
    assert [place for place, _ in cards] == [*(str(due.token) for due in routes.due), "start"]
    for (_, rows), probability in zip(cards, [*(due.probability for due in routes.due), routes.first], strict=True):
        assert [(name, number) for name, number, *_ in rows] == [(name, f"{value:.3f}") for name, value in probability.items()]
        assert [width for _, _, width, _ in rows] == pytest.approx([100 * value for value in probability.values()])
    marks = [{name: text.replace("▲", " ▲").split() for name, *_, text in rows if text} for _, rows in cards]
    expected, written = ["●", "expected"], ["▲", "written"]
    assert marks == [{"region": expected + written}, {"temporal": expected, "none": written}, {"region": expected + written}]
    slots = page.locator("[data-slot]").all_inner_texts()
    assert "its own slot" in slots[0] and "1.0000" in slots[0] and "⚠" not in slots[0]
    assert "0.2500" in slots[1] and "⚠ not its own" in slots[1] and "route of temporal" in slots[1]


def test_shares_and_scale_are_the_records(open_page: Any, planted: Trace):
    view = TokenView(planted)
    view.layer = 1
    page = open_page(view)
    page.wait_for_function(heat_drawn("attention/2"))
    weights, tokens = planted.activations.attention[2].weights[0].double(), planted.samples[0].tokens
    framed = sum(float(weights[each.index]) for each in tokens if each.frame is not None)
    parts = page.locator(".tpo-tk-legend li").evaluate_all("(all) => all.map((each) => [each.dataset.part, Number(each.dataset.share)])")
    assert dict(parts)["frames"] == pytest.approx(framed) and sum(share for _, share in parts) == pytest.approx(1, abs=1e-5)
    assert f"frames {100 * framed:.1f} %" in page.inner_text(".tpo-tk-legend")
    most = max(float(weights[each.index]) for each in tokens if each.frame is not None)
    ticks = page.locator(".tpo-tk-ticks span").all_inner_texts()
    assert ticks[0] == "0" and float(ticks[2]) == pytest.approx(most, rel=5e-3)
    strip = page.locator(".tpo-tk-strip button").all_inner_texts()
    for frame, text in enumerate(strip):
        share = sum(float(weights[each.index]) for each in tokens if each.frame == frame)
        assert f"{frame} · {TIMES_SEC[frame]:.2f} s" in text and f"{100 * share:.1f} %" in text
    greatest = [max(float(weights[each.index]) for each in tokens if each.frame == frame) for frame in range(len(TIMES_SEC))]
    lowest = int(np.argmin(greatest))
    page.select_option("select[aria-label=Scale]", "own")
    page.click(f".tpo-tk-strip button:nth-child({lowest + 1})")
    assert float(page.inner_text(".tpo-tk-ticks span:last-child")) == pytest.approx(greatest[lowest], rel=5e-3)
    assert greatest[lowest] < 0.95 * most
    page.hover(".tpo-stage canvas", position={"x": 5, "y": 5})
    first = next(float(weights[each.index]) for each in tokens if (each.frame, each.cell) == (lowest, 0))
    read = page.inner_text(".tpo-stage + .tpo-tk-line")
    assert "row 0, column 0" in read and float(read.rpartition(": ")[2]) == pytest.approx(first, rel=1e-3)


def test_mouse_and_keys_select_tokens_in_python(live: Any, planted: Trace):
    view = TokenView(planted)
    page = live(view)
    page.until_page(heat_drawn("attention/2"))
    assert view.playhead.token == -1 and view.playhead.sample == "", "drawing selects nothing"
    slot, there = token(planted, "<temporal:slot>"), token(planted, " there")
    page.page.click(f"[data-token='{slot}']")
    page.until(lambda: view.playhead.token == slot)
    assert view.playhead.sample == "planted-0"
    page.until_page(heat_drawn("attention/3"))
    page.page.keyboard.press("ArrowLeft")
    page.until(lambda: view.playhead.token == slot - 1)
    page.until_page(heat_drawn("attention/1"))
    page.page.keyboard.press("ArrowLeft")
    page.until(lambda: view.playhead.token == there)
    page.until_page(heat_drawn("word/0/2"))
    assert "“there”" in page.page.inner_text(".tpo-tk-title")
    assert "learns to write" in page.page.inner_text(".tpo-tk-row + div + .tpo-tk-line")
    page.page.keyboard.press("ArrowUp")
    above = page.page.evaluate("() => Number(document.activeElement.dataset.token)")
    assert above < there, "the line above"
    page.page.keyboard.press("End")
    page.until(lambda: view.playhead.token == token(planted, "<eos>"))
    assert "No map" in page.page.inner_text(".tpo-tk-title")
    page.page.keyboard.press("Escape")
    page.until(lambda: view.playhead.token == -1)
    page.until_page(heat_drawn("attention/2"))
    page.page.click(f"button[data-place='{token(planted, '<temporal:route>')}']")
    page.until(lambda: view.playhead.token == token(planted, "<temporal:route>"))


def test_python_moves_the_view(live: Any, several: Trace):
    view = TokenView(several)
    page = live(view)
    page.until_page(heat_drawn("attention/2"))
    slot = token(several, "<temporal:slot>")
    view.playhead.token = slot
    page.until_page(f"() => document.querySelector(\"[data-token='{slot}']\").getAttribute('aria-selected') === 'true'")
    page.until_page(heat_drawn("attention/3"))
    view.playhead.sample = "planted-2"
    page.until_page("() => document.querySelector('.tpo-view').dataset.sample === 'planted-2'")
    page.until_page(heat_drawn("attention/11"))
    view.playhead.time_sec = 1.3
    page.until_page("() => document.querySelector('.tpo-tk-strip [aria-current=true]').dataset.frame === '2'")
    page.until_page("() => document.querySelector('.tpo-stage canvas').dataset.frame === '2'")
    view.layer, view.opacity, view.depth = 1, 0.35, 0
    page.until_page("() => document.querySelector('select[aria-label=Layer]').value === '1'")
    page.until_page("() => document.querySelector('input[aria-label^=Opacity]').value === '0.35'")
    page.until_page("() => document.querySelector('.tpo-view output').value === 'embedding'")
    view.playhead.token = -1
    view.playhead.head = "temporal"
    page.until_page(heat_drawn("attention/11"))
    view.playhead.token = 9999
    page.until_page("() => document.querySelector('.tpo-view').dataset.selected === '-1'")


def test_frames_layers_and_samples_are_chosen_on_the_page(live: Any, several: Trace):
    view = TokenView(several)
    page = live(view)
    page.until_page(heat_drawn("attention/2"))
    page.page.click(".tpo-tk-strip button:nth-child(3)")
    page.until(lambda: view.playhead.time_sec == TIMES_SEC[2])
    page.page.keyboard.press("ArrowRight")
    page.until(lambda: view.playhead.time_sec == TIMES_SEC[3])
    page.page.focus(".tpo-stage canvas")
    page.page.keyboard.press("ArrowLeft")
    page.until(lambda: view.playhead.time_sec == TIMES_SEC[2])
    page.page.select_option("select[aria-label=Layer]", "4")
    page.until(lambda: view.layer == 4)
    page.page.focus("input[aria-label^=Opacity]")
    page.page.keyboard.press("Home")
    page.until(lambda: view.opacity == 0)
    page.page.focus("input[aria-label=Depth]")
    page.page.keyboard.press("ArrowLeft")
    page.until(lambda: view.depth == 5)
    assert page.page.inner_text(".tpo-view output") == "after layer 4"
    page.page.select_option("select[aria-label=Sample]", "1")
    page.until(lambda: view.playhead.sample == "planted-1" and view.playhead.token == -1)
    page.until_page(heat_drawn("attention/6"))


def test_samples_of_one_id_can_be_told_apart(live: Any, several: Trace):
    same = tuple(replace(each, sample=each.sample.model_copy(update={"id": "same"})) for each in several.samples)
    view = TokenView(replace(several, samples=same))
    page = live(view)
    page.until_page(heat_drawn("attention/2"))
    page.page.select_option("select[aria-label=Sample]", "2")
    page.until_page(heat_drawn("attention/10"))
    assert view.playhead.sample == "same"
    page.page.select_option("select[aria-label=Sample]", "1")
    page.until_page(heat_drawn("attention/6"))


def test_a_frame_that_comes_late_is_not_drawn_in_another_sample(live: Any, several: Trace, tmp_path: Path):
    from tpo_lab.video.writer import write_clip

    white = write_clip(tmp_path / "white.mp4", np.full((10, SIZE_WH[1], SIZE_WH[0], 3), 255, np.uint8), 4.0)
    second = several.samples[1]
    media = second.sample.media.model_copy(update={"path": str(white)})
    samples = (several.samples[0], replace(second, sample=second.sample.model_copy(update={"media": media})), several.samples[2])
    view = TokenView(replace(several, samples=samples))
    view.opacity = 0.0
    page = live(view)
    page.until_page(heat_drawn("attention/2"))
    there, back = ({"sample": sample} for sample in ("planted-1", "planted-0"))
    # nothing is carried to Python in between, so that the second sample's frames come when the first is shown again
    page.page.evaluate("([id, one, other]) => { live.accept(id, one); live.accept(id, other); }", [view.playhead.model_id, there, back])
    page.page.wait_for_timeout(50)
    page.pump()
    page.until_page(heat_drawn("attention/2"))
    page.page.wait_for_timeout(200)
    assert pixels(page.page, ".tpo-stage canvas").mean() < 100


def test_a_frame_opens_into_its_grid(live: Any, planted: Trace):
    view = TokenView(planted)
    page = live(view)
    page.until_page(heat_drawn("attention/2"))
    page.page.click("[data-frame='2'] >> nth=0")
    page.until_page("() => document.querySelectorAll('.tpo-tk-patches [role=option]').length === 9")
    page.until_page("() => document.querySelector('.tpo-tk-patches').style.backgroundImage")
    place = page.page.locator(".tpo-tk-patches").bounding_box()
    page.page.mouse.click(place["x"] + place["width"] * 0.5, place["y"] + place["height"] * 0.9)
    wanted = next(each.index for each in planted.samples[0].tokens if (each.frame, each.cell) == (2, 7))
    page.until(lambda: view.playhead.token == wanted and view.playhead.time_sec == TIMES_SEC[2])
    assert "row 2, column 1" in page.page.inner_text(".tpo-tk-row + div + .tpo-tk-line")
    page.page.keyboard.press("ArrowUp")
    page.until(lambda: view.playhead.token == wanted - SIDE)
    page.page.keyboard.press("ArrowRight")
    page.until(lambda: view.playhead.token == wanted - SIDE + 1)
    # the map stays, to be read at the patch
    read = page.page.inner_text(".tpo-stage + .tpo-tk-line")
    mean = float(planted.activations.attention[2].weights[:, wanted - SIDE + 1].mean())
    assert "row 1, column 2" in read and float(read.rpartition(": ")[2]) == pytest.approx(mean, rel=1e-3)
    page.page.keyboard.press("Escape")
    page.until_page("() => !document.querySelector('.tpo-tk-patches').children.length")
    assert page.page.evaluate("() => document.activeElement.getAttribute('aria-expanded')") == "false"
    page.page.keyboard.press("Enter")
    page.until_page("() => document.querySelector('.tpo-tk-patches').children.length")


def test_a_click_on_the_frame_selects_the_patch(live: Any, planted: Trace):
    view = TokenView(planted)
    view.playhead.time_sec = TIMES_SEC[3]
    page = live(view)
    page.until_page(heat_drawn("attention/2"))
    place = page.page.locator(".tpo-stage canvas").bounding_box()
    page.page.mouse.click(place["x"] + place["width"] * 0.9, place["y"] + place["height"] * 0.5)
    wanted = next(each.index for each in planted.samples[0].tokens if (each.frame, each.cell) == (3, 5))
    page.until(lambda: view.playhead.token == wanted)
    page.until_page("() => document.querySelector('.tpo-tk-row [data-frame=\"3\"]').getAttribute('aria-selected') === 'true'")


def test_words_of_the_models_own_answer_have_maps(live: Any, planted: Trace):
    view = TokenView(planted)
    page = live(view)
    page.until_page(heat_drawn("attention/2"))
    page.page.click("[data-word='1']")
    page.until(lambda: view.word == 1 and view.playhead.token == -1)
    page.until_page(heat_drawn("word/0/1"))
    assert "“here” of the model's own answer" in page.page.inner_text(".tpo-tk-title")
    assert page.page.locator(".tpo-tk-ticks span").all_inner_texts() == ["0", "2.75", "5.5"]
    sums = page.page.locator(".tpo-tk-strip button span:last-child").all_inner_texts()
    assert sums == ["0", "0", "5.5", "0"]
    page.page.keyboard.press("ArrowLeft")
    page.until(lambda: view.word == 0)
    view.playhead.token = token(planted, "<region:slot>")
    page.until(lambda: view.word == -1)
    view.word = 1
    page.until_page(heat_drawn("word/0/1"))


def test_cells_of_the_matrix_select_two_tokens(live: Any, several: Trace):
    view = TokenView(several)
    page = live(view)
    page.until_page("() => document.querySelector('[role=application]')?.dataset.depth === '6'")
    left, top, side = map(float, page.page.get_attribute("[role=application]", "data-cells").split(","))
    at = {"x": left + 3.5 * side, "y": top + 0.5 * side}
    page.page.hover("[role=application]", position=at)
    cosines = several.activations.cosines()
    assert f": {float(cosines[6, 0, 3]):.4f} after the final norm" in page.page.inner_text("[role=application] ~ .tpo-tk-line")
    page.page.click("[role=application]", position=at)
    page.until(lambda: list(view.pair) == [0, 3] and view.playhead.token == several.activations.slots[0][2])
    page.until_page("() => document.querySelectorAll('.tpo-tk-dot').length === 7")
    values = page.page.get_attribute(".tpo-tk-chart", "aria-label")
    assert all(f"{float(value):.2f}" in values for value in cosines[:, 0, 3])
    page.page.mouse.move(0, 0)
    page.page.focus("[role=application]")
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("Enter")
    page.until(lambda: list(view.pair) == [1, 3])
    view.depth = 2
    page.until_page("() => document.querySelector('[role=application]').dataset.depth === '2'")
    assert f": {float(cosines[2, 1, 3]):.4f} after layer 1" in page.page.inner_text("[role=application] ~ .tpo-tk-line")
    # two tokens of other samples lead there
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("Enter")
    page.until(lambda: list(view.pair) == [2, 3] and view.playhead.sample == "planted-1")
    page.until_page("() => document.querySelectorAll('.tpo-chip-other').length === 1")


@pytest.mark.parametrize("dark", [False, True])
def test_cells_of_the_matrix_are_as_strong_as_their_cosines(open_page: Any, several: Trace, dark: bool):
    page = open_page(TokenView(several), dark=dark)
    page.wait_for_function("() => document.querySelector('[role=application]')?.dataset.depth === '6'")
    picture = pixels(page, "[role=application]")
    left, top, side = map(float, page.get_attribute("[role=application]", "data-cells").split(","))
    panel = np.array((0x22, 0x26, 0x2E) if dark else (0xF3, 0xF5, 0xF8))
    blue, pink = np.array((0x56, 0xB4, 0xE9) if dark else (0x00, 0x72, 0xB2)), np.array((0xCC, 0x79, 0xA7))
    for (row, column), value in np.ndenumerate(several.activations.cosines()[6].numpy()):
        share = 0.75 * min(abs(float(value)), 1.0)
        wanted = (1 - share) * panel + share * (blue if value >= 0 else pink)
        # near the corner, where no number stands
        assert picture[int(top + row * side + 5), int(left + column * side + 5)] == pytest.approx(wanted, abs=4), (row, column)


def test_views_that_share_a_playhead_move_together(open_page: Any, planted: Trace):
    page = open_page(*together(TokenView(planted), TokenView(planted)).views)
    page.wait_for_function(heat_drawn("attention/2"))
    slot = token(planted, "<temporal:slot>")
    page.click(f"[data-token='{slot}'] >> nth=0")
    page.wait_for_function("() => [...document.querySelectorAll('.tpo-stage canvas')].every((each) => each.dataset.map === 'attention/3')")
    assert page.locator(f"[data-token='{slot}'][aria-selected=true]").count() == 2


def test_leaks_and_what_is_missing_are_said(open_page: Any, planted: Trace):
    view = TokenView(planted)
    view.playhead.token = token(planted, "<region:route>")
    page = open_page(view)
    page.wait_for_function(heat_drawn("attention/0"))
    assert "must not see: 0.125" in page.inner_text(".tpo-tk-warning")
    page.click(f"[data-token='{token(planted, '<region:slot>')}']")
    page.wait_for_function(heat_drawn("attention/2"))
    assert not page.is_visible(".tpo-tk-warning")
    bare = replace(with_attention(planted, (), ()), samples=tuple(replace(each, words=()) for each in planted.samples))
    page = open_page(TokenView(bare))
    page.wait_for_selector(".tpo-tk-title code")
    assert "attention=True" in page.inner_text(".tpo-tk-title") and "words=True" in page.inner_text(".tpo-tk-how")
    assert "“<region> here”" in page.inner_text(".tpo-tk-how") and not page.is_visible("select[aria-label=Layer]")
    page.click(f"[data-token='{token(planted, '<region:slot>')}']")
    assert "attention=True" in page.inner_text(".tpo-tk-title")
    page.click(f"[data-token='{token(planted, ' there')}']")
    assert "words=True" in page.inner_text(".tpo-tk-title")


def test_a_sample_without_slots_and_one_whose_clip_has_gone(open_page: Any, planted: Trace):
    sample = planted.samples[0]
    routes = replace(sample.routes, due=(), expected=(), emitted=(), text="")
    plain = replace(sample, tokens=sample.tokens[:-6], slots=(), words=(), routes=routes)
    gone = plain.sample.model_copy(update={"media": plain.sample.media.model_copy(update={"path": "gone.mp4"})})
    activations = replace(planted.activations, slots=(), states=planted.activations.states[:0], attention=())
    page = open_page(TokenView(replace(planted, samples=(replace(plain, sample=gone),), activations=activations)))
    page.wait_for_selector(".tpo-stage .tpo-missing:not([hidden])")
    assert "gone.mp4" in page.inner_text(".tpo-stage .tpo-missing")
    assert "no slot" in page.inner_text("[aria-label=Slots]") and "wrote nothing" in page.inner_text(".tpo-tk-how")
    assert "No sample of this record has a task token" in page.inner_text("[aria-label^=Similarity]")
    assert page.locator(".tpo-tk-card").count() == 1 and "no slot and no route" in page.inner_text(".tpo-tk-title")


def test_a_large_models_row_has_few_elements(open_page: Any, clip: Path):
    trace = planted_trace(clip, side=14, frames=32, words="word " * 200)
    page = open_page(TokenView(trace))
    page.wait_for_function("() => document.querySelector('.tpo-stage canvas')?.dataset.map === 'attention/2'")
    first = "document.querySelector('.tpo-chip-route').getBoundingClientRect()"
    row = "document.querySelector('.tpo-tk-row').getBoundingClientRect()"
    assert page.evaluate(f"() => {first}.top >= {row}.top && {first}.bottom <= {row}.bottom"), "task tokens are in sight"
    assert len(trace.samples[0].tokens) > 6000 and page.evaluate("() => document.querySelectorAll('*').length") < 800
    page.click("[data-frame='31'] >> nth=0")
    page.wait_for_function("() => document.querySelectorAll('.tpo-tk-patches [role=option]').length === 196")


def test_nonsense_is_a_panel(open_page: Any):
    assert "a step record" in open_page(TokenView({"samples": []})).inner_text(".tpo-problem")


@pytest.mark.parametrize("width", [900, 480])
def test_nothing_is_cut_off(open_page: Any, several: Trace, width: int):
    first = several.samples[0]
    text = "word " * 40
    long = replace(
        first, sample=first.sample.model_copy(update={"id": "long-" * 12}), record=replace(first.record, question=text, expected_text=text)
    )
    page = open_page(TokenView(replace(several, samples=(long, *several.samples[1:]))), width=width)
    page.wait_for_function(heat_drawn("attention/2"))
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    over = page.evaluate(
        """() => [...document.querySelectorAll('.tpo-view *')].filter((each) => each.getBoundingClientRect().right >
            document.querySelector('.tpo-view').getBoundingClientRect().right + 1).map((each) => each.outerHTML.slice(0, 80))"""
    )
    assert not over
    sizes = page.evaluate("() => [...document.querySelectorAll('.tpo-view *')].map((each) => parseFloat(getComputedStyle(each).fontSize))")
    assert min(sizes) >= 11


def test_the_front_end_is_small():
    assert len(source.esm("token_view").encode()) <= 55_000
