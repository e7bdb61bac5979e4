"""PromptPad in a browser: drawing by mouse, finger and keys, exact numbers, asking, and what Python and the page tell each other."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tpo_lab as tpo
from tests.widgets.bridge import Live
from tests.widgets.pad_models import PATCH_XYXY, REGION, SIZE_WH, TEMPORAL, TIMES_SEC, Failing, Fake, mask_answer, patch_frames
from tpo_lab.sample import BoxPrompt, PointPrompt, Sample, ScribblePrompt
from tpo_lab.video.writer import write_clip
from tpo_widgets import PromptPad, together

pytestmark = pytest.mark.browser

WIDTH, HEIGHT = SIZE_WH
BOX = BoxPrompt(xyxy=(8, 5, 30, 14))
WHITE, YELLOW, ORANGE = (255, 255, 255), (240, 220, 0), (0xD5, 0x5E, 0x00)


def pad_of(**options: Any) -> PromptPad:
    return PromptPad(patch_frames(), times_sec=TIMES_SEC, **options)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of 96 x 64 pixels that get brighter to the right, four a second."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    write_clip(path, np.broadcast_to(np.arange(40, 136, dtype=np.uint8)[:, None], (10, 64, 96, 3)).copy(), 4.0)
    return path


class Pad:
    """A pad on a page.

    Attributes:
        live: the page with Python attached.
        box: where the canvas lies, in CSS pixels.
    """

    def __init__(self, live: Live, size_wh: tuple[int, int] = SIZE_WH) -> None:
        self.live, self.page, self.size_wh = live, live.page, size_wh
        live.until_page("() => document.querySelector('canvas')?.dataset.frame")
        live.until(lambda: pixels(self.page.locator("canvas")).std() > 0, "a frame on the canvas")
        self.box = self.page.locator("canvas").bounding_box()
        self.page.locator("canvas").focus()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a place of the whole frame lies on the page."""
        scale = self.box["width"] / self.size_wh[0]
        return self.box["x"] + x * scale, self.box["y"] + y * scale

    def drag(self, *places: tuple[float, float], release: bool = True) -> None:
        """The mouse, pressed at the first place of the frame and moved through the others."""
        self.page.mouse.move(*self.at(*places[0]))
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*self.at(*place))
        if release:
            self.page.mouse.up()
        self.live.pump()

    def press(self, *keys: str) -> None:
        """Keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)
            self.live.pump()

    def click(self, name: str) -> None:
        """A button by its name."""
        self.page.get_by_role("button", name=name, exact=True).click()
        self.live.pump()

    def at_time(self, view: PromptPad, time_sec: float) -> None:
        """Waits until Python has heard of the moment that is looked at."""
        self.live.until(lambda: view.playhead.time_sec == time_sec, f"{time_sec} s")

    def text(self, selector: str) -> str:
        """What stands somewhere."""
        return str(self.page.locator(selector).inner_text())


@pytest.fixture
def draw(live: Callable[..., Live]) -> Callable[..., Pad]:
    """Opens a pad with Python attached."""
    return lambda view, size_wh=SIZE_WH, **options: Pad(live(view, **options), size_wh)


def pixels(where: Any) -> Any:
    """A screenshot as integers [h, w, 3]."""
    return np.asarray(Image.open(io.BytesIO(where.screenshot())).convert("RGB")).astype(int)


def like(picture: Any, colour: tuple[int, int, int], apart: int = 40) -> Any:
    """Which pixels have a colour, [h, w]."""
    return (np.abs(picture - colour) <= apart).all(-1)


def close(numbers: Any, expected: Any, apart: float) -> bool:
    return bool(np.abs(np.asarray(numbers, float) - np.asarray(expected, float)).max() <= apart + 1e-9)


# Exact numbers


@pytest.mark.parametrize("ratio", [1, 1.5, 2])
def test_a_drawn_box_has_the_numbers_of_the_frame_at_every_zoom_and_ratio(draw: Callable[..., Pad], ratio: float):
    view = pad_of()
    pad = draw(view, device_scale_factor=ratio, width=893)
    zoomed = 1.0
    for steps in (0, 2, 3):
        for _ in range(steps):
            pad.click("Zoom in")
            zoomed *= 1.5
        scale = pad.box["width"] / WIDTH * zoomed
        # the middle of the canvas stays where it is
        middle = [pad.box["width"] / 2, pad.box["height"] / 2]
        corners = [(middle[0] - 150, middle[1] - 131), (middle[0] + 203, middle[1] + 94)]
        expected = [
            (middle[axis] * zoomed / zoomed / (scale / zoomed) + (place[axis] - middle[axis]) / scale)
            for place in corners
            for axis in (0, 1)
        ]
        pad.page.mouse.move(pad.box["x"] + corners[1][0], pad.box["y"] + corners[0][1])
        pad.page.mouse.down()
        pad.page.mouse.move(pad.box["x"] + corners[0][0] + 31, pad.box["y"] + corners[1][1] - 17)
        pad.page.mouse.move(pad.box["x"] + corners[0][0], pad.box["y"] + corners[1][1])
        pad.page.mouse.up()
        pad.live.pump()
        drawn = view.prompts[-1]
        assert drawn.type == "box" and drawn.time_sec == 0
        assert close(drawn.xyxy, expected, 0.5 / (scale * ratio)), (zoomed, drawn.xyxy, expected)


@pytest.mark.parametrize("ratio", [1, 1.5, 2])
def test_what_is_drawn_along_the_picture_lies_along_the_picture_at_every_zoom(draw: Callable[..., Pad], ratio: float):
    view = pad_of()
    pad = draw(view, device_scale_factor=ratio)
    for steps in (0, 1, 1):
        view.prompts = []
        pad.live.pump()
        for _ in range(steps):
            pad.click("Zoom in")
        pad.page.mouse.move(1, 1)
        seen = np.argwhere(like(pixels(pad.page), YELLOW, 60))
        (top, left), (bottom, right) = seen.min(0), seen.max(0) + 1
        pad.page.mouse.move(left / ratio, top / ratio)
        pad.page.mouse.down()
        pad.page.mouse.move(right / ratio, bottom / ratio)
        pad.page.mouse.up()
        pad.live.pump()
        scale = (right - left) / (PATCH_XYXY[2] - PATCH_XYXY[0])
        # one pixel of the page: an edge found on a screenshot is off by half a pixel of the screen, and so is a canvas put between two
        assert close(view.prompts[0].xyxy, PATCH_XYXY, ratio / scale + 0.005), view.prompts
        pad.page.mouse.move(1, 1)
        line = like(pixels(pad.page), WHITE, 30)
        row, column = line[(top + bottom) // 2], line[:, left + (right - left) // 3]
        near = lambda found, edge: np.abs(np.flatnonzero(found) + 0.5 - edge).min()  # noqa: E731
        assert max(near(row, left), near(row, right), near(column, top), near(column, bottom)) <= max(ratio, 1)


def test_drawings_are_clamped_to_the_frame(draw: Callable[..., Pad]):
    view = pad_of()
    pad = draw(view)
    pad.drag((40, 20), (70, 50))
    assert view.prompts[0].xyxy[2:] == (57, 31)
    pad.drag((5, 6), (-8, -4))
    assert view.prompts[1].xyxy[:2] == (0, 0)
    pad.press("p")
    pad.drag((40, 20), (90, 90))
    (x, y) = view.prompts[2].xy
    assert 56.9 < x < 57 and 30.9 < y < 31, "where there is still a pixel"


def test_large_frames_shown_small_have_short_numbers(draw: Callable[..., Pad], live: Callable[..., Live]):
    frames = np.zeros((1, 1234, 2345, 3), np.uint8)
    frames[:, 600:] = 200
    view = PromptPad(frames)
    pad = draw(view, (2345, 1234))
    pad.drag((300, 200), (1500, 900))
    assert close(view.prompts[0].xyxy, (300, 200, 1500, 900), 0.5 * 2345 / pad.box["width"])
    assert all(edge == int(edge) for edge in view.prompts[0].xyxy)
    assert pad.page.locator("input[type=range]").count() == 0, "one frame needs no scrubbing"


# Drawing


def test_a_box_a_point_and_a_scribble_by_mouse(draw: Callable[..., Pad]):
    view = pad_of()
    pad = draw(view)
    assert pad.page.get_by_role("button", name="Box", exact=True).get_attribute("aria-pressed") == "true"
    pad.drag((30, 14), (20, 10), (8, 5), release=False)
    assert pad.text(".tpo-pad-readout") == "8, 5 to 30, 14 (22 x 9) px"
    assert view.prompts == [], "nothing is drawn yet"
    pad.page.mouse.up()
    pad.live.pump()
    pad.click("Point")
    pad.drag((12, 21), (13.5, 20.25))
    pad.click("Scribble")
    pad.drag((40, 6), (46, 17), (52, 9))
    scale = pad.box["width"] / WIDTH
    box, point, scribble = view.prompts
    assert close(box.xyxy, (8, 5, 30, 14), 0.5 / scale) and close(point.xy, (13.5, 20.25), 0.5 / scale)
    assert close(scribble.xys, [(40, 6), (46, 17), (52, 9)], 0.5 / scale)
    assert view.selected == 2
    assert pad.page.locator(".tpo-pad-list li").count() == 3


def test_a_drawing_without_size_is_refused_with_a_sentence(draw: Callable[..., Pad]):
    view = pad_of()
    pad = draw(view)
    for tool, places, sentence in [
        ("Box", [(5, 5)], "Drag to draw a box: it needs a width and a height."),
        ("Box", [(5, 5), (9, 9), (9, 5)], "A box needs a width and a height: x0 < x1 and y0 < y1."),
        ("Scribble", [(5, 5)], "Drag to draw a scribble: it needs two points that differ."),
    ]:
        pad.click(tool)
        pad.drag(*places)
        assert pad.text(".tpo-pad-status") == sentence and view.prompts == []
    pad.click("Box")
    pad.drag((5, 5), (9, 9))
    assert len(view.prompts) == 1 and pad.page.locator(".tpo-pad-status").inner_text() == ""


def test_touch_draws_and_two_fingers_zoom_instead(draw: Callable[..., Pad]):
    view = pad_of()
    pad = draw(view, has_touch=True, device_scale_factor=2)
    fingers = pad.page.context.new_cdp_session(pad.page)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(pad.at(*place) for place in places)]
        fingers.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    for place in ((8, 5), (20, 10), (30, 14)):
        touch("Start" if place == (8, 5) else "Move", place)
    touch("End")
    pad.live.until(lambda: view.prompts, "a box")
    assert close(view.prompts[0].xyxy, (8, 5, 30, 14), 0.5 * WIDTH / pad.box["width"])
    pad.press("p")
    touch("Start", (20, 15))
    touch("Start", (20, 15), (30, 15))
    touch("Move", (14, 15), (36, 15))
    touch("End")
    pad.live.pump()
    assert len(view.prompts) == 1, "the first of two fingers draws nothing"
    wide = like(pixels(pad.page), YELLOW, 60).any(0).sum()
    assert wide > 1.3 * 2 * (PATCH_XYXY[2] - PATCH_XYXY[0]) * pad.box["width"] / WIDTH, "and both zoom"
    assert pad.page.evaluate("getComputedStyle(document.querySelector('canvas')).touchAction") == "none"
    assert pad.page.evaluate("[scrollX, scrollY]") == [0, 0]


def test_keys_choose_tools_and_escape_cancels(draw: Callable[..., Pad]):
    view = pad_of(prompts=[BOX])
    pad = draw(view)
    pad.page.locator("canvas").focus()
    for key, name in (("p", "Point"), ("s", "Scribble"), ("v", "Select"), ("b", "Box")):
        pad.press(key)
        pressed = pad.page.locator("[aria-label=Tools] button[aria-pressed=true]").all_inner_texts()
        assert pressed == [name]
    pad.drag((5, 5), (9, 9), (12, 12), release=False)
    pad.press("Escape")
    pad.page.mouse.up()
    pad.live.pump()
    assert view.prompts == [BOX]
    view.selected = 0
    pad.live.pump()
    pad.press("Escape")
    assert view.selected == -1
    pad.page.locator(".tpo-pad-question").fill("b p s v")
    pad.live.pump()
    assert view.question == "b p s v" and pad.page.get_by_role("button", name="Box", exact=True).get_attribute("aria-pressed") == "true"


def test_arrows_nudge_the_selected_prompt_and_stop_at_the_edge(draw: Callable[..., Pad]):
    view = pad_of(prompts=[BOX])
    pad = draw(view)
    pad.press("v")
    pad.page.mouse.click(*pad.at(20, 8))
    pad.live.pump()
    assert view.selected == 0
    pad.press("ArrowRight", "ArrowRight", "ArrowDown")
    assert view.prompts[0].xyxy == (10, 6, 32, 15)
    pad.press("Shift+ArrowRight", "Shift+ArrowDown", "Shift+ArrowDown")
    assert view.prompts[0].xyxy == (20, 22, 42, 31), "as far as it stays in the frame"
    pad.press("Escape", "ArrowRight")
    pad.at_time(view, TIMES_SEC[1])
    assert view.prompts[0].xyxy == (20, 22, 42, 31)
    pad.press("ArrowLeft", "ArrowLeft")
    pad.at_time(view, 0.0)


def test_selected_prompts_are_moved_and_resized(draw: Callable[..., Pad]):
    view = pad_of(prompts=[BOX, ScribblePrompt(xys=((40, 20), (50, 25)))])
    pad = draw(view)
    near = 0.5 * WIDTH / pad.box["width"] + 0.01
    pad.press("v")
    pad.drag((20, 9), (21, 10), (25, 16))
    assert view.selected == 0 and close(view.prompts[0].xyxy, (13, 12, 35, 21), near)
    pad.drag((35, 21), (38, 24))
    assert close(view.prompts[0].xyxy, (13, 12, 38, 24), near)
    pad.drag((13, 18), (45, 2))
    assert close(view.prompts[0].xyxy, (38, 12, 45, 24), near), "an edge alone, past the other one"
    pad.drag((42, 21), (32, 11))
    assert view.selected == 1, "the smaller of two that lie over each other"
    assert close(view.prompts[1].xys, ((30, 10), (40, 15)), near) and close(view.prompts[0].xyxy, (38, 12, 45, 24), near)
    pad.page.mouse.click(*pad.at(3, 28))
    pad.live.pump()
    assert view.selected == -1


def test_a_zoomed_frame_is_moved_by_the_select_tool(draw: Callable[..., Pad]):
    view = pad_of()
    pad = draw(view)
    pad.click("Zoom in")
    pad.click("Zoom in")
    before = np.argwhere(like(pixels(pad.page), YELLOW, 60)).min(0)
    pad.press("v")
    pad.page.mouse.move(pad.box["x"] + 30, pad.box["y"] + 30)
    pad.page.mouse.down()
    pad.page.mouse.move(pad.box["x"] + 91, pad.box["y"] + 53)
    pad.page.mouse.up()
    after = np.argwhere(like(pixels(pad.page), YELLOW, 60)).min(0)
    assert (after - before).tolist() == [23, 61] and view.prompts == []
    pad.click("Fit")
    pad.page.mouse.move(1, 1)
    pad.live.pump()
    found = np.argwhere(like(pixels(pad.page.locator("canvas")), YELLOW, 60)).min(0)
    assert close(found, np.array(PATCH_XYXY[1::-1]) * pad.box["width"] / WIDTH, 1)


# The list


def test_prompts_can_be_typed_by_keyboard_alone(draw: Callable[..., Pad]):
    view = pad_of()
    pad = draw(view)
    pad.page.get_by_label("Numbers of the prompt to add").focus()
    pad.page.keyboard.type("8 5.25, 30 14")
    pad.press("Enter")
    assert view.prompts == [BoxPrompt(xyxy=(8, 5.25, 30, 14))]
    pad.page.get_by_label("Kind of the prompt to add").select_option("scribble")
    pad.page.get_by_label("Numbers of the prompt to add").focus()
    pad.page.keyboard.type("1 2 3 4 5 6")
    pad.press("Enter")
    assert view.prompts[1] == ScribblePrompt(xys=((1, 2), (3, 4), (5, 6)))
    numbers = pad.page.get_by_label("Numbers of <prompt:0>")
    numbers.fill("9 6 31 15")
    pad.press("Enter")
    assert view.prompts[0].xyxy == (9, 6, 31, 15) and view.selected == 0
    for bad, sentence in [
        ("9 6 31", "A box is written as x0 y0 x1 y1, in pixels of the frame."),
        ("9 6 x 15", "A box is written as x0 y0 x1 y1, in pixels of the frame."),
        ("31 6 9 15", "A box needs a width and a height: x0 < x1 and y0 < y1."),
        ("9 6 58 15", "Every place must lie inside the frame of 57 x 31 pixels."),
        ("-1 6 9 15", "Every place must lie inside the frame of 57 x 31 pixels."),
        ("1 6 Infinity 15", "A box is written as x0 y0 x1 y1, in pixels of the frame."),
    ]:
        numbers.fill(bad)
        pad.press("Enter")
        assert pad.text(".tpo-pad-status") == sentence
        assert view.prompts[0].xyxy == (9, 6, 31, 15) and numbers.input_value() == "9 6 31 15"
    pad.page.get_by_role("button", name="Delete <prompt:0>").focus()
    pad.press("Enter")
    assert [prompt.type for prompt in view.prompts] == ["scribble"]


def test_every_change_can_be_undone_and_redone(draw: Callable[..., Pad]):
    view = pad_of()
    pad = draw(view)
    assert pad.page.get_by_role("button", name="Undo").is_disabled()
    pad.drag((8, 5), (30, 14))
    first = view.prompts
    pad.drag((2, 2), (9.03, 9.03))
    both = view.prompts
    pad.press("Delete")
    assert view.prompts == first
    pad.press("Control+z")
    assert view.prompts == both
    pad.press("Control+z", "Control+z")
    assert view.prompts == []
    pad.press("Control+Shift+Z", "Control+y")
    assert view.prompts == both
    view.prompts = [PointPrompt(xy=(1, 2))]
    pad.live.pump()
    pad.press("Control+z")
    assert view.prompts == both, "also what Python has set"
    pad.click("Clear")
    assert view.prompts == []
    pad.click("Undo")
    assert view.prompts == both
    pad.drag((2, 2), (9, 9))
    assert pad.page.get_by_role("button", name="Redo").is_disabled()


def test_python_sets_prompts_and_the_page_shows_them(draw: Callable[..., Pad], dark: bool = False):
    view = pad_of()
    pad = draw(view)
    view.prompts = [BOX, PointPrompt(xy=(44.5, 20), time_sec=1.0)]
    pad.live.pump()
    assert pad.page.get_by_label("Numbers of <prompt:0>").input_value() == "8 5 30 14"
    assert pad.page.get_by_label("Numbers of <prompt:1>").input_value() == "44.5 20"
    picture = pixels(pad.page)
    row = np.flatnonzero(like(picture, WHITE, 30)[round(pad.at(0, 12)[1])])
    row = row[(row > pad.box["x"]) & (row < pad.box["x"] + pad.box["width"])] + 0.5
    assert row.min() == pytest.approx(pad.at(8, 0)[0], abs=1.5) and row.max() == pytest.approx(pad.at(30, 0)[0], abs=1.5)
    x, y = (round(value) for value in pad.at(44.5, 20))
    assert not like(picture, WHITE, 30)[y, x], "a prompt is drawn on its own frame alone"
    view.playhead.time_sec = 1.0
    pad.live.until_page("() => document.querySelector('canvas').dataset.frame === '2'")
    pad.page.wait_for_timeout(100)
    shown = like(pixels(pad.page), WHITE, 30)
    assert shown[y, x] and not shown[round(pad.at(0, 12)[1]), round(pad.at(8, 0)[0])]


def test_prompts_of_several_frames(draw: Callable[..., Pad]):
    view = pad_of()
    pad = draw(view)
    pad.page.get_by_label("Frame", exact=True).focus()
    pad.press("ArrowRight", "ArrowRight", "ArrowRight")
    pad.at_time(view, 1.5)
    assert "frame 4 of 5, 1.50 s" in pad.text(".tpo-pad-below")
    pad.drag((8, 5), (30, 14))
    assert view.prompts[0].time_sec == 1.5
    chart = pad.page.locator(".tpo-pad-timeline")
    place = chart.bounding_box()
    pad.page.mouse.click(place["x"] + place["width"] * 0.6 / 2.5, place["y"] + 11)
    pad.at_time(view, 0.5)
    mark = pad.page.locator(".tpo-pad-mark").bounding_box()
    assert mark["x"] + mark["width"] / 2 == pytest.approx(place["x"] + place["width"] * 1.5 / 2.5, abs=0.6)
    pad.page.get_by_role("button", name="Move <prompt:0> to the frame shown").click()
    pad.live.pump()
    assert view.prompts[0].time_sec == 0.5
    view.playhead.time_sec = 2.0
    pad.live.pump()
    pad.page.get_by_role("button", name="Select <prompt:0>, a box at 0.50 s").click()
    pad.at_time(view, 0.5)
    assert view.selected == 0


def test_mentions_are_put_where_the_cursor_is_and_follow_deletions(draw: Callable[..., Pad]):
    view = pad_of(question="Is it near?", prompts=[BOX, PointPrompt(xy=(3, 4)), PointPrompt(xy=(5, 6))])
    pad = draw(view)
    field = pad.page.locator(".tpo-pad-question")
    field.evaluate("field => { field.focus(); field.setSelectionRange(5, 5); }")
    pad.click("<prompt:2>")
    assert view.question == "Is it <prompt:2> near?"
    pad.page.keyboard.type(" or")
    pad.live.pump()
    assert view.question == "Is it <prompt:2> or near?"
    field.evaluate("field => field.setSelectionRange(0, 0)")
    pad.click("<prompt:0>")
    assert view.question == "<prompt:0> Is it <prompt:2> or near?"
    pad.page.get_by_role("button", name="Delete <prompt:0>").click()
    pad.live.pump()
    assert view.question == " Is it <prompt:1> or near?" and len(view.prompts) == 2
    pad.click("Undo")
    assert view.question == "<prompt:0> Is it <prompt:2> or near?" and len(view.prompts) == 3
    pad.click("Redo")
    assert view.question == " Is it <prompt:1> or near?"
    field.fill("Other words")
    pad.click("Undo")
    assert view.question == "Other words", "words that were written since stay"


# Asking


def test_asking_says_what_goes_on_and_shows_the_answer(draw: Callable[..., Pad], video: Path):
    during: list[Any] = []

    def look() -> None:
        pad.live.pump()
        button = pad.page.locator(".tpo-pad-ask")
        during.append((pad.text(".tpo-pad-status"), pad.text(".tpo-pad-said"), button.is_disabled(), button.inner_text()))

    model = Fake({**REGION, **TEMPORAL}, "Here <region> and then <temporal>.", look)
    view = PromptPad(video, model)
    pad = draw(view, (96, 64))
    assert pad.page.locator(".tpo-pad-ask").is_disabled() and pad.text(".tpo-pad-reason") == "Write a question to ask it."
    pad.drag((8, 5), (30, 14))
    pad.page.locator(".tpo-pad-question").click()
    pad.page.keyboard.type("Where is it?")
    pad.press("Enter")
    pad.live.until(lambda: view.status == "answered")
    pad.live.pump()
    assert during == [("The model writes …", "Here <region> and then <temporal>.", True, "Asking")]
    ((_, text, options),) = model.asked
    assert text == "Where is it? <prompt:0>" and close(options["boxes"], [[8, 5, 30, 14]], 0.1)
    answer = pad.text(".tpo-pad-answer")
    for words in ("To: Where is it? <prompt:0>", "Here <region> and then <temporal>.", "The model asked its region and temporal heads.",
                  "answer 1: box 8 5 30 14", "0.50 s to 1.25 s\nscore 0.75"):  # fmt: skip
        assert words.replace("\n", " ") in answer.replace("\n", " ")
    assert pad.text(".tpo-pad-status") == "Answered." and pad.page.locator(".tpo-pad-status").get_attribute("aria-live") == "polite"
    bars = [bar.bounding_box() for bar in pad.page.locator(".tpo-pad-window:not(.other)").all()]
    chart, duration = pad.page.locator(".tpo-pad-timeline").bounding_box(), view.document["duration_sec"]
    assert bars[0]["x"] == pytest.approx(chart["x"] + chart["width"] * 0.5 / duration, abs=1)
    assert bars[0]["width"] == pytest.approx(chart["width"] * 0.75 / duration, abs=1)
    pad.page.get_by_role("button", name="Go to 1.50 s to 2.00 s").click()
    pad.at_time(view, 1.5)


@pytest.mark.parametrize("dark", [False, True])
def test_boxes_and_masks_of_an_answer_lie_where_their_numbers_say(draw: Callable[..., Pad], build_tiny: Any, dark: bool):
    from tpo_lab.answer import Answer, Answerer

    model = build_tiny().eval()
    view = pad_of(model=model, question="Where?")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Answerer, "answer", lambda *_, **__: [Answer("<region>", ("region",), {**REGION, **mask_answer()})])
        view.ask()
    pad = draw(view, dark=dark)
    picture = pixels(pad.page)
    orange = like(picture, ORANGE, 25)
    scale = pad.box["width"] / WIDTH
    row, column = round(pad.at(0, 11.7)[1]), round(pad.at(12.3, 0)[0])
    # the lines are dashed
    across = np.flatnonzero(orange[row - 6 : row + 6].any(0)) + 0.5
    down = np.flatnonzero(orange[: round(pad.at(0, 31)[1]), column - 6 : column + 6].any(1)) + 0.5
    assert across.min() == pytest.approx(pad.at(8, 0)[0], abs=1.5) and across.max() == pytest.approx(pad.at(30, 0)[0], abs=1.5)
    assert down.max() == pytest.approx(pad.at(0, 14)[1], abs=1.5)
    view.playhead.time_sec = 1.5
    pad.live.until(
        lambda: like(pixels(pad.page), ORANGE, 4)[round(pad.at(0, 15.5)[1]), round(pad.at(36.5, 0)[0])], "the masks of that frame"
    )
    full = like(pixels(pad.page), ORANGE, 4)
    # the second object: a rim of one pixel of the frame around x 33-40, y 15-28, box and name above it left out
    rim = full[round(pad.at(0, 22)[1]), : round(pad.at(44, 0)[0])]
    inside = np.flatnonzero(rim[round(pad.at(32.5, 0)[0]) :]) + round(pad.at(32.5, 0)[0])
    assert inside.min() == pytest.approx(pad.at(33, 0)[0], abs=1.5) and inside.max() + 1 == pytest.approx(pad.at(40, 0)[0], abs=1.5)
    assert np.diff(inside).max() == pytest.approx(5 * scale, abs=4), "five pixels of the frame inside the rim are veiled only"


def test_a_model_that_fails_says_so_and_can_be_asked_again(draw: Callable[..., Pad], video: Path):
    view = PromptPad(video, Failing(), "Where?")
    pad = draw(view, (96, 64))
    pad.click("Ask")
    assert pad.text(".tpo-pad-status") == "The model has a headache." and view.status == "failed"
    assert pad.page.locator(".tpo-pad-ask").is_enabled()
    view.model = Fake()
    pad.click("Ask")
    assert pad.text(".tpo-pad-status") == "Answered." and pad.text(".tpo-pad-said") == "Here it is."


def test_a_prompt_that_the_model_cannot_read_there_is_said_beside_the_drawing(draw: Callable[..., Pad], video: Path):
    view = PromptPad(video, Fake(), "Where?")
    pad = draw(view, (96, 64))
    view.playhead.time_sec = 1.0
    pad.live.pump()
    pad.drag((8, 5), (30, 14))
    sentence = "This model reads prompts as lying on the first frame, and <prompt:0> is a box at 1.00 s: move it there to ask."
    assert pad.text(".tpo-pad-reason") == sentence and pad.page.locator(".tpo-pad-ask").is_disabled()
    assert view.prompts[0].time_sec == 1.0, "it is not moved by itself"
    view.playhead.time_sec = 0.0
    pad.live.pump()
    pad.page.get_by_role("button", name="Move <prompt:0> to the frame shown").click()
    pad.live.pump()
    assert pad.page.locator(".tpo-pad-reason").inner_text() == "" and pad.page.locator(".tpo-pad-ask").is_enabled()


def test_the_shipped_model_answers_a_point_of_the_world(draw: Callable[..., Pad], world: Callable[..., list[Sample]], artifacts: Path):
    model = tpo.load("nano-tpo")
    samples = (sample for index in range(60) for sample in world(index, "mask", "track"))
    sample = next(sample for sample in samples if [prompt.type for prompt in sample.prompts] == ["point"])
    view = PromptPad(sample, model, prompts=[])
    pad = draw(view, (64, 64))
    (x, y) = sample.prompts[0].xy
    pad.press("p")
    pad.page.mouse.click(*pad.at(x, y))
    pad.live.pump()
    assert close(view.prompts[0].xy, (x, y), 0.5 * 64 / pad.box["width"])
    pad.page.locator(".tpo-pad-question").focus()
    pad.press("Enter")
    pad.live.until(lambda: view.answer)
    direct = model.answer(sample.media.path, sample.conversation[0].text, strokes=[[view.prompts[0].xy]])
    assert view.answer.text == direct.text == "<mask>" and view.answer.track_xyxy == direct.track_xyxy
    times, boxes = direct.structured["mask"]["times_sec"], direct.track_xyxy[0]
    place = next(number for number, box in enumerate(boxes) if box is not None)
    view.playhead.time_sec = times[place]
    x0, y0, _, y1 = boxes[place]
    edge = pad.at(x0, (y0 + y1) / 2)
    pad.live.until(lambda: like(pixels(pad.page), ORANGE, 25)[:, round(edge[0]) - 2 : round(edge[0]) + 3].any(), "the box of the track")
    pad.page.screenshot(path=artifacts / "prompt_pad_nano.png")
    assert view.head_view().problem == ""


# Pages, themes, names


@pytest.mark.parametrize("dark", [False, True])
def test_a_page_without_python_draws_and_says_that_it_cannot_ask(open_page: Callable[..., Any], artifacts: Path, dark: bool):
    view = pad_of(question="Where is it?", prompts=[BOX], model=Fake(REGION))
    page = open_page(view, dark=dark)
    page.wait_for_function("() => document.querySelector('canvas').dataset.frame === '0'")
    box = page.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + 400, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 600, box["y"] + 440, steps=3)
    page.mouse.up()
    assert page.locator(".tpo-pad-list li").count() == 2
    page.get_by_label("Frame", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('canvas').dataset.frame === '1'")
    assert page.locator(".tpo-pad-ask").is_disabled()
    assert page.locator(".tpo-pad-reason").inner_text() == (
        "This page has no Python behind it, so nothing can be asked. Open the pad in a notebook."
    )
    page.get_by_label("Frame", exact=True).press("Home")
    page.wait_for_timeout(100)
    page.screenshot(path=artifacts / f"prompt_pad_{'dark' if dark else 'light'}.png")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = pixels(page)[14, 450]
    assert (ground.max() < 60) == dark


def test_a_page_without_python_holds_the_answer_and_its_masks(open_page: Callable[..., Any], world: Callable[..., list[Sample]]):
    view = PromptPad(world(0, "conversation")[0], Fake({**REGION, **mask_answer()}, "Here."), "Where?")
    view.ask()
    page = open_page(view)
    assert "Here." in page.locator(".tpo-pad-answer").inner_text()
    page.evaluate("() => { tpoPage.playheads[0].set('time_sec', 1.5); tpoPage.playheads[0].save_changes(); }")
    page.wait_for_function("() => document.querySelector('canvas').dataset.frame === '6'")
    page.wait_for_timeout(300)
    box = page.locator("canvas").bounding_box()
    # of the mask's own frame of 57 x 31 pixels: the left edge of the second object
    x, y = box["x"] + box["width"] * 33.5 / 57, box["y"] + box["height"] * 22 / 31
    assert like(pixels(page), ORANGE, 4)[round(y), round(x)]


def test_everything_has_a_name_and_fits_at_900_and_360_pixels(open_page: Callable[..., Any]):
    for width in (900, 360):
        page = open_page(pad_of(question="?", prompts=[BOX, ScribblePrompt(xys=tuple((x, x / 2) for x in range(50)))]), width=width)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        named = "el => el.getAttribute('aria-label') || el.innerText.trim()"
        assert all(control.evaluate(named) for control in page.locator("button, input, select, canvas, svg[aria-label]").all())
        assert page.locator("svg[role=img] > title").count() == 1
        sizes = "els => els.map((el) => parseFloat(getComputedStyle(el).fontSize))"
        assert min(page.locator(".tpo-pad *").evaluate_all(sizes)) >= 11


def test_no_shortcut_of_a_notebook_takes_the_keys(open_page: Callable[..., Any]):
    page = open_page(pad_of())
    assert page.locator("canvas").evaluate("el => !!el.closest('[data-lm-suppress-shortcuts]')")


def test_views_with_one_playhead_move_together(live: Callable[..., Live]):
    one, other = pad_of(), PromptPad(patch_frames(9), times_sec=np.arange(9) / 4)
    together(one, other)
    page = live(one, other)
    page.until_page("() => document.querySelectorAll('canvas')[1]?.dataset.frame === '0'")
    page.page.get_by_label("Frame", exact=True).first.focus()
    page.page.keyboard.press("ArrowRight")
    page.until_page("() => document.querySelectorAll('canvas')[1].dataset.frame === '2'")
    page.until(lambda: other.playhead.time_sec == 0.5)


def test_a_frame_that_cannot_be_read_any_more_says_so_in_its_place(live: Callable[..., Live], video: Path, tmp_path: Path):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(video.read_bytes())
    view = PromptPad(copy, prompts=[BOX])
    copy.unlink()
    view.content.clip.film._kept.clear()
    page = live(view)
    page.until_page("() => document.querySelector('.tpo-missing') && !document.querySelector('.tpo-missing').hidden")
    assert page.page.locator(".tpo-missing").inner_text()
    assert page.page.get_by_label("Numbers of <prompt:0>").input_value() == "8 5 30 14"


def test_a_clip_that_cannot_be_opened_is_a_panel(live: Callable[..., Live]):
    page = live(PromptPad("none.mp4", Fake(), "?"))
    assert "none.mp4" in page.page.get_by_role("alert").inner_text()
