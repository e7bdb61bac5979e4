"""Each notebook of the course with its exercises open: it fails at its first check, and nowhere before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpo_lab import notebooks
from tpo_lab.errors import TPOError

FOLDER = Path(__file__).parents[2] / "notebooks"


@pytest.mark.parametrize("name", list(notebooks.available()))
def test_it_fails_at_its_first_check(name: str, tmp_path: Path, run_fast):
    with pytest.raises(TPOError, match="a cell failed with AssertionError"):
        run_fast(FOLDER / f"{name}.ipynb", tmp_path)
    made = json.loads((tmp_path / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    failed = [cell["id"] for cell in made if any(output["output_type"] == "error" for output in cell.get("outputs", []))]
    assert failed == [next(cell["id"] for cell in made if "check" in cell["metadata"].get("tags", ()))]
