"""The pictures of widgets/README.md, made of the shipped model.

`TPO_LAB_ARTIFACTS=docs/views python -m pytest tests/widgets/test_gallery.py` makes them again.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tpo_lab.probes import Trace
from tpo_widgets import GradientView, HeadView, PromptPad, RunsView, StageView, TokenView, View

pytestmark = [pytest.mark.browser, pytest.mark.slow]
COLOURS = 160


@pytest.fixture(scope="module")
def shipped() -> Any:
    import tpo_lab as tpo

    return tpo.load("nano-tpo")


@pytest.fixture(scope="module")
def trace(shipped: Any, world: Any) -> Trace:
    import tpo_lab as tpo

    samples = [sample for scene in (3, 5) for sample in world(scene, "region", "temporal", "mask")]
    chosen = {sample.meta["task"]: sample for sample in samples if sample.meta["kind"] != "absent"}
    stage = tpo.recipe("nano").for_heads(tuple(shipped.heads)).stage("3b")[0]
    return tpo.probe(shipped, [*chosen.values()], stage=stage, words=True)


def taken(open_page: Any, artifacts: Path, view: View, name: str, ready: str) -> None:
    """A picture of a view as it is on screen, in few colours."""
    page = open_page(view, width=1000)
    page.wait_for_selector(ready)
    page.wait_for_timeout(400)
    shot = Image.open(io.BytesIO(page.locator(".tpo-view").screenshot())).convert("RGB")
    shot.quantize(COLOURS, method=Image.Quantize.FASTOCTREE).save(artifacts / f"{name}.png", optimize=True)
    assert len(np.unique(np.asarray(shot).reshape(-1, 3), axis=0)) > 20, "the picture shows something"


def test_head_view(open_page: Any, artifacts: Path, trace: Trace):
    view = HeadView(trace)
    masked = next(sample for sample in trace.samples if "mask" in sample.heads)
    view.playhead.sample, view.playhead.time_sec = masked.id, 1.5
    taken(open_page, artifacts, view, "head_view", "canvas[data-frame]")


def test_prompt_pad(open_page: Any, artifacts: Path, shipped: Any, world: Any):
    pointed = next(sample for scene in range(3, 20) for sample in world(scene, "track") if sample.prompts)
    pad = PromptPad(pointed, shipped)
    assert pad.ask() is not None and pad.prompts == list(pointed.prompts)
    taken(open_page, artifacts, pad, "prompt_pad", "canvas[data-frame]")


def test_token_view(open_page: Any, artifacts: Path, trace: Trace):
    taken(open_page, artifacts, TokenView(trace), "token_view", "canvas[data-frame]")


def test_gradient_view(open_page: Any, artifacts: Path, trace: Trace):
    view = GradientView(trace)
    view.pair, view.module = "region|temporal", "llm.lora.2"
    taken(open_page, artifacts, view, "gradient_view", "[role=grid]")


def test_stage_view(open_page: Any, artifacts: Path, shipped: Any):
    taken(open_page, artifacts, StageView("nano", shipped), "stage_view", "table, svg")


def test_runs_view(open_page: Any, artifacts: Path):
    """Invented figures: what is shown is the view."""
    rng = np.random.default_rng(0)
    rates, sizes = 10 ** rng.uniform(-4, -2, 24), rng.choice([8, 16, 32], 24)
    fit = 0.9 - 0.12 * (np.log10(rates) + 3) ** 2 - 0.002 * np.abs(sizes - 16) + rng.normal(0, 0.02, 24)
    table = pd.DataFrame({"rate": rates, "batch": sizes, "seed": rng.integers(0, 3, 24), "iou": fit, "loss": 1.6 - fit})
    taken(open_page, artifacts, RunsView(table, metrics=["iou", "loss"], lower=["loss"]), "runs_view", "table")
