"""Every view in a real JupyterLab: opened in a notebook, used with mouse and keyboard, and Python sees the effect."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.reruns.written import sweep_folder
from tests.widgets.conftest import Watched, missing
from tests.widgets.lab import PATIENCE_MS, Lab, read_when, running, voila
from tests.widgets.sweeps import grid

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("lab")]

# What Lab itself says on the console, with no view in sight.
LABS_OWN = ("lsp/status", "Module", "shared module", "favicon", "[WARN]", "404", "Failed to load resource")

START = """
import json
from pathlib import Path
def note(view, *names, file="seen.json"):
    def write(change=None):
        Path(file).write_text(json.dumps({name: getattr(view, name) for name in names}))
    view.observe(write, list(names))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One server for all tests of the module."""
    try:
        import jupyterlab  # noqa: F401
    except ImportError:
        missing("JupyterLab: pip install 'tpo-lab[notebooks]'")
    with running(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture
def in_lab(lab: Lab, browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a notebook of some cells and runs it; at the end nothing has left the machine, and no view has met an error."""
    with _opening(lab, browser) as opened:
        yield opened


@contextmanager
def _opening(lab: Lab, browser: Any) -> Iterator[Callable[..., Any]]:
    seen: list[Watched] = []

    def opened(name: str, *cells: str, width: int = 1300) -> Any:
        seen.append(Watched(browser, (lab.url,), viewport={"width": width, "height": 1200}))
        page = seen[-1].page
        (lab.root / "seen.json").unlink(missing_ok=True)
        lab.write(name, [START, *cells])
        lab.open(page, name)
        lab.run(page)
        return page

    yield opened
    for each in seen:
        each.close(LABS_OWN)


