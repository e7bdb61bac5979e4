"""Small notebooks and sweep files for the tests of reruns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DECLARED = """out: str = ""  # folder
seed: int = 0  # of everything
count: int = 2  # how many
rate: float = 0.5  # how fast
mode: str = "plain"  # how
fast: bool = False  # less of all
data: str = ""  # folder
"""
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def notebook_of(*sources: str, declared: str = DECLARED) -> dict[str, Any]:
    """A notebook with a cell of parameters and one cell for each source."""
    made = [
        {"cell_type": "code", "id": "p", "metadata": {"tags": ["parameters"]}, "source": declared, "outputs": [], "execution_count": None}
    ]
    made += [{**made[0], "id": f"c{number}", "metadata": {}, "source": source} for number, source in enumerate(sources)]
    return {"cells": made, "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def write_notebook(tmp_path: Path) -> Callable[..., Path]:
    """Writes a notebook into the folder of the test: `write_notebook("one.ipynb", "emit(out)", declared="out: str = ''")`."""

    def write(name: str, *sources: str, declared: str = DECLARED) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(notebook_of(*sources, declared=declared)))
        return path

    return write


@pytest.fixture
def write_sweep(tmp_path: Path) -> Callable[..., Path]:
    """Writes the text of a sweep file into the folder of the test."""

    def write(text: str, name: str = "sweep.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
