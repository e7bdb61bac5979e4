"""Each solved notebook of the course, run in fast mode from top to bottom. (A file of its own, so that two processes share the course.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpo_lab import notebooks

NAMES = list(notebooks.available())


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_shows_pictures_and_a_result(name: str, tmp_path: Path, run_fast):
    run = run_fast(notebooks.find(name), tmp_path)
    assert run.result["notebook"] == name and run.result["headline"]
    outputs = [output for cell in json.loads(run.path.read_text(encoding="utf-8"))["cells"] for output in cell.get("outputs", [])]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert kinds & {"image/png", "image/svg+xml"}, "a picture where people would rather look"
