"""The notebooks as files, the driver that runs them, and the tour; the others are run by the demo, in test_demo.py."""

from __future__ import annotations

import ast
import json
import os
import signal
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tpo_lab import notebooks
from tpo_lab.errors import MissingExtraError, TPOError, UsageError
from tpo_lab.notebooks import execution

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
COMMON = ["data", "checkpoint", "out", "seed", "recipe_name", "steps", "eval_samples", "threads"]
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def cells(name: str, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in read(name)["cells"] if cell["cell_type"] == kind]


def parsed(source: str) -> ast.Module:
    return ast.parse(source)


def test_all_notebooks_are_there():
    assert NAMES == ["00_tour", "10_tokens_and_routing", "20_region_head", "21_temporal_head", "22_mask_head", "40_joint_training"]


@pytest.mark.parametrize("name", NAMES)
class TestForm:
    def test_it_is_stored_without_outputs_and_opens_in_any_jupyter(self, name: str):
        notebook = read(name)
        assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
        assert notebook["metadata"]["kernelspec"] == KERNEL
        identifiers = [cell["id"] for cell in notebook["cells"]]
        assert len(set(identifiers)) == len(identifiers) and all(identifiers)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                assert cell["outputs"] == [] and cell["execution_count"] is None, cell["id"]

    def test_every_parameter_has_a_type_a_default_and_a_word_of_help(self, name: str):
        found = notebooks.parameters(FOLDER / f"{name}.ipynb")
        assert list(found) == [p for p in COMMON if name != "00_tour" or p not in ("recipe_name", "steps")]
        assert all(parameter.help for parameter in found.values())

    def test_papermill_reads_the_same_parameters(self, name: str):
        papermill = pytest.importorskip("papermill", reason="papermill is not installed")
        seen = papermill.inspect_notebook(str(FOLDER / f"{name}.ipynb"))
        ours = notebooks.parameters(FOLDER / f"{name}.ipynb")
        assert {n: (p["inferred_type_name"], p["help"]) for n, p in seen.items()} == {n: (p.type, p.help) for n, p in ours.items()}

    def test_cells_are_small_and_define_nothing(self, name: str):
        sources = cells(name, "code")
        assert statistics.median(len(source.splitlines()) for source in sources) <= 5
        for source in sources:
            defined = [node for node in ast.walk(parsed(source)) if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))]
            assert not defined, source

    def test_it_imports_the_library_and_nothing_that_points_back(self, name: str):
        roots = set()
        for node in (node for source in cells(name, "code") for node in ast.walk(parsed(source))):
            roots |= {alias.name.split(".")[0] for alias in node.names} if isinstance(node, ast.Import) else set()
            roots |= {str(node.module).split(".")[0]} if isinstance(node, ast.ImportFrom) else set()
        assert "tpo_lab" in roots
        assert roots <= {"tpo_lab", "tpo_widgets", "torch", "pandas", "collections"}

    def test_ideas_are_checked_with_a_reason(self, name: str):
        checks = [node for source in cells(name, "code") for node in ast.walk(parsed(source)) if isinstance(node, ast.Assert)]
        assert len(checks) >= 5 and all(node.msg is not None for node in checks)

    def test_it_says_what_to_expect_and_ends_with_exercises(self, name: str):
        words = cells(name, "markdown")
        assert "**Time and hardware**" in words[0] and words[0].startswith("# ")
        assert sum("**Predict**" in text for text in words) >= 2
        assert "## Summary" in words[-1] and "**Exercises**" in words[-1] and "\n2. " in words[-1] and "\n3. " not in words[-1]
        assert read(name)["cells"][-1]["cell_type"] == "markdown"
        assert "emit(out" in cells(name, "code")[-1]

    def test_it_names_no_place_of_one_machine(self, name: str):
        text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
        assert not any(place in text for place in ("/home/", "/tmp/", "/work/", "C:\\"))


