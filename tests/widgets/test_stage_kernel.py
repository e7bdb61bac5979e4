"""StageView in a real kernel: what it shows leaves for the front end while a cell still trains, and while a thread watches."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

SHOWN = """
import json, time
from pathlib import Path
import torch
from tpo_widgets import StageView
from tpo_lab.objective import LossReport
metrics = Path(FOLDER) / "metrics.jsonl"
view = StageView("nano")
view
"""
FOLLOWED = """
view.follow(FOLDER, every_sec=0.02)
for step in (1, 2, 3):
    with metrics.open("a") as file:
        file.write(json.dumps({"stage": "1", "step": step, "loss": 1 / step}) + "\\n")
    while (view.document["run"]["now"] or {}).get("step") != step:
        time.sleep(0.01)
view.stop()
"""
TRAINED = """
listener = view.listen()
for step in (1, 20, 40):
    view._sent = -1e9  # as if some time had passed
    listener("1", step, 40, LossReport(torch.tensor(1 / step), {"mlm": torch.tensor(1 / step)}, {"mlm": 1.0}))
view.stop()
assert view.error is None
"""


def test_updates_leave_the_kernel_while_the_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "widgets")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    steps: dict[int, list[int]] = {0: [], 1: [], 2: []}

    class Listening(nbclient.NotebookClient):  # type: ignore[misc, name-defined]
        def process_message(self, message: Any, cell: Any, index: int) -> Any:
            state = message["content"].get("data", {}).get("state", {}) if message["msg_type"] == "comm_msg" else {}
            now = ((state.get("document") or {}).get("run") or {}).get("now")
            if now:
                steps[index].append(now["step"])
            return super().process_message(message, cell, index)

    sources = [f"FOLDER = {json.dumps(str(tmp_path))}\n{SHOWN}", FOLLOWED, TRAINED]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    Listening(notebook, timeout=240, kernel_name="python3").execute()
    assert {"application/vnd.jupyter.widget-view+json", "image/png"} <= set(notebook.cells[0].outputs[-1]["data"])
    assert steps[0] == [] and sorted(set(steps[1])) == [1, 2, 3] and sorted(set(steps[2])) == [1, 20, 40]
    states = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
    (saved,) = [each["state"] for each in states if each["state"].get("_anywidget_id", "").endswith("StageView")]
    assert saved["document"]["run"]["now"]["step"] == 40 and saved["document"]["run"]["stages"][0]["state"] == "done"
