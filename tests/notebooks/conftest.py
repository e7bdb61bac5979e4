"""How the tests run a notebook of the course: in fast mode, in worlds that a session makes once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tpo_lab import notebooks

Run = Callable[[Path, Path], notebooks.NotebookRun]


@pytest.fixture(scope="session")
def run_fast(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a notebook into a folder."""
    pytest.importorskip("papermill", reason="papermill is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    worlds = tmp_path_factory.mktemp("worlds")

    def run(notebook: Path, folder: Path) -> notebooks.NotebookRun:
        threads = {"threads": 1} if "threads" in notebooks.parameters(notebook) else {}
        values = {"fast": True, "out": str(folder / "out"), **threads}
        return notebooks.execute(notebook, folder / notebook.name, values, env={"TPO_WORLDS": str(worlds)})

    return run
