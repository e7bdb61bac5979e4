"""The site of the course: pages that open from disk with formulas and pictures, failures that are shown, and nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tpo_lab import notebooks

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ABOUT = (
    "# Squares\n\nOf numbers.\n\n**Question**: how large\nis $x^2$?\n\n**Before**: [the next](78_cubes.ipynb), and `$HOME` is no formula."
)
FORMULA = "The sum is\n\n$$\\sum_{i=1}^n i^2\n = x$$\n\nand a price of \\$5 or 6$ is none."
SHOW = """from tpo_lab.notebooks import emit
from tpo_lab.report.svg import Svg
if count == 13:
    raise ValueError("thirteen")
Svg('<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><circle r="9" cx="20" cy="20"/></svg>')"""
EMIT = 'emit(out, notebook="77_squares", headline={"square": float(count**2)}, fast=fast)'
PARAMETERS = 'out: str = ""  # where\ncount: int = 12  # how many\nfast: bool = False  # small\nthreads: int = 0  # of torch'


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for needed in ("nbconvert", "latex2mathml", "papermill"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    spec = importlib.util.spec_from_file_location("site_of_the_course", ROOT / "tools" / "site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two notebooks, the second of which fails, in place of the shipped ones."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name, count in (("77_squares", 12), ("78_cubes", 13)):
        code = [("p", PARAMETERS.replace("12", str(count)), ["parameters"]), ("s", SHOW, []), ("e", EMIT, [])]
        texts = [("a", ABOUT), ("f", FORMULA)]
        cells = [{"cell_type": "markdown", "id": key, "metadata": {}, "source": text} for key, text in texts]
        cells += [
            {"cell_type": "code", "id": key, "metadata": {"tags": tags}, "source": text, "outputs": [], "execution_count": None}
            for key, text, tags in code
        ]
        kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
        (folder / f"{name}.ipynb").write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    there = {path.stem: path for path in sorted(folder.iterdir())}
    monkeypatch.setattr(notebooks.declared, "available", lambda: there)
    monkeypatch.setattr(notebooks, "available", lambda: there)
    return tmp_path / "site"


def test_formulas_become_mathml_and_code_and_prices_stay(site: ModuleType):
    made = site.with_mathml(ABOUT + FORMULA)
    assert made.count("<math") == 2 and 'display="block"' in made and "<msup>" in made
    assert "`$HOME` is no formula" in made and "\\$5 or 6$ is none" in made
    assert site.with_mathml("```\n$x$\n```") == "```\n$x$\n```"


def test_each_notebook_has_a_page_and_a_failure_is_shown(site: ModuleType, course: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["site.py", "--out", str(course), "--jobs", "1"])
    assert site.main() == 1, "one of them failed"
    index = (course / "index.html").read_text(encoding="utf-8")
    assert "square 144" in index and "how large is <math" in index and "<msup>" in index
    assert 'class="bad"' in index and "ValueError: thirteen" in index
    assert "thirteen" in (course / "78_cubes.html").read_text(encoding="utf-8")
    good = (course / "77_squares.html").read_text(encoding="utf-8")
    assert "<circle" in good and "<math" in good and "<script" not in good and 'href="78_cubes.html"' in good
    assert json.loads((course / "runs" / "77_squares" / "result.json").read_text(encoding="utf-8"))["fast"] is True


def test_a_view_becomes_its_picture_which_has_words(site: ModuleType):
    output = {"data": {site.WIDGET: {"model_id": "x"}, "image/png": "AA\nAA", "text/plain": "View"}}
    site._stand_still(output, "What <it> shows.")
    expected = '<img alt="What &lt;it&gt; shows." src="data:image/png;base64,AAAA">'
    assert output["data"] == {"text/plain": "View", "text/html": expected}
    lone = {"data": {site.WIDGET: {"model_id": "x"}, "text/plain": "View"}}
    site._stand_still(lone, "")
    assert site.WIDGET in lone["data"]
    assert site.first_sentence("## A\n\n**Boxes** of [a page](b.html): see. More.") == "Boxes of a page:"
    assert site._inline("What does `probe` **do**? a<b") == "What does <code>probe</code> <b>do</b>? a&lt;b"


def test_pages_of_named_notebooks_alone_and_a_misspelt_name(
    site: ModuleType, course: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["site.py", "--out", str(course), "77_squares"])
    assert site.main() == 0
    assert sorted(path.name for path in course.glob("*.html")) == ["77_squares.html", "index.html"]
    monkeypatch.setattr("sys.argv", ["site.py", "--out", str(course), "77_square"])
    assert site.main() == 2 and "77_squares" in capsys.readouterr().err


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_opens_it_from_disk_and_asks_nobody(site: ModuleType, course: Path, monkeypatch: pytest.MonkeyPatch):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    monkeypatch.setattr("sys.argv", ["site.py", "--out", str(course), "77_squares"])
    assert site.main() == 0
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((course / "index.html").as_uri())
        page.get_by_role("link", name="Squares").click()
        page.wait_for_load_state("networkidle")
        assert page.locator("math").first.bounding_box()["height"] > 5
        assert page.locator(".jp-OutputArea-output svg circle").bounding_box()["width"] == 18
        assert page.locator("main").bounding_box()["width"] > 400
        browser.close()
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)