def write(
    path: Path, *sources: str, tagged: str = 'count: int = 2  # how many\nrate: float = 0.5  # how fast\nout: str = ""  # where'
) -> Path:
    made = [
        {"cell_type": "code", "id": "p", "metadata": {"tags": ["parameters"]}, "source": tagged, "outputs": [], "execution_count": None}
    ]
    for number, source in enumerate(sources):
        made.append({**made[0], "id": f"c{number}", "metadata": {}, "source": source})
    path.write_text(json.dumps({"cells": made, "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5}))
    return path


class TestParameters:
    def test_values_are_checked_against_the_declared_types(self, tmp_path: Path):
        notebook = write(tmp_path / "n.ipynb")
        assert notebooks.checked(notebook, {"count": 3, "rate": 1}) == {"count": 3, "rate": 1}
        with pytest.raises(UsageError, match="count: expected int, got '3'"):
            notebooks.checked(notebook, {"count": "3"})
        with pytest.raises(UsageError, match="count: expected int, got True"):
            notebooks.checked(notebook, {"count": True})
        with pytest.raises(UsageError, match=r"got 'coutn'. Did you mean 'count'"):
            notebooks.checked(notebook, {"coutn": 3})

    @pytest.mark.parametrize("line", ["count = 2", "count: 'int' = 2", "count: list[int] = [2]", "count: int"])
    def test_lines_that_papermill_would_drop_are_refused(self, tmp_path: Path, line: str):
        with pytest.raises(UsageError, match="name: type = value"):
            notebooks.parameters(write(tmp_path / "n.ipynb", tagged=line))

    def test_a_notebook_without_parameters_is_refused(self, tmp_path: Path):
        path = write(tmp_path / "n.ipynb")
        path.write_text(path.read_text().replace("parameters", "other"))
        with pytest.raises(UsageError, match=r"notebook n.ipynb: expected a cell tagged 'parameters'"):
            notebooks.parameters(path)

    def test_shipped_notebooks_are_found_by_name(self):
        assert list(notebooks.available()) == NAMES
        with pytest.raises(UsageError, match="21_temporal_head"):
            notebooks.find("21_temporal")


class TestCells:
    def test_a_finished_run_is_thrown_away_and_an_unfinished_one_kept(self, tmp_path: Path):
        (tmp_path / "run" / "1").mkdir(parents=True)
        assert notebooks.open_run(tmp_path) == tmp_path / "run" and (tmp_path / "run" / "1").exists()
        (tmp_path / "result.json").write_text("{}")
        assert notebooks.open_run(tmp_path) == tmp_path / "run"
        assert not (tmp_path / "run").exists() and not (tmp_path / "result.json").exists()

    def test_the_most_memory_of_this_process(self):
        measured = notebooks.peak_memory_mb()
        assert measured is not None and measured > 20
        kept = bytearray(120 << 20)
        kept[:: 1 << 12] = b"x" * len(kept[:: 1 << 12])
        grown = notebooks.peak_memory_mb()
        assert grown is not None and grown > 110


@pytest.fixture
def extra():
    pytest.importorskip("papermill", reason="papermill is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")


SHOW = """import os, sys
from tpo_lab.notebooks import emit
emit(out, count=count, python=sys.executable, cwd=os.getcwd(), asked=os.environ["ASKED"])
"""
WAIT = """import os, signal, time
from pathlib import Path
signal.signal(signal.SIGINT, handler)
(Path(out) / "pid").write_text(str(os.getpid()))
try:
    time.sleep(300)
except KeyboardInterrupt:
    (Path(out) / "saved").touch()
    raise
"""


class TestDriver:
    def test_it_runs_in_this_interpreter_and_reads_the_result_back(self, tmp_path: Path, extra: None):
        notebook = write(tmp_path / "n.ipynb", SHOW)
        progress: list[tuple[int, int]] = []
        polls: list[float] = []
        folder = tmp_path / "with {braces}"
        done = notebooks.execute(
            notebook,
            folder / "n.ipynb",
            {"count": 7, "out": str(folder)},
            env={"ASKED": "yes"},
            on_cell=lambda cell, total: progress.append((cell, total)),
            on_poll=lambda: polls.append(time.monotonic()),
        )
        assert (done.result["count"], done.result["cwd"], done.result["asked"]) == (7, str(folder), "yes")
        assert Path(done.result["python"]).samefile(sys.executable)
        assert json.loads((folder / "result.json").read_text())["count"] == 7
        # papermill adds the cell with the injected parameters
        assert progress == [(1, 3), (2, 3), (3, 3)] and polls
        assert done.parameters == {"count": 7, "out": str(folder)} and done.seconds > 0
        assert [path.name for path in folder.iterdir() if path.name == "kernel.log"] == []

    def test_a_failed_cell_is_named_and_its_notebook_kept(self, tmp_path: Path, extra: None):
        notebook = write(tmp_path / "n.ipynb", "raise ValueError(f'boom at {count}')")
        with pytest.raises(TPOError, match=r"notebook n.ipynb: a cell failed with ValueError: boom at 5"):
            notebooks.execute(notebook, tmp_path / "done" / "n.ipynb", {"count": 5})
        assert "boom at 5" in (tmp_path / "done" / "n.ipynb").read_text()

    def test_a_notebook_that_shows_no_result_is_an_error(self, tmp_path: Path, extra: None):
        with pytest.raises(TPOError, match=r"expected an output of type application/vnd.tpo.result\+json"):
            notebooks.execute(write(tmp_path / "n.ipynb", "1 + 1"), tmp_path / "done.ipynb", {})

    def test_wrong_parameters_start_no_kernel(self, tmp_path: Path, extra: None):
        with pytest.raises(UsageError, match=r"count: expected int, got 1\.5"):
            notebooks.execute(write(tmp_path / "n.ipynb", SHOW), tmp_path / "done.ipynb", {"count": 1.5})
        assert not (tmp_path / "done.ipynb").exists()

    @pytest.mark.parametrize("stubborn", [False, True])
    def test_an_interrupt_lets_the_kernel_save_and_leaves_none_behind(
        self, tmp_path: Path, extra: None, monkeypatch: pytest.MonkeyPatch, stubborn: bool
    ):
        monkeypatch.setattr(execution, "GRACE_SEC", 1.0 if stubborn else 30.0)
        handler = "signal.SIG_IGN" if stubborn else "signal.default_int_handler"
        notebook = write(tmp_path / "n.ipynb", WAIT.replace("handler", handler))

        def press_control_c() -> None:
            while not (tmp_path / "pid").exists():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=press_control_c, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            notebooks.execute(notebook, tmp_path / "done.ipynb", {"out": str(tmp_path)})
        assert (tmp_path / "saved").exists() is not stubborn
        assert is_gone(int((tmp_path / "pid").read_text()))

    def test_missing_parts_name_their_extra(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(execution, "find_spec", lambda name: None if name == "ipykernel" else object())
        with pytest.raises(MissingExtraError, match=r"'ipykernel'.*pip install 'tpo-lab\[demo\]'"):
            notebooks.execute(write(tmp_path / "n.ipynb"), tmp_path / "done.ipynb", {})


def is_gone(pid: int, patience_sec: float = 20.0) -> bool:
    """Whether a process has ended; one that nobody has waited for yet counts."""
    until = time.monotonic() + patience_sec
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        status = Path(f"/proc/{pid}/stat")
        if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


class TestTour:
    def test_it_runs_and_shows_pictures_and_charts(self, tmp_path: Path, extra: None):
        from tpo_lab.demo import world_data

        data = world_data(tmp_path / "data", sizes={"train": 80, "val": 30})
        values = {"data": str(data), "out": str(tmp_path / "tour"), "eval_samples": 12, "threads": 1}
        run = notebooks.execute(FOLDER / "00_tour.ipynb", tmp_path / "tour" / "00_tour.ipynb", values)
        assert run.result["notebook"] == "00_tour"
        shown = json.loads(run.path.read_text(encoding="utf-8"))["cells"]
        kinds = {kind for cell in shown for output in cell.get("outputs", []) for kind in output.get("data", {})}
        assert {"image/png", "image/svg+xml"} <= kinds
