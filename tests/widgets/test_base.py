"""What all views have in common, on the smallest of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.widgets.small_view import BOX, COUNT, SIZE_WH, SmallView, some_frames
from tpo_lab.errors import TPOError, UsageError
from tpo_widgets import Playhead, source, together
from tpo_widgets.content import Trouble
from tpo_widgets.film import film_of, film_of_frames


def test_misspelt_keywords_are_refused_with_the_closest_name():
    with pytest.raises(UsageError, match=r"SmallView keyword.*Did you mean 'theme'"):
        SmallView(thme="dark")
    with pytest.raises(UsageError, match="theme: expected one of auto, light, dark"):
        SmallView(theme="pink")


@pytest.mark.parametrize("frames", [np.zeros((0, 4, 6, 3), np.uint8), np.zeros((4, 6, 3), np.uint8), np.zeros((2, 4, 6, 3)), "clip"])
def test_what_cannot_be_shown_becomes_a_panel_and_the_notebook_goes_on(frames: Any):
    view = SmallView(frames)
    assert view.problem.startswith("SmallView: frames: expected uint8 RGB [frame, h, w, 3]")
    assert isinstance(view.content, Trouble) and isinstance(view.error, UsageError)
    assert Image.open(io.BytesIO(view.to_png())).width == 900
    assert view.problem in view.to_html()


def test_a_view_that_had_a_problem_can_show_something_else():
    view = SmallView("clip")
    good = SmallView()
    view.show(lambda: good.content)
    assert view.problem == "" and view.document == good.document and view.error is None


def test_state_is_small_and_the_output_has_a_picture():
    view = SmallView(some_frames(64))
    assert len(json.dumps({name: value for name, value in view.get_state().items() if name != "layout"}, default=str)) < 40_000
    data, _ = view._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"} <= set(data)
    assert len(data["image/png"]) <= 80_000


def test_resources_are_sent_by_name_and_failures_with_a_sentence():
    view = SmallView()
    sent: list[Any] = []
    view.send = lambda message, buffers=(): sent.append((message, buffers))  # type: ignore[method-assign]
    view._answer(view, {"want": ["frame/3", "frame/99", "nonsense"]}, [])
    (message, buffers), *rest = sent
    assert not rest and [name for name, _ in message["found"]] == ["frame/3"]
    assert [name for name, _ in message["failed"]] == ["frame/99", "nonsense"]
    assert "from 0 to 4" in message["failed"][0][1]
    assert np.asarray(Image.open(io.BytesIO(buffers[0]))).shape == (SIZE_WH[1], SIZE_WH[0], 3)


def test_views_that_are_together_share_one_playhead():
    one, other = SmallView(), SmallView()
    both = together(one, other)
    one.playhead.time_sec = 2.5
    assert other.moment.time_sec == 2.5 and other.playhead is one.playhead
    assert both.to_html().count('"front":"frame_view"') == 2
    assert Image.open(io.BytesIO(both.to_png())).height == 120
    with pytest.raises(UsageError, match="one or more views"):
        together()
    with pytest.raises(UsageError, match="Playhead"):
        together(one, Playhead())  # type: ignore[arg-type]


def test_a_film_reads_neighbours_together_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (70, 30, 40, 3), dtype=np.uint8)
    film = film_of_frames(frames, times_sec=np.arange(70) / 10)
    asked: list[list[int]] = []
    read = film.read
    film.read = lambda numbers: (asked.append(list(numbers)), read(numbers))[1]  # type: ignore[func-returns-value]
    film.jpeg(20)
    film.jpeg(31)
    assert asked == [list(range(16, 32))]
    monkeypatch.setattr("tpo_widgets.film.KEPT_BYTES", 40 * len(film.jpeg(0)))
    for number in range(70):
        film.jpeg(number)
    assert sum(map(len, film._kept.values())) <= 40 * len(film.jpeg(69)) * 1.2
    assert film.nearest(3.04) == 30 and film.nearest(-1) == 0 and film.nearest(1e9) == 69


def test_films_of_the_world_and_of_files_show_the_same_frames(tmp_path: Path, world: Any):
    from tpo_lab.datasets.world.render import render
    from tpo_lab.datasets.world.scene import FRAME_COUNT, FRAME_RATE, sample_scene
    from tpo_lab.sample import Media
    from tpo_lab.video.writer import write_clip

    sample = world(3, "region")[0]
    pixels = np.asarray(render(sample_scene(3), list(range(FRAME_COUNT))))
    written = write_clip(tmp_path / "clip.mp4", pixels, FRAME_RATE)
    cut = {"start_sec": 1.0, "end_sec": 3.0}
    for found in (
        film_of(sample.model_copy(update={"media": Media(path=sample.media.path, **cut)})),
        film_of(sample.model_copy(update={"media": Media(path=str(written), **cut)})),
    ):
        assert found.size_wh == (pixels.shape[2], pixels.shape[1]) and found.duration_sec == pytest.approx(2.0)
        assert found.times_sec == pytest.approx(np.arange(round(2 * FRAME_RATE)) / FRAME_RATE)
        first = np.asarray(found.picture(0)).astype(int)
        assert np.abs(first - pixels[round(FRAME_RATE)].astype(int)).mean() < 6


def test_a_film_whose_file_has_gone_says_so(tmp_path: Path, world: Any):
    from tpo_lab.sample import Media
    from tpo_lab.video.writer import write_clip

    file = write_clip(tmp_path / "clip.mp4", some_frames(40).repeat(2, 1).repeat(2, 2)[:, :62, :114], 10.0)
    sample = world(3, "region")[0].model_copy(update={"media": Media(path=str(file))})
    film = film_of(sample)
    film.jpeg(0)
    file.unlink()
    with pytest.raises((TPOError, OSError)):
        film.jpeg(35)


def test_front_end_modules_are_joined_once_each(monkeypatch: pytest.MonkeyPatch):
    code = source.esm("frame_view")
    assert code.count("function frameStage(") == 1 and "import {" not in code and code.count("export default ") == 1
    assert "\nexport function" not in code
    files = {"a": 'import { x } from "./b.js";\nconst x = 1;\n', "b": "export const x = 2;\n"}
    monkeypatch.setattr(source, "_text", files.__getitem__)
    with pytest.raises(ValueError, match="got x twice"):
        source.esm.__wrapped__("a")


@pytest.mark.browser
def test_a_page_from_disk_is_scrubbed_without_a_kernel(open_page: Any):
    page = open_page(together(SmallView(), SmallView()).views[0], SmallView())
    page.wait_for_function("() => document.querySelector('canvas')?.dataset.frame === '0'")
    page.focus("input")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('canvas').dataset.frame === '1'")
    assert page.evaluate("() => document.querySelectorAll('canvas')[1].dataset.frame") == "0"


@pytest.mark.browser
def test_the_browser_and_python_follow_each_other(live: Any):
    views = together(SmallView(), SmallView()).views
    page = live(*views)
    page.until_page("() => document.querySelectorAll('canvas')[1]?.dataset.frame === '0'")
    page.page.focus("input")
    page.page.keyboard.press("End")
    page.until(lambda: views[1].playhead.time_sec == COUNT - 1)
    page.until_page(f"() => document.querySelectorAll('canvas')[1].dataset.frame === '{COUNT - 1}'")
    views[0].playhead.time_sec = 2.0
    page.until_page("() => [...document.querySelectorAll('canvas')].every((each) => each.dataset.frame === '2')")


_PLAYHEAD = """async () => {
  let clock = 1000, saves = 0;
  const timers = [], performance = { now: () => clock }, setTimeout = (act, wait) => timers.push([clock + wait, act]);
  const pass = (time) => { clock += time; timers.splice(0).forEach(([due, act]) => (due <= clock ? act() : timers.push([due, act]))); };
  const values = { time_sec: 0, sample: "" }, listeners = {};
  const shared = {
    get: (name) => values[name], save_changes: () => { saves += 1; },
    set(name, value) { if (values[name] !== value) { values[name] = value; (listeners[name] ?? []).forEach((each) => each()); } },
    on(event, listener) { (listeners[event.replace("change:", "")] ??= []).push(listener); },
  };
  const opened = () => { CODE; return playheadOf({ get: () => "IPY_MODEL_one", widget_manager: { get_model: async () => shared } }); };
  const [one, other] = [await opened(), await opened()], seen = [], said = [];
  const say = () => said.push([values.time_sec, values.sample, saves]);
  const stop = other.on(() => seen.push([other.get("time_sec"), other.get("sample")]));
  one.set({ time_sec: 1 }); say();
  one.set({ time_sec: 2 }); one.set({ time_sec: 3, sample: "a" }); one.set({ time_sec: 3 }); say();
  pass(200); say();
  one.set({ time_sec: 4 }); one.set({ time_sec: 5, sample: "b" });
  shared.set("time_sec", 2); say();
  pass(200); say();
  shared.set("time_sec", 9);
  one.set({ time_sec: 9 }); stop(); one.set({ time_sec: 10 }); pass(200); say();
  return { seen, said, timers: timers.length };
}"""


@pytest.mark.browser
def test_views_follow_every_step_at_once_and_python_hears_of_quick_ones_together(new_page: Any):
    code = (Path(source.__file__).parent / "front" / "playhead.js").read_text(encoding="utf-8").replace("export ", "")
    found = new_page().evaluate(_PLAYHEAD.replace("CODE", code))
    # the other view has a module of its own, and yet sees each step; a step of several names once
    assert found["seen"] == [[1, ""], [2, ""], [3, "a"], [4, "a"], [5, "b"], [9, "b"]]
    first, quick, later, echo, hand, last = found["said"]
    assert first == [1, "", 1] and quick == [1, "", 1], "the first is saved at once, what comes soon after it waits"
    assert later == [3, "a", 2]
    assert echo == [2, "a", 2] and hand == [5, "b", 3], "a late echo takes nothing back"
    assert last == [10, "b", 4] and found["timers"] == 0


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_what_is_drawn_is_where_the_numbers_say(open_page: Any, artifacts: Path, dark: bool):
    page = open_page(SmallView(), dark=dark)
    page.wait_for_function("() => document.querySelector('canvas')?.dataset.frame === '0'")
    picture = np.asarray(
        Image.open(io.BytesIO(page.locator("canvas").screenshot(path=artifacts / f"base_{dark}.png"))).convert("RGB")
    ).astype(int)
    scale = picture.shape[1] / SIZE_WH[0]
    ys, xs = np.nonzero(np.abs(picture - np.array([0xD5, 0x5E, 0x00])).max(-1) < 40)
    drawn = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    assert np.abs(drawn - scale * np.array(BOX)).max() <= 1


@pytest.mark.browser
def test_problems_and_silence_are_said_on_the_page(open_page: Any, new_page: Any, live: Any):
    assert "expected uint8 RGB" in open_page(SmallView("clip")).inner_text(".tpo-problem")
    view = SmallView()
    page = live(view)
    page.until_page("() => document.querySelector('canvas')?.dataset.frame === '0'")
    view.show(lambda: SmallView("clip").content)
    page.until_page("() => document.querySelector('.tpo-problem')")
    view.show(lambda: SmallView().content)
    page.until_page("() => document.querySelector('canvas')?.dataset.frame === '0' && !document.querySelector('.tpo-problem')")
