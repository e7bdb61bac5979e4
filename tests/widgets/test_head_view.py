"""HeadView in a browser: what is drawn is where the numbers say, and keys, mouse and touch do what the view says they do."""

from __future__ import annotations

import io
import json
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.widgets import head_fixtures as made
from tpo_lab.rle import decode_rle, encode_rle
from tpo_widgets.group import together
from tpo_widgets.heads.content import HeadContent
from tpo_widgets.heads.view import HeadView
from tpo_widgets.playhead import Playhead

pytestmark = pytest.mark.browser

GREEN, VERMILION, WHITE = (0, 158, 115), (213, 94, 0), (255, 255, 255)
AT_FRAME = "document.querySelector('.head-view').dataset.frame === '{}'"


def view_of(sample: Any, answer: Any = None, **options: Any) -> HeadView:
    return HeadView(sample, answer, **{"frames": made.frames(), "times_sec": made.TIMES, **options})


def at_frame(page: Any, number: int, *, view: int = 0) -> None:
    page.wait_for_function("([view, n]) => document.querySelectorAll('.head-view')[view].dataset.frame === String(n)", arg=[view, number])
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def playhead(page: Any, name: str) -> Any:
    return page.evaluate("(name) => tpoPage.playheads[0].get(name)", name)


def jump(page: Any, number: int) -> None:
    page.evaluate("(time) => tpoPage.playheads[0].set('time_sec', time)", made.TIMES[number])
    at_frame(page, number)


def pixels_of(page: Any, selector: str) -> tuple[Any, Any]:
    """The screenshot of an element, and where its left upper corner stands in it (a corner need not fall on a pixel)."""
    from PIL import Image

    place = page.locator(selector).first.bounding_box()
    whole = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")).astype(int)
    left, top = int(place["x"]), int(place["y"])
    cut = whole[top : top + int(place["height"]) + 2, left : left + int(place["width"]) + 2]
    return cut, (place["x"] - left, place["y"] - top)


def like(pixels: Any, colour: tuple[int, int, int], most: int = 90) -> Any:
    return np.abs(pixels - np.array(colour)).sum(-1) < most


def line_at(pixels: Any, colour: tuple[int, int, int], axis: int, near: float, span: tuple[float, float]) -> float:
    """Where a line of a colour crosses `axis` (0: a horizontal one, 1: a vertical one) near a place: the centre of what is coloured, over
    the middle of its length."""
    start, end = span
    middle = slice(round(start + 0.25 * (end - start)), max(round(end - 0.25 * (end - start)), round(start + 0.25 * (end - start)) + 1))
    found = like(pixels[:, middle] if axis == 0 else pixels[middle].transpose(1, 0, 2), colour)
    # labels begin five pixels from the line
    first = max(round(near) - 4, 0)
    rows = found[first : round(near) + 4].sum(1)
    assert rows.sum() > 0, f"no line of {colour} within 4 pixels of {near}"
    return float((rows * (np.arange(len(rows)) + first + 0.5)).sum() / rows.sum())


def stage_scale(page: Any) -> float:
    return float(page.evaluate("() => parseFloat(document.querySelector('.tpo-stage canvas').style.width)")) / made.WIDTH


