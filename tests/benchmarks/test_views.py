"""Views in a real JupyterLab: how soon one is seen, how fast it scrubs, how large its state is, what a long video takes of the browser."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.benchmarks.conftest import note
from tests.widgets.gradient_fixtures import line, random_gradients, run_folder
from tests.widgets.lab import Lab, running
from tpo_lab.video.writer import write_clip

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
FRAMES, SIDE, LONG = 64, 336, 2000
MEASUREMENTS, OWNERS = 200, ("mlm", "region", "temporal", "mask")
MODULES = ("connector", "tokens.rows.output", *(f"llm.lora.{layer}" for layer in range(32)), *(f"heads.{name}" for name in OWNERS[1:]))

MAKE = f"""
import json
import numpy as np
import tpo_lab.probes  # as in any notebook that has a model
from tpo_lab.rle import encode_rle
from tpo_lab.sample import Sample
from tpo_widgets import HeadView

def disc(number, count, radius):
    y, x = np.mgrid[:{SIDE}, :{SIDE}]
    return (x - 60 - 200 * number / count) ** 2 + (y - 168) ** 2 < radius ** 2

def masked(path, count, seconds):
    times = [float(t) for t in np.arange(count) * seconds / count]
    said = lambda radius: [encode_rle(disc(number, count, radius)) for number in range(count)]
    sample = Sample.model_validate({{
        "id": "disc", "media": {{"path": path, "end_sec": seconds}},
        "conversation": [{{"role": "user", "text": "Which pixels?"}}, {{"role": "assistant", "text": "<mask>"}}],
        "targets": {{"mask": {{"times_sec": times, "rle": said(40)}}}},
    }})
    answer = {{"mask": {{"times_sec": times, "masks": [said(34)], "track_xyxy": [[None] * count]}}}}
    return sample, answer
"""
SEE = """async () => {
  const began = performance.now();
  window.jupyterapp.commands.execute('notebook:run-cell');
  while (document.querySelector('.tpo-view canvas')?.dataset.frame !== '0') await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""
SCRUB = """async (count) => {
  const canvas = document.querySelector('.tpo-view canvas');
  canvas.focus();
  const steps = [];
  for (let number = 1; number < count; number++) {
    const began = performance.now();
    canvas.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true }));
    while (canvas.dataset.frame !== String(number)) await new Promise((done) => setTimeout(done, 0));
    steps.push(performance.now() - began);
  }
  return steps;
}"""

MEASURED = """async (count) => {
  const until = async (true_) => { while (!true_()) await new Promise((done) => setTimeout(done, 0)); };
  const find = (selector) => document.querySelector(`.tpo-view ${selector}`);
  window.jupyterapp.commands.execute('notebook:run-cell');
  await until(() => find('.tpo-g-when')?.textContent);
  const slider = find('.tpo-g-steps input'), steps = [];
  for (let number = 0; number < count; number++) {
    const began = performance.now();
    slider.value = number;
    slider.dispatchEvent(new Event('input'));
    await until(() => find('.tpo-g-when').textContent.includes(`(${number + 1} of`));
    steps.push(performance.now() - began);
  }
  return steps;
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page(viewport={"width": 1300, "height": 1200})
        browser.close()


def clip(path: Path, count: int) -> None:
    """A noisy picture that moves: about as large, compressed, as a real video."""
    rng = np.random.default_rng(0)
    wide = rng.integers(60, 200, (SIDE // 8, SIDE // 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    write_clip(path, [wide[:, number % SIDE : number % SIDE + SIDE] for number in range(count)], 25.0)


def opened(lab: Lab, page: Any, name: str, cells: list[str]) -> None:
    """The notebook with all cells run but the last, which is selected."""
    lab.write(name, [*cells[:-1], cells[-1]])
    lab.open(page, name)
    for _ in cells[:-1]:
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell-and-select-next')")
    page.wait_for_timeout(200)


def test_sixty_four_frames_with_masks(lab: Lab, page: Any, pytestconfig: pytest.Config):
    """Bars: seen within 2 s of running the cell; 50 ms a step; 100 KB of state."""
    clip(lab.root / "short.mp4", FRAMES)
    opened(lab, page, "short.ipynb", [MAKE, f"made = masked('short.mp4', {FRAMES}, {FRAMES / 25})", "HeadView(*made)"])
    seen = page.evaluate(SEE)
    page.wait_for_timeout(3000)
    steps = page.evaluate(SCRUB, FRAMES)
    lab.save(page)
    saved = json.loads((lab.root / "short.ipynb").read_text())
    states = saved["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
    note(pytestconfig, "HeadView, 64 frames with masks, from the cell to the first frame", [seen / 1000])
    note(pytestconfig, "HeadView, one step of the scrubber, drawn", [step / 1000 for step in steps])
    print(f"\nseen after {seen:.0f} ms; a step {statistics.median(steps):.1f} ms, the slowest {max(steps):.1f} ms")
    largest, output = max(len(json.dumps(state)) for state in states), len(json.dumps(saved["cells"][-1]))
    print(f"state {largest / 1000:.1f} KB, the output {output / 1000:.1f} KB")


def test_two_thousand_frames(lab: Lab, page: Any, pytestconfig: pytest.Config):
    """Bar: 300 MB of the browser for the view, whatever JupyterLab takes."""
    clip(lab.root / "long.mp4", LONG)
    opened(lab, page, "long.ipynb", [MAKE, f"made = masked('long.mp4', {LONG}, {LONG / 25})", "HeadView(*made)"])
    before = renderer()
    seen = page.evaluate(SEE)
    peak, steps = before, []
    for first in range(0, 1980, 90):
        steps += page.evaluate(SCRUB.replace("let number = 1", f"let number = {first + 1}"), first + 91)
        peak = max(peak, renderer())
    note(pytestconfig, "HeadView, 2,000 frames, one step of the scrubber, drawn", [step / 1000 for step in steps])
    print(f"\nseen after {seen:.0f} ms; a step {statistics.median(steps):.1f} ms, the slowest {max(steps):.0f} ms")
    print(f"the browser's page: {before:.0f} MB before, {peak:.0f} MB at most, the view so {peak - before:.0f} MB")


def test_two_hundred_measurements_of_gradients(lab: Lab, page: Any, pytestconfig: pytest.Config):
    """Bar: 50 ms a step."""
    measured = [line("3b", 1 + 10 * number, random_gradients(OWNERS, MODULES, seed=number)) for number in range(MEASUREMENTS)]
    run_folder(lab.root / "run", measured)
    opened(lab, page, "gradients.ipynb", ["from tpo_widgets import GradientView", "GradientView(run='run')"])
    steps = page.evaluate(MEASURED, MEASUREMENTS)
    note(pytestconfig, "GradientView, 200 measurements of 37 modules, one step of the scrubber, drawn", [step / 1000 for step in steps])
    print(f"\na step {statistics.median(steps):.1f} ms, the slowest {max(steps):.1f} ms")


def renderer() -> float:
    """Resident megabytes of the browser's largest page process."""
    found = [0.0]
    for process in psutil.process_iter(["cmdline"]):
        if "--type=renderer" in (process.info["cmdline"] or []):
            found.append(process.memory_info().rss / 1e6)
    return max(found)