def test_a_view_in_a_notebook_and_the_kernel_follow_each_other(in_lab: Any, lab: Lab, artifacts: Path):
    page = in_lab(
        "small.ipynb",
        "from tests.widgets.small_view import SmallView\nfrom tpo_widgets import together\n"
        "one, other = SmallView(), SmallView()\nnote(one.playhead, 'time_sec')\ntogether(one, other)",
    )
    page.wait_for_function("() => document.querySelectorAll('.tpo-view canvas')[1]?.dataset.frame === '0'")
    page.locator(".tpo-view input").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    read_when(lab.root / "seen.json", lambda seen: seen["time_sec"] == 2.0)
    page.wait_for_function("() => document.querySelectorAll('.tpo-view canvas')[1].dataset.frame === '2'")
    page.screenshot(path=artifacts / "lab_small.png")
    lab.save(page)
    saved = json.loads((lab.root / "small.ipynb").read_text())
    states = saved["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
    assert max(len(json.dumps(state)) for state in states) <= 100_000
    assert any("image/png" in output.get("data", {}) for cell in saved["cells"] for output in cell["outputs"])


def test_a_saved_notebook_whose_kernel_has_gone_shows_how_it_was(in_lab: Any, lab: Lab):
    page = in_lab("still.ipynb", "from tests.widgets.small_view import SmallView\nview = SmallView()\nview")
    page.wait_for_function("() => document.querySelector('.tpo-view canvas')?.dataset.frame === '0'")
    lab.save(page)
    page.evaluate("() => window.jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
    lab.open(page, "still.ipynb")
    page.wait_for_selector(".tpo-view .tpo-note img", timeout=30_000)
    assert "No kernel answers" in page.inner_text(".tpo-view .tpo-note")


# One notebook with all views, in which nano-tpo answers questions about the world; opened once.
MODEL = """
import tpo_lab as tpo
from tpo_lab.datasets.world.samples import samples_of
from tpo_lab.datasets.world.scene import sample_scene
from tpo_widgets import GradientView, HeadView, PromptPad, RunsView, StageView, TokenView, together
model = tpo.load("nano-tpo")
found = {s.meta["task"]: s for s in samples_of(sample_scene(3), ("region", "temporal", "mask")) if s.meta["kind"] != "absent"}
trace = tpo.probe(model, list(found.values()), words=True)
heads = HeadView(trace)
"""
HEADS, TOKENS, GRADIENTS = "What the heads predict", "Tokens of a step record", "Gradients"
PAD, STAGES, RUNS = "PromptPad", "Stages of training", "Runs"
VIEWS = [
    "note(heads.playhead, 'time_sec', 'sample', 'head', 'object', 'token', file='playhead.json')",
    "gradients = GradientView(trace)\nnote(gradients, 'pair', 'module', file='gradients.json')",
    "together(heads, TokenView(trace), gradients)",
    "pad = PromptPad(found['region'], model)\nnote(pad, 'drawn', 'status', file='pad.json')\npad",
    "stages = StageView('nano', model)\nnote(stages, 'stage', file='stages.json')\nstages",
    "runs = RunsView('runs/sweep')\nnote(runs, 'selected', 'filters', 'opened', file='runs.json')\nruns",
]


@pytest.fixture(scope="module")
def studio(lab: Lab, browser: Any, artifacts: Path) -> Iterator[Any]:
    """The page of that notebook."""
    sweep_folder(lab.root / "runs" / "sweep", grid())
    with _opening(lab, browser) as opened:
        page = opened("views.ipynb", MODEL, *VIEWS, width=1200)
        page.wait_for_function("() => document.querySelectorAll('.tpo-view').length === 6", timeout=PATIENCE_MS)
        page.locator(".jp-Notebook .tpo-view").last.wait_for()
        for place, name in enumerate(("head", "token", "gradient", "pad", "stage", "runs")):
            page.locator(".tpo-view").nth(place).screenshot(path=artifacts / f"lab_{name}.png")
        yield page


def shown(page: Any, label: str) -> Any:
    return page.locator(f'.tpo-view[aria-label="{label}"]')


def test_heads_are_scrubbed_by_key_and_mouse(studio: Any, lab: Lab):
    canvas = shown(studio, HEADS).locator("canvas").first
    canvas.focus()
    studio.keyboard.press("ArrowRight")
    read_when(lab.root / "playhead.json", lambda seen: seen["time_sec"] > 0)
    shown(studio, HEADS).locator(".head-timeline").scroll_into_view_if_needed()
    axis = shown(studio, HEADS).locator("line.head-axis").first.bounding_box()
    studio.mouse.click(axis["x"] + 0.75 * axis["width"], axis["y"])
    read_when(lab.root / "playhead.json", lambda seen: 2.5 < seen["time_sec"] < 3.5)
    studio.keyboard.press("]")
    read_when(lab.root / "playhead.json", lambda seen: seen["sample"])


def test_tokens_are_selected_by_key(studio: Any, lab: Lab):
    before = read_when(lab.root / "playhead.json", lambda seen: True)["token"]
    shown(studio, TOKENS).locator("[role=option][tabindex='0']").first.focus()
    studio.keyboard.press("ArrowRight")
    studio.keyboard.press("Enter")
    read_when(lab.root / "playhead.json", lambda seen: seen["token"] not in (before, -1))


def test_a_conflict_leads_to_the_sample_in_the_other_view(studio: Any, lab: Lab):
    view = shown(studio, GRADIENTS)
    view.locator(".tpo-g-list").first.locator("button, [role=button]").first.click()
    read_when(lab.root / "gradients.json", lambda seen: "|" in seen["pair"] and seen["module"])
    behind = view.locator(".tpo-g-list").nth(1).locator("button, [role=button]")
    behind.last.click()
    sample = read_when(lab.root / "playhead.json", lambda seen: seen["sample"])["sample"]
    chosen = shown(studio, HEADS).locator("select option:checked").first
    studio.wait_for_timeout(500)
    assert sample in chosen.inner_text(), "the other view shows the sample that was clicked"


def test_a_box_is_drawn_and_a_question_asked(studio: Any, lab: Lab):
    view = shown(studio, PAD)
    before = len(read_pad(lab))
    view.locator("canvas").scroll_into_view_if_needed()
    view.get_by_role("button", name="Box", exact=True).click()
    place = view.locator("canvas").bounding_box()
    studio.mouse.move(place["x"] + 0.25 * place["width"], place["y"] + 0.5 * place["height"])
    studio.mouse.down()
    studio.mouse.move(place["x"] + 0.75 * place["width"], place["y"] + 0.75 * place["height"], steps=5)
    studio.mouse.up()
    drawn = read_when(lab.root / "pad.json", lambda seen: len(seen["drawn"]) == before + 1)["drawn"][-1]
    assert [round(edge / 16) for edge in drawn["xyxy"]] == [1, 2, 3, 3], "a clip of the world has 64 x 64 pixels"
    view.locator(".tpo-pad-ask").click()
    read_when(lab.root / "pad.json", lambda seen: seen["status"] == "answered")


def read_pad(lab: Lab) -> list[Any]:
    path = lab.root / "pad.json"
    return json.loads(path.read_text())["drawn"] if path.exists() else []


def test_a_stage_is_chosen(studio: Any, lab: Lab):
    shown(studio, STAGES).locator("thead button").nth(1).click()
    read_when(lab.root / "stages.json", lambda seen: seen["stage"].startswith("2."))


def test_runs_are_filtered_selected_and_opened(studio: Any, lab: Lab):
    view = shown(studio, RUNS)
    view.locator("input[data-filter=acc]").fill(">=0.6")
    read_when(lab.root / "runs.json", lambda seen: seen["filters"].get("acc"))
    view.locator("tbody tr[data-row]").first.locator("td").nth(3).click()
    read_when(lab.root / "runs.json", lambda seen: len(seen["selected"]) == 1)


def test_voila_shows_a_view_that_its_kernel_follows(browser: Any, tmp_path: Path):
    try:
        import voila as _  # noqa: F401
    except ImportError:
        missing("Voila: pip install 'tpo-lab[test]'")
    cells = [START.replace('"seen.json"', repr(str(tmp_path / "seen.json"))), "from tests.widgets.small_view import SmallView"]
    cells += ["view = SmallView()\nnote(view.playhead, 'time_sec')\nview"]
    with voila(tmp_path / "voila", cells) as url:
        watched = Watched(browser, (url,), viewport={"width": 900, "height": 900})
        page = watched.page
        page.goto(url, wait_until="domcontentloaded")
        page.wait_for_function("() => document.querySelector('.tpo-view canvas')?.dataset.frame === '0'", timeout=PATIENCE_MS)
        page.focus(".tpo-view input")
        page.keyboard.press("End")
        read_when(tmp_path / "seen.json", lambda seen: seen["time_sec"] == 4.0)
        page.context.close()
    # Voila's own page asks for its icons
    assert not [asked for asked in watched.strangers if "fontawesome" not in asked], watched.strangers