@pytest.mark.parametrize("dark", [False, True])
class TestPixels:
    def test_boxes_are_where_their_numbers_say(self, open_page: Any, artifacts: Path, dark: bool):
        page = open_page(view_of(made.boxed(), made.boxed_answer()), dark=dark)
        jump(page, 4)
        pixels, (x, y) = pixels_of(page, ".tpo-stage canvas")
        scale = stage_scale(page)
        for box, colour in ((made.TRUE_BOX, GREEN), (made.MODEL_BOX, VERMILION)):
            x0, y0, x1, y1 = (edge * scale + shift for edge, shift in zip(box, (x, y, x, y), strict=True))
            assert line_at(pixels, colour, 1, x0, (y0, y1)) == pytest.approx(x0, abs=1)
            assert line_at(pixels, colour, 1, x1, (y0, y1)) == pytest.approx(x1, abs=1)
            assert line_at(pixels, colour, 0, y0, (x0, x1)) == pytest.approx(y0, abs=1)
            assert line_at(pixels, colour, 0, y1, (x0, x1)) == pytest.approx(y1, abs=1)
        page.screenshot(path=artifacts / f"head_view_{'dark' if dark else 'light'}.png", full_page=True)

    def test_the_edge_of_a_mask_is_where_its_pixels_end(self, open_page: Any, dark: bool):
        page = open_page(view_of(made.masked(), made.masked_answer(shift=4, down=3), opacity=0.0), dark=dark)
        jump(page, 5)
        pixels, corner = pixels_of(page, ".tpo-stage canvas")
        scale = stage_scale(page)
        for left, top, colour in ((4 + 15, 6, GREEN), (4 + 15 + 4, 9, VERMILION)):
            corners = made.ell_corners(left, top)
            for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
                axis = 0 if y0 == y1 else 1
                wanted = (y0 if axis == 0 else x0) * scale + corner[1 - axis]
                ends = sorted(edge * scale + corner[axis] for edge in ((x0, x1) if axis == 0 else (y0, y1)))
                assert line_at(pixels, colour, axis, wanted, tuple(ends)) == pytest.approx(wanted, abs=1)

    def test_a_veil_covers_the_mask_and_nothing_else(self, open_page: Any, dark: bool):
        page = open_page(view_of(made.masked(), made.masked_answer(shift=4), opacity=1.0), dark=dark)
        for name in ("truth", "trails", "mask edges"):
            page.get_by_label(name, exact=True).uncheck()
        jump(page, 5)
        pixels, (x, y) = pixels_of(page, ".tpo-stage canvas")
        scale, mask = stage_scale(page), made.ell(4 + 15 + 4, 6)
        rows, columns = (((np.arange(count) + 0.5) * scale) for count in mask.shape)
        seen = like(pixels[np.ix_((rows + y).astype(int), (columns + x).astype(int))], VERMILION)
        # the label below the object is of the same colour
        assert (seen[:20] == mask[:20]).all() and mask[:20].sum() == mask.sum() > 0

    def test_windows_are_where_their_seconds_say(self, open_page: Any, dark: bool):
        page = open_page(view_of(made.boxed(), made.boxed_answer()), dark=dark)
        page.wait_for_selector(".head-curve")
        pixels, (shift, _) = pixels_of(page, ".head-timeline svg")
        box = page.locator(".head-timeline svg").bounding_box()
        axis = page.locator("line.head-axis").first.bounding_box()
        left, wide = axis["x"] - box["x"] + shift, axis["width"]
        for kind, (start, end), colour in (("truth", made.TRUE_WINDOW, GREEN), ("model", made.MODEL_WINDOW, VERMILION)):
            bar = page.locator(f"rect.head-bar.head-{kind}").first.bounding_box()
            columns = np.flatnonzero(like(pixels[round(bar["y"] - box["y"] + 2)], colour))
            assert columns[0] == pytest.approx(left + wide * start / made.DURATION_SEC, abs=1)
            assert columns[-1] + 1 == pytest.approx(left + wide * end / made.DURATION_SEC, abs=1)

    def test_what_the_user_points_at_is_white_on_its_own_frame_only(self, open_page: Any, dark: bool):
        page = open_page(view_of(made.masked()), dark=dark)
        for number, there in ((0, True), (1, False)):
            jump(page, number)
            pixels, (x, y) = pixels_of(page, ".tpo-stage canvas")
            scale = stage_scale(page)
            assert bool(like(pixels[5:-5, 5:-5], WHITE).sum() > 300) is there
            if there:
                x0, y0, x1, y1 = 4 * scale + x, 6 * scale + y, 20 * scale + x, 20 * scale + y
                assert line_at(pixels, WHITE, 1, x1, (y0, y1)) == pytest.approx(x1, abs=1)
                assert line_at(pixels, WHITE, 0, y1, (x0, x1)) == pytest.approx(y1, abs=1)


