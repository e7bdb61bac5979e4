"""Views in a real browser: on pages of their own, and with the Python side attached, but without Jupyter (which test_lab.py has)."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reruns.written import sweep_folder
from tests.widgets.bridge import Live
from tests.widgets.planted_trace import planted_trace, write_planted_clip
from tests.widgets.sweeps import grid, train
from tpo_lab.probes.trace import Trace

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--force-color-profile=srgb"]


def missing(what: str) -> None:
    """Fails where the whole suite has to run, and elsewhere skips with what to install."""
    message = f"the browser tests of the views need {what}"
    (pytest.fail if os.environ.get("CI") else pytest.skip)(message)


class Watched:
    """A page in a context of its own that may ask only for addresses that begin as its own do, and for what it holds itself.

    Attributes:
        page: Playwright's.
        strangers: what else it asked for; it was not given it.
        errors: what its console said of errors.
    """

    def __init__(self, browser: Any, own: tuple[str, ...], **options: Any) -> None:
        self._context, self._own = browser.new_context(**options), (*own, "data:", "blob:")
        self.strangers: list[str] = []
        self.errors: list[str] = []
        self._context.route("**/*", self._judge)
        self.page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)

    def _judge(self, route: Any) -> None:
        if route.request.url.startswith(self._own):
            route.continue_()
        else:
            self.strangers.append(route.request.url)
            route.abort()

    def close(self, allowed: tuple[str, ...] = ()) -> None:
        """Closes it; it has asked nobody else for anything, and met no error but those in which one of these words occurs."""
        self._context.close()
        caused = [error for error in self.errors if not any(word in error for word in allowed)]
        assert not self.strangers, f"the page asked for {self.strangers}"
        assert not caused, f"errors on the page: {caused}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, one for each file of tests: while it is open no other event loop may run in the process."""
    if CHROMIUM is None:
        missing("Chromium: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright: pip install 'tpo-lab[test]'")
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def new_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages that may ask nobody for anything; at the end none of them has tried, and none has met an error."""
    seen: list[Watched] = []

    def opened(*, width: int = 900, height: int = 1400, dark: bool = False, **options: Any) -> Any:
        scheme = "dark" if dark else "light"
        seen.append(Watched(browser, ("file:",), viewport={"width": width, "height": height}, color_scheme=scheme, **options))
        return seen[-1].page

    yield opened
    for each in seen:
        each.close()


@pytest.fixture
def open_page(new_page: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Opens views (or HTML text) from disk, as a page without a kernel: `open_page(view, dark=True)`."""

    def opened(*views: Any, **options: Any) -> Any:
        from tpo_widgets.page import page

        text = views[0] if isinstance(views[0], str) else page(list(views))
        file = tmp_path / f"page{time.monotonic_ns()}.html"
        file.write_text(text, encoding="utf-8")
        found = new_page(**options)
        found.goto(file.as_uri())
        found.wait_for_selector(".tpo-view")
        return found

    return opened


@pytest.fixture
def live(new_page: Callable[..., Any], tmp_path: Path) -> Callable[..., Live]:
    """Opens views with their Python side attached: what is done on the page reaches the traits, and what is set in Python the page."""

    def attached(*views: Any, **options: Any) -> Live:
        return Live(new_page(**options), views, tmp_path)

    return attached


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: the folder that TPO_LAB_ARTIFACTS names, or one of the test run."""
    folder = Path(os.environ.get("TPO_LAB_ARTIFACTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip that planted traces are about."""
    return write_planted_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture(scope="module")
def planted(clip: Path) -> Trace:
    """A step record whose attention is known."""
    return planted_trace(clip)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep's folder, in which three runs have logged a training."""
    runs = grid()
    made = sweep_folder(tmp_path / "sweep", runs)
    train(made, [runs[0], runs[1], runs[3]])
    return made
