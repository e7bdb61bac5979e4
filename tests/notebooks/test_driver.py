"""The driver that runs notebooks: declared parameters, what cells call, kernels, failures and interrupts."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tpo_lab import notebooks
from tpo_lab.errors import MissingExtraError, TPOError, UsageError
from tpo_lab.notebooks import execution

FOLDER = Path(__file__).parents[2] / "notebooks" / "solutions"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


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


class TestKernel:
    def test_the_control_thread_ends_before_what_carries_its_words(self, monkeypatch: pytest.MonkeyPatch):
        from ipykernel.kernelapp import IPKernelApp

        from tpo_lab.notebooks.kernel import KernelApp

        order: list[str] = []

        class Control:
            def is_alive(self) -> bool:
                return "join" not in order

            def stop(self) -> None:
                order.append("stop")

            def join(self) -> None:
                order.append("join")

        monkeypatch.setattr(IPKernelApp, "close", lambda app: order.append("all else"))
        app = KernelApp()
        app.control_thread = Control()
        app.close()
        assert order == ["stop", "join", "all else"]

    @pytest.mark.skipif(sys.platform == "win32", reason="kernels end otherwise there")
    def test_kernels_end_by_themselves_and_imports_are_those_of_the_notebook(self, tmp_path: Path, extra: None):
        notebook = write(
            tmp_path / "n.ipynb",
            "import atexit, sys, pathlib\natexit.register(lambda: pathlib.Path('ended').write_text('x'))",
            "assert not any(folder.endswith('tpo_lab/notebooks') for folder in sys.path)",
            "from tpo_lab.notebooks import emit\nemit(out, notebook='n', headline={})",
        )
        for number in range(4):
            run = notebooks.execute(notebook, tmp_path / str(number) / "n.ipynb", {"out": str(tmp_path / str(number))})
            assert (run.path.parent / "ended").exists()