def test_run_lengths_are_read_in_the_browser_as_in_python(new_page: Any):
    random = np.random.default_rng(3)
    sizes = [(1, 1), (1, 9), (9, 1), (31, 57), (64, 48), (200, 333)]
    masks = [random.random(size) < share for size in sizes for share in (0.0, 0.03, 0.5, 0.97, 1.0)]
    blob = np.zeros((240, 320), dtype=bool)
    blob[40:200, 100:250] = True
    codes = [encode_rle(mask) for mask in [*masks, blob]]
    plain = {"size": [2, 3], "counts": [1, 3, 2]}
    code = (files("tpo_widgets") / "front" / "rle.js").read_text(encoding="utf-8").replace("export ", "")
    page = new_page()
    found = page.evaluate(f"(codes) => {{ {code}; return codes.map((each) => Array.from(decodeRle(each)).join('')); }}", [*codes, plain])
    for rle, text in zip([*codes, plain], found, strict=True):
        assert text == "".join(map(str, decode_rle("mask", rle).astype(int).reshape(-1)))
    for bad in ({"size": [2, 3], "counts": [1, 2]}, {"size": [2, 2], "counts": "0P"}, {"size": [2, 2], "counts": [9, -5]}):
        said = page.evaluate(
            f"(bad) => {{ {code}; try {{ return String(decodeRle(bad)); }} catch (error) {{ return error.message; }} }}", bad
        )
        assert "run lengths" in said


def test_the_edges_of_masks_enclose_as_many_pixels_as_they_hold(new_page: Any):
    random = np.random.default_rng(4)
    masks = [random.random((31, 57)) < 0.5, made.ell(3, 2), np.ones((31, 57), bool), np.zeros((31, 57), bool), np.eye(31, 57, dtype=bool)]
    code = (files("tpo_widgets") / "front" / "rle.js").read_text(encoding="utf-8").replace("export ", "")
    corners = (
        "(line) => line.reduce((sum, [x, y], at) => { const [p, q] = line[(at + 1) % line.length]; return sum + (x * q - p * y) / 2; }, 0)"
    )
    area = f"lines.map({corners}).reduce((sum, each) => sum + each, 0)"
    page = new_page()
    for mask in masks:
        script = f"(rle) => {{ {code}; const lines = maskEdges(decodeRle(rle), rle.size); return {area}; }}"
        assert page.evaluate(script, encode_rle(mask)) == pytest.approx(mask.sum())


class TestNumbers:
    def test_header_legend_and_readout_say_what_the_record_says(self, open_page: Any):
        view = view_of(made.boxed(), made.boxed_answer())
        page = open_page(view)
        jump(page, 4)
        said = page.locator(".head-header").inner_text()
        assert "Where and when?" in said and "There <region> and then <temporal>" in said
        assert "✓ route region + temporal emitted, as expected, p(region) = 0.9, p(temporal) = 0.05" in said
        iou = view.document["case"]["sources"]["0.routed"]["boxes"][0]["iou"]
        rows = [row.inner_text().split() for row in page.locator(".head-rows tbody tr").all()]
        assert rows[0][-2:] == [f"{iou:.3g}"] * 2
        assert page.locator(".head-object").all_inner_texts() == ["box 1", "window 1", "window 2, model only"]
        jump(page, 3)
        assert page.locator(".head-rows tbody tr").first.inner_text().split()[-2:] == ["\N{EN DASH}", f"{iou:.3g}"]
        assert "0.75" in page.locator(".head-timeline").inner_text() and "0 to 4" in page.locator(".head-timeline").inner_text()
        assert "0.1 to 0.9" in page.locator(".head-timeline").inner_text()

    def test_a_route_that_was_not_emitted_is_told_and_the_forced_answer_is_a_key_away(self, live: Any):
        sample = made.boxed()
        view = view_of([sample], [made.forced_only(sample, made.boxed_answer())])
        page_of = live(view)
        page = page_of.page
        page_of.until_page(f"() => {AT_FRAME.format(0)}")
        assert "✗ route none emitted, region + temporal expected" in page.locator(".head-header").inner_text()
        assert "asked no head by itself" in page.locator(".head-silent").inner_text()
        assert page.locator("rect.head-bar.head-model").count() == 0
        page.get_by_role("button", name="forced").click()
        page_of.until(lambda: view.how == "forced", "how in Python")
        page_of.until_page("() => document.querySelectorAll('rect.head-bar.head-model').length === 2")
        view.how = "routed"
        page_of.until_page("() => document.querySelectorAll('rect.head-bar.head-model').length === 0")

    def test_losses_of_a_trace_stand_in_the_header(self, open_page: Any, build_tiny: Any, say: Any):
        import tpo_lab as tpo

        sample = say(1, "Where is it?", "<region>", region=[{"time_sec": 1.0, "xyxy": [4.0, 8.0, 20.0, 40.0]}])
        trace = tpo.probe(build_tiny().eval(), [sample], gradients=False, attention=False)
        page = open_page(HeadView(trace))
        words = page.locator(".head-losses").inner_text()
        for name, term in trace.samples[0].losses.items():
            assert f"{name} " in words and f"{float(f'{term.value:.3g}'):g}"[:4] in words


