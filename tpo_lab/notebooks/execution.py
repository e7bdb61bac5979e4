"""One run of one notebook by papermill: its kernel, its progress, and what happens when it fails or is stopped."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tpo_lab.errors import MissingExtraError, TPOError
from tpo_lab.notebooks.cells import read_result
from tpo_lab.notebooks.declared import checked

POLL_SEC = 0.25
GRACE_SEC = 30.0
"""How long an interrupted kernel may take to save its state before it is killed."""
_ENGINE = "tpo-lab"


@dataclass(frozen=True)
class NotebookRun:
    """An executed notebook: where it is, with which parameters it ran, the result that it showed, and wall seconds."""

    path: Path
    parameters: dict[str, Any]
    result: dict[str, Any]
    seconds: float


def require_extra() -> None:
    """Raise a `MissingExtraError` unless papermill and ipykernel are installed."""
    for module in ("papermill", "ipykernel"):
        if find_spec(module) is None:
            raise MissingExtraError(module, "demo", "Running notebooks")


def execute(
    notebook: Path,
    executed: Path,
    values: Mapping[str, Any],
    *,
    env: Mapping[str, str] | None = None,
    on_cell: Callable[[int, int], None] | None = None,
    on_poll: Callable[[], None] | None = None,
) -> NotebookRun:
    """Run one notebook with papermill and read back the result that its last cell shows.

    The kernel belongs to the interpreter that runs this, whatever kernels are installed; it ends with the run in every case. On
    Ctrl-C it is interrupted first, so that training saves its state, and killed if that takes longer than `GRACE_SEC`.

    Args:
        executed: where the executed notebook is written, cell by cell.
        values: parameters by name.
        env: environment variables of the kernel beside those of this process.
        on_cell: called with the number of finished cells and of all cells, from another thread.
        on_poll: called a few times a second while the notebook runs.

    Raises:
        UsageError: parameters that the notebook does not take.
        MissingExtraError: papermill or ipykernel is not installed.
        TPOError: a cell failed, the kernel died, or the notebook showed no result.
        KeyboardInterrupt: after Ctrl-C.
    """
    require_extra()
    chosen = checked(notebook, values)
    executed.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    # Sockets of the kernel lie in a folder of their own: paths of sockets may have about a hundred characters only.
    with tempfile.TemporaryDirectory(prefix="tpo-") as folder:
        kernel = _Kernel(Path(folder), executed.with_name("kernel.log"), {**(env or {}), "IPYTHONDIR": folder})
        job = _Job(functools.partial(_papermill, notebook, executed, chosen, kernel, on_cell))
        job.start()
        try:
            while not job.finished.wait(POLL_SEC):
                if on_poll is not None:
                    on_poll()
        except BaseException:
            kernel.stop(job)
            raise
    if job.error is not None:
        raise TPOError(_explained(job.error, notebook, executed, kernel.log)) from job.error
    kernel.log.unlink(missing_ok=True)
    return NotebookRun(executed, chosen, read_result(executed), time.monotonic() - began)


@dataclass
class _Kernel:
    """Where the kernel of a run starts, and a handle on its process once it has.

    Attributes:
        folder: for its sockets and its profile.
        log: where its own output goes; it works in that file's folder.
        env: environment variables beside those of this process.
        managers: the kernel managers that were made.
    """

    folder: Path
    log: Path
    env: Mapping[str, str]
    managers: list[Any] = field(default_factory=list)

    def manager_class(self) -> type[Any]:
        """A kernel manager that starts `sys.executable`, so that no kernel of another environment is found by its name."""
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import AsyncKernelManager

        run = self

        class OwnInterpreter(AsyncKernelManager):
            @property
            def kernel_spec(self) -> KernelSpec:
                argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
                return KernelSpec(argv=argv, display_name="Python 3", language="python")

            async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
                self.connection_file = str(run.folder / "kernel.json")
                if os.name == "posix":
                    self.transport = "ipc"
                run.managers.append(self)
                # What a dying kernel says must not run into the progress bar; where it died, it is wanted.
                with run.log.open("ab") as log:
                    own = {"cwd": str(run.log.parent), "env": run.environment(), "stdout": log, "stderr": log}
                    await super().start_kernel(**{**options, **own})

        return OwnInterpreter

    def environment(self) -> dict[str, str]:
        """The kernel imports the same tpo_lab, installed or not."""
        package = str(Path(__file__).resolve().parents[2])
        paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        return {**os.environ, **self.env, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}

    def processes(self) -> list[subprocess.Popen[bytes]]:
        """The kernel's process while it lives."""
        found = (getattr(manager.provisioner, "process", None) for manager in self.managers)
        return [process for process in found if process is not None and process.poll() is None]

    def stop(self, job: _Job) -> None:
        """Interrupt the kernel and wait until its notebook is written; kill it after `GRACE_SEC`, or at a second Ctrl-C."""
        try:
            for process in self.processes():
                process.send_signal(signal.SIGINT)
            job.finished.wait(GRACE_SEC)
        finally:
            for process in self.processes():
                process.kill()
            job.finished.wait(POLL_SEC * 20)


class _Job(threading.Thread):
    """A call in a thread of its own, so that the main thread stays free for Ctrl-C and for progress.

    Wait for `finished`: up to Python 3.12 a `join` that is interrupted takes the thread for ended.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.finished = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.call()
        except BaseException as error:
            self.error = error
        finally:
            self.finished.set()


def _papermill(notebook: Path, executed: Path, values: dict[str, Any], kernel: _Kernel, on_cell: Callable[[int, int], None] | None) -> None:
    import nbformat
    import papermill

    _register_engine()
    papermill.execute_notebook(
        nbformat.read(notebook, as_version=4),  # type: ignore[no-untyped-call]
        # papermill fills braces in the path with parameters
        str(executed).replace("{", "{{").replace("}", "}}"),
        parameters=values,
        engine_name=_ENGINE,
        kernel_name="python3",
        progress_bar=False,
        kernel_manager_class=kernel.manager_class(),
        on_cell=on_cell,
    )


@functools.cache
def _register_engine() -> None:
    """papermill has no callback per cell: an engine of our own counts them."""
    from papermill.engines import NBClientEngine, papermill_engines

    class CountingEngine(NBClientEngine):  # type: ignore[misc]
        @classmethod
        def execute_managed_notebook(
            cls, nb_man: Any, kernel_name: str, *, on_cell: Callable[[int, int], None] | None, **options: Any
        ) -> Any:
            finish = nb_man.cell_complete
            total = len(nb_man.nb.cells)

            def counted(cell: Any, cell_index: int | None = None, **more: Any) -> None:
                finish(cell, cell_index=cell_index, **more)
                if on_cell is not None and cell_index is not None:
                    on_cell(cell_index + 1, total)

            nb_man.cell_complete = counted
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register(_ENGINE, CountingEngine)


def _explained(error: BaseException, notebook: Path, executed: Path, log: Path) -> str:
    if type(error).__name__ == "PapermillExecutionError":
        name, value = getattr(error, "ename", ""), getattr(error, "evalue", "")
        return f"notebook {notebook.name}: a cell failed with {name}: {value}. It is marked in {executed}."
    return (
        f"notebook {notebook.name}: {type(error).__name__}: {error}. What ran until then is in {executed}, what the kernel said in {log}."
    )
