"""Every view in a real JupyterLab: opened in a notebook, used with mouse and keyboard, and Python sees the effect."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.widgets.conftest import missing
from tests.widgets.lab import PATIENCE_MS, Lab, read_when, running, voila

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
    contexts: list[Any] = []
    strangers: list[str] = []
    errors: list[str] = []

    def opened(name: str, *cells: str, dark: bool = False, width: int = 1300) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 1200})
        contexts.append(context)

        def judge(route: Any) -> None:
            url = route.request.url
            if url.startswith((lab.url, "data:", "blob:")):
                route.continue_()
            else:
                strangers.append(url)
                route.abort()

        context.route("**/*", judge)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        (lab.root / "seen.json").unlink(missing_ok=True)
        lab.write(name, [START, *cells])
        lab.open(page, name)
        if dark:
            page.evaluate("() => window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Dark' })")
        lab.run(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    caused = [error for error in errors if not any(own in error for own in LABS_OWN)]
    assert not strangers, f"the page asked for {strangers}"
    assert not caused, f"errors on the page: {caused}"


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


def test_voila_shows_a_view_that_its_kernel_follows(browser: Any, tmp_path: Path):
    try:
        import voila as _  # noqa: F401
    except ImportError:
        missing("Voila: pip install 'tpo-lab[test]'")
    cells = [START.replace('"seen.json"', repr(str(tmp_path / "seen.json"))), "from tests.widgets.small_view import SmallView"]
    cells += ["view = SmallView()\nnote(view.playhead, 'time_sec')\nview"]
    with voila(tmp_path / "voila", cells) as url:
        context = browser.new_context(viewport={"width": 900, "height": 900})
        strangers: list[str] = []

        def judge(route: Any) -> None:
            if route.request.url.startswith((url, "data:", "blob:")):
                route.continue_()
            else:
                strangers.append(route.request.url)
                route.abort()

        context.route("**/*", judge)
        page = context.new_page()
        page.goto(url, wait_until="domcontentloaded")
        page.wait_for_function("() => document.querySelector('.tpo-view canvas')?.dataset.frame === '0'", timeout=PATIENCE_MS)
        page.focus(".tpo-view input")
        page.keyboard.press("End")
        read_when(tmp_path / "seen.json", lambda seen: seen["time_sec"] == 4.0)
        context.close()
    # Voila's own page asks for its icons
    assert not [url for url in strangers if "fontawesome" not in url], strangers