class TestMoving:
    def test_keys_step_jump_and_play(self, open_page: Any):
        page = open_page(view_of(made.masked(), made.masked_answer()))
        page.locator("canvas").first.focus()
        for key, number in (
            ("ArrowRight", 1),
            ("ArrowRight", 2),
            ("ArrowLeft", 1),
            ("End", 6),
            ("ArrowRight", 6),
            ("Home", 0),
            ("Shift+ArrowRight", 6),
            ("Shift+ArrowLeft", 0),
        ):
            page.keyboard.press(key)
            at_frame(page, number)
            page.wait_for_function("(time) => tpoPage.playheads[0].get('time_sec') === time", arg=made.TIMES[number])
        page.keyboard.press(" ")
        page.wait_for_selector("button[aria-label=Pause]")
        page.wait_for_function("() => tpoPage.playheads[0].get('time_sec') > 0.4")
        page.keyboard.press(" ")
        page.wait_for_selector("button[aria-label=Play]")

    def test_a_step_changes_words_and_leaves_every_element_in_its_place(self, open_page: Any):
        page = open_page(view_of(made.masked(), made.masked_answer()))
        page.wait_for_selector(".head-curve")
        jump(page, 1)
        before = page.locator(".head-legend, .head-readout, .head-count").all_inner_texts()
        page.evaluate("""() => {
            window.moved = [];
            const tell = (found) => found.forEach(({ target }) => window.moved.push(target.className || target.nodeName));
            const watch = new MutationObserver(tell);
            watch.observe(document.querySelector(".head-view"), { childList: true, subtree: true });
        }""")
        page.locator("canvas").first.focus()
        # where the model says that it is hidden
        for number in (2, 3, 4):
            page.keyboard.press("ArrowRight")
            at_frame(page, number)
        after = page.locator(".head-legend, .head-readout, .head-count").all_inner_texts()
        assert all(one != other for one, other in zip(before, after, strict=True)), "the words follow"
        assert page.evaluate("() => window.moved") == [], "a long video would leave its length in elements behind"

    def test_a_steady_hand_asks_for_frames_many_at_once_and_a_jump_for_few(self, live: Any):
        count = 160
        view = view_of(made.boxed(), frames=made.frames(count), times_sec=[number / 40 for number in range(count)])
        page_of = live(view)
        asked: list[list[str]] = []
        view.on_msg(lambda _, message, __: asked.append([name for name in message["want"] if name.startswith("frame/")]))
        page_of.until_page(f"() => {AT_FRAME.format(0)}")
        page_of.page.locator("canvas").first.focus()
        for number in range(1, 41):
            page_of.page.keyboard.press("ArrowRight")
            page_of.until_page(f"() => {AT_FRAME.format(number)}")
        names = [name for each in asked for name in each]
        assert len(names) == len(set(names)), "none twice"
        assert {f"frame/0/{number}" for number in range(1, 46)} <= {"frame/0/1", *names}
        assert len([each for each in asked if each]) <= 10
        page_of.until(lambda: view.playhead.time_sec == 40 / 40, "the last step")
        asked.clear()
        view.playhead.time_sec = 100 / 40
        page_of.until_page(f"() => {AT_FRAME.format(100)}")
        page_of.until(lambda: any("frame/0/104" in each for each in asked), "the neighbours")
        assert {name for each in asked for name in each} == {f"frame/0/{number}" for number in range(98, 105)}

    def test_the_worst_frame_is_that_of_the_lowest_score(self, open_page: Any):
        page = open_page(view_of(made.masked(), made.masked_answer(shift=1)))
        page.wait_for_selector(".head-curve")
        page.locator("canvas").first.focus()
        page.keyboard.press("w")
        # hidden in truth, and something is shown
        at_frame(page, 3)
        assert "J here 0," in page.locator(".head-readout").inner_text()

    def test_without_scores_of_frames_there_is_no_worst_one(self, open_page: Any):
        page = open_page(view_of(made.masked()))
        at_frame(page, 0)
        worst = page.get_by_role("button", name="Jump to the worst frame")
        assert worst.is_disabled() and "no object here has a score" in worst.get_attribute("title")

    def test_buttons_zoom_and_the_frame_is_moved_with_the_mouse(self, open_page: Any):
        page = open_page(view_of(made.boxed(), made.boxed_answer()))
        jump(page, 4)
        before, _ = pixels_of(page, ".tpo-stage canvas")
        for _ in range(4):
            page.get_by_role("button", name="Zoom in").click()
        page.wait_for_timeout(100)
        after, _ = pixels_of(page, ".tpo-stage canvas")
        assert (before != after).any()
        place = page.locator("canvas").first.bounding_box()
        page.mouse.move(place["x"] + 200, place["y"] + 150)
        page.mouse.down()
        page.mouse.move(place["x"] + 120, place["y"] + 100, steps=3)
        page.mouse.up()
        moved, _ = pixels_of(page, ".tpo-stage canvas")
        assert (moved != after).any() and playhead(page, "object") == -1
        page.locator("canvas").first.focus()
        page.keyboard.press("0")
        page.mouse.move(2, 2)
        page.wait_for_timeout(100)
        again, _ = pixels_of(page, ".tpo-stage canvas")
        inner = (slice(5, -5), slice(5, -5))
        assert (again[inner] == before[inner]).all()

    def test_the_timeline_is_scrubbed_with_the_mouse_and_python_hears(self, live: Any):
        view = view_of(made.boxed(), made.boxed_answer())
        page_of = live(view)
        page = page_of.page
        page_of.until_page(f"() => {AT_FRAME.format(0)}")
        box, axis = page.locator(".head-timeline").bounding_box(), page.locator("line.head-axis").first.bounding_box()
        page.mouse.move(axis["x"] + axis["width"] * 0.1, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(axis["x"] + axis["width"] * 0.45, box["y"] + 60, steps=5)
        page.mouse.up()
        page_of.until(lambda: view.playhead.time_sec == 2.0, "the frame on display at 2.25 s")
        page_of.until_page(f"() => {AT_FRAME.format(3)}")
        view.playhead.time_sec = 4.2
        page_of.until_page(f"() => {AT_FRAME.format(5)}")

    def test_touch_scrubs_and_two_fingers_zoom(self, open_page: Any):
        page = open_page(view_of(made.boxed(), made.boxed_answer()), has_touch=True)
        at_frame(page, 0)
        axis = page.locator("line.head-axis").first.bounding_box()
        y = page.locator(".head-timeline").bounding_box()["y"] + 60
        page.touchscreen.tap(axis["x"] + axis["width"] * 0.62, y)
        at_frame(page, 4)
        session = page.context.new_cdp_session(page)

        def touch(kind: str, *points: tuple[float, float]) -> None:
            where = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": where})

        touch("touchStart", (axis["x"] + axis["width"] * 0.62, y))
        for share in (0.5, 0.4, 0.3):
            touch("touchMove", (axis["x"] + axis["width"] * share, y))
        touch("touchEnd")
        at_frame(page, 2)
        stage = page.locator("canvas").first.bounding_box()
        centre = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
        before, _ = pixels_of(page, ".tpo-stage canvas")
        touch("touchStart", (centre[0] - 20, centre[1]), (centre[0] + 20, centre[1]))
        for apart in (40, 60, 80):
            touch("touchMove", (centre[0] - apart, centre[1]), (centre[0] + apart, centre[1]))
        touch("touchEnd")
        page.wait_for_timeout(100)
        after, _ = pixels_of(page, ".tpo-stage canvas")
        assert (like(before, VERMILION) != like(after, VERMILION)).any()


class TestSelecting:
    def test_an_object_is_selected_on_the_frame_and_in_the_legend(self, live: Any):
        sample, answer = made.fifty()
        view = view_of(sample, answer)
        page_of = live(view)
        page = page_of.page
        page_of.until_page(f"() => {AT_FRAME.format(0)}")
        assert page.locator(".head-rows tbody tr").count() == 50
        view.playhead.time_sec = 2.0
        page_of.until_page(f"() => {AT_FRAME.format(3)}")
        scale, stage = stage_scale(page), page.locator("canvas").first.bounding_box()
        # the middle of the box in the third column of the fifth row
        page.mouse.click(stage["x"] + (1 + 5 * 2 + 2.5) * scale, stage["y"] + (1 + 6 * 4 + 2.5) * scale)
        page_of.until(lambda: view.playhead.object == 42, "object 42 in Python")
        assert page.locator(".head-object[aria-pressed=true]").inner_text() == "box 43"
        page.locator(".head-object").nth(7).click()
        page_of.until(lambda: view.playhead.object == 7, "object 7 in Python")
        view.playhead.object = 30
        page_of.until_page("() => document.querySelector('.head-object[aria-pressed=true]').textContent === 'box 31'")
        page.keyboard.press("Escape")
        page_of.until(lambda: view.playhead.object == -1, "no object in Python")

    def test_heads_are_shown_one_at_a_time(self, open_page: Any):
        page = open_page(view_of(made.boxed(), made.boxed_answer()))
        jump(page, 4)
        page.get_by_role("button", name="temporal", exact=True).click()
        page.wait_for_function("() => tpoPage.playheads[0].get('head') === 'temporal'")
        at_frame(page, 4)
        pixels, _ = pixels_of(page, ".tpo-stage canvas")
        assert like(pixels, VERMILION).sum() == 0 and page.locator("rect.head-bar").count() == 3
        page.get_by_role("button", name="region", exact=True).click()
        page.wait_for_function("() => !document.querySelector('rect.head-bar')")
        at_frame(page, 4)
        pixels, _ = pixels_of(page, ".tpo-stage canvas")
        assert like(pixels, VERMILION).sum() > 300

    def test_a_window_is_selected_by_a_click_on_its_bar(self, open_page: Any):
        page = open_page(view_of(made.boxed(), made.boxed_answer()))
        at_frame(page, 0)
        page.locator("rect.head-bar.head-model").first.click()
        page.wait_for_function("() => tpoPage.playheads[0].get('object') === 0 && tpoPage.playheads[0].get('head') === 'temporal'")
        assert page.locator("rect.head-chosen").count() == 2

    def test_samples_are_chosen_with_keys_and_from_python(self, live: Any, world: Any):
        samples = [world(scene, "region")[0] for scene in (0, 1, 2)]
        view = HeadView(samples)
        page_of = live(view)
        page = page_of.page
        page_of.until_page(f"() => {AT_FRAME.format(0)}")
        page.locator("canvas").first.focus()
        page.keyboard.press("]")
        page_of.until(lambda: view.playhead.sample == samples[1].id, "the second sample in Python")
        page_of.until_page(
            f"() => document.querySelector('.head-header h3')?.textContent === {json.dumps(samples[1].conversation[0].text)}"
        )
        view.playhead.sample = samples[2].id
        page_of.until_page("() => document.querySelector('.head-chooser select').value === '2'")
        page.get_by_role("button", name="Previous sample").click()
        page_of.until(lambda: view.playhead.sample == samples[1].id, "back to the second")

    def test_a_sample_whose_clip_is_gone_leaves_the_others(self, live: Any, world: Any):
        samples = [made.boxed(), world(1, "region")[0]]
        view = HeadView(samples)
        page_of = live(view)
        page_of.until_page("() => document.querySelector('.tpo-problem')?.textContent.includes('nowhere.mp4')")
        page_of.page.get_by_role("button", name="Next sample").click()
        page_of.until_page(f"() => {AT_FRAME.format(0)}")
        assert page_of.page.locator(".tpo-problem").is_hidden()

    def test_a_mask_is_selected_on_the_frame_and_its_opacity_reaches_python(self, live: Any):
        view = view_of(made.masked(), made.masked_answer())
        page_of = live(view)
        page = page_of.page
        page_of.until_page(f"() => {AT_FRAME.format(0)}")
        scale, stage = stage_scale(page), page.locator("canvas").first.bounding_box()
        page.mouse.click(stage["x"] + 7 * scale, stage["y"] + 12 * scale)
        page_of.until(lambda: view.playhead.object == 0, "object 0 in Python")
        page.mouse.click(stage["x"] + 50 * scale, stage["y"] + 3 * scale)
        page_of.until(lambda: view.playhead.object == -1, "no object in Python")
        page.get_by_label("Opacity of masks").fill("0.8")
        page_of.until(lambda: view.opacity == 0.8, "opacity in Python")

    def test_run_lengths_that_cannot_be_read_are_said_and_the_frames_stay(self, live: Any):
        sample, answer = made.masked(), made.masked_answer()
        answer["structured"]["mask"]["masks"][0][1] = {"size": [made.HEIGHT, made.WIDTH], "counts": [5, 5]}
        view = view_of(sample, answer)
        page_of = live(view)
        page_of.until_page("() => document.querySelector('.tpo-problem')?.textContent.includes('runs that fill 31 x 57')")
        page_of.page.locator("canvas").first.focus()
        page_of.page.keyboard.press("ArrowRight")
        page_of.until_page(f"() => {AT_FRAME.format(1)}")
        page_of.page.keyboard.press("End")
        page_of.until_page(f"() => {AT_FRAME.format(6)}")

    def test_other_content_takes_the_place_of_what_was_shown(self, live: Any):
        view = view_of(made.boxed(), made.boxed_answer())
        page_of = live(view)
        page_of.until_page(f"() => {AT_FRAME.format(0)}")
        view.show(lambda: HeadContent.of(made.masked(), made.masked_answer(), frames=made.frames(), times_sec=made.TIMES))
        page_of.until_page("() => document.querySelector('.head-header h3')?.textContent.startsWith('Follow')")
        page_of.until_page("() => document.querySelectorAll('.head-curve').length === 1")
        view.show(lambda: HeadContent.of(7))
        page_of.until_page("() => document.querySelector('.tpo-problem')?.textContent.includes('shown: expected a trace')")

    def test_a_track_draws_its_trail_through_the_centres_before(self, open_page: Any):
        page = open_page(view_of(made.tracked(), made.masked_answer()))
        page.get_by_label("model", exact=True).uncheck()
        jump(page, 6)
        scale, seen = stage_scale(page), {}
        for trails in (True, False):
            page.get_by_label("trails").set_checked(trails)
            at_frame(page, 6)
            pixels, (x, y) = pixels_of(page, ".tpo-stage canvas")
            # the centre of the box one frame before
            seen[trails] = bool(like(pixels, GREEN, 150)[round(13 * scale + y), round((4 + 15 + 8) * scale + x)])
        assert seen == {True: True, False: False}


class TestTogether:
    def test_views_with_one_playhead_move_together(self, open_page: Any):
        shared = Playhead()
        views = [
            view_of(made.masked(), made.masked_answer(), playhead=shared),
            view_of(made.masked(), made.masked_answer(3), playhead=shared),
        ]
        page = open_page(*views)
        page.locator("canvas").first.focus()
        page.keyboard.press("End")
        at_frame(page, 6, view=0)
        at_frame(page, 6, view=1)
        assert together(*views).views == tuple(views)

    def test_two_checkpoints_share_one_scrubber(self, open_page: Any, artifacts: Path):
        page = open_page(view_of(made.masked(), made.masked_answer(5), compare=made.masked_answer(0), names=("stage 1", "stage 3")))
        page.wait_for_selector(".head-curve")
        assert page.locator("canvas").count() == 2 and page.locator(".head-side h3").all_inner_texts() == ["stage 1", "stage 3"]
        jump(page, 5)
        assert page.evaluate("() => [...document.querySelectorAll('canvas')].map((each) => each.dataset.frame)") == ["5", "5"]
        here = page.locator(".head-rows tbody td.n").all_inner_texts()
        assert float(here[0]) < 0.7 and float(here[2]) == 1.0 and float(here[1]) < float(here[3])
        assert page.locator(".head-curve").count() == 2
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path=artifacts / "head_view_two.png", full_page=True)

    @pytest.mark.parametrize("width", [420, 700, 900])
    def test_nothing_is_wider_than_the_page(self, open_page: Any, width: int):
        sample, answer = made.fifty()
        page = open_page(view_of(sample, answer, compare=answer), width=width)
        at_frame(page, 0)
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


class TestLarge:
    def test_a_long_clip_asks_only_for_what_is_looked_at(self, live: Any, monkeypatch: pytest.MonkeyPatch):
        asked: Counter[str] = Counter()
        given = HeadContent.resource

        def counted(self: HeadContent, name: str) -> Any:
            asked[name] += 1
            return given(self, name)

        monkeypatch.setattr(HeadContent, "resource", counted)
        times = [number / 25 for number in range(2000)]
        masks = [encode_rle(made.ell(number % 40, 6)) for number in range(2000)]
        sample = made.sample("long", "<mask>", mask={"times_sec": [time / 16 for time in times], "rle": masks})
        answer = {"mask": {"times_sec": times, "masks": [masks], "track_xyxy": [], "scores": []}}
        view = HeadView(sample, answer, frames=made.frames(2000), times_sec=times)
        page_of = live(view)
        page = page_of.page
        page_of.until_page(f"() => {AT_FRAME.format(0)}")
        box, axis = page.locator(".head-timeline").bounding_box(), page.locator("line.head-axis").first.bounding_box()
        page.mouse.move(axis["x"] + 5, box["y"] + 10)
        page.mouse.down()
        page.mouse.move(axis["x"] + axis["width"] * 0.9, box["y"] + 10, steps=80)
        page.mouse.up()
        wanted = round(0.9 * 2000)
        page_of.until_page(f"() => Math.abs(Number(document.querySelector('.head-view').dataset.frame) - {wanted}) < 3")
        page.wait_for_timeout(400)
        page_of.pump()
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(400)
        page_of.pump()
        kinds = Counter(name.split("/")[0] for name in asked)
        # 80 places were passed, and of those only a few were waited for
        assert kinds["frame"] <= 40 and kinds["run"] <= 20 and kinds["scores"] == 2 and kinds["case"] <= 1
        assert asked.most_common(1)[0][1] == 1 and len(str(view.get_state())) <= 100_000

    def test_a_short_clip_is_fetched_as_a_whole_and_then_needs_no_kernel(self, live: Any):
        view = view_of(made.masked(), made.masked_answer())
        page_of = live(view)
        page = page_of.page
        page_of.until_page(f"() => {AT_FRAME.format(0)}")
        page.wait_for_timeout(300)
        page_of.pump()
        page.locator("canvas").first.focus()
        for number in (1, 2, 3, 4, 5, 6):
            page.keyboard.press("ArrowRight")
            # nobody carries messages here
            at_frame(page, number)

    def test_a_frame_that_cannot_be_read_any_more_is_said_in_its_place(self, live: Any, tmp_path: Path):
        from tpo_lab.video.writer import write_clip

        # an even size, as videos have, and more frames than are fetched ahead
        file = write_clip(tmp_path / "clip.mp4", made.frames(150, width=58, height=32), 10.0)
        sample = made.sample("file", "No.")
        view = HeadView(sample.model_copy(update={"media": sample.media.model_copy(update={"path": str(file), "end_sec": 15.0})}))
        assert view.problem == ""
        page_of = live(view)
        page_of.until_page(f"() => {AT_FRAME.format(0)}")
        file.unlink()
        page_of.page.locator("canvas").first.focus()
        # some frames were read for the view's picture; this one lies between them
        view.playhead.time_sec = 2.5
        page_of.until_page(
            "() => { const note = document.querySelector('.tpo-missing'); return note && !note.hidden && note.textContent; }"
        )
        assert "clip.mp4" in page_of.page.locator(".tpo-missing").inner_text()
        page_of.page.keyboard.press("Home")
        page_of.until_page("() => document.querySelector('.tpo-missing').hidden")


def test_a_page_that_cannot_hold_all_frames_shows_the_nearest_before(open_page: Any):
    frames = made.frames(300)
    page = open_page(HeadView(made.sample("many", "No."), frames=frames, times_sec=[number / 60 for number in range(300)]))
    at_frame(page, 0)
    for time, number in ((299 / 60, 299), (1 / 60, 1)):
        page.evaluate("(time) => tpoPage.playheads[0].set('time_sec', time)", time)
        at_frame(page, number)
        assert page.locator(".tpo-missing").is_hidden()
    pixels, _ = pixels_of(page, ".tpo-stage canvas")
    assert np.abs(pixels[50, 50] - 60).max() <= 3


def test_every_control_has_a_name_and_charts_have_words(open_page: Any):
    page = open_page(view_of(made.boxed(), made.boxed_answer(), compare=made.boxed_answer(made.TRUE_BOX)))
    page.wait_for_selector(".head-curve")
    named = "each.getAttribute('aria-label') || each.textContent.trim() || each.closest('label')?.textContent.trim()"
    every = "[...document.querySelectorAll('button, select, input, canvas, [role=slider]')]"
    nameless = f"() => {every}.filter((each) => !({named})).length"
    assert page.evaluate(nameless) == 0
    assert "truth: 1.3 to 2.9 s" in page.locator(".head-timeline svg").get_attribute("aria-label")
    slider = page.get_by_role("slider", name="Time")
    assert slider.get_attribute("aria-valuemax") == "5" and "frame 1 of 7" in slider.get_attribute("aria-valuetext")
