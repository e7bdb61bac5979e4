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
from collections.abc import Callable, Mapping, Sequence
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
_KERNEL = Path(__file__).with_name("kernel.py")
_ENGINE = "tpo-lab"
# nbclient gives up after 4 s without a word from the kernel, which a busy machine needs now and then.
_QUIET_SEC = 120


@dataclass(frozen=True)
class NotebookRun:
    """An executed notebook: where it is, with which parameters it ran, the result that it showed, and wall seconds."""

    path: Path
    parameters: dict[str, Any]
    result: dict[str, Any]
    seconds: float


class NotebookError(TPOError):
    """A notebook that did not run to its end.

    Attributes:
        cell: number of the cell in the executed notebook, from 1 as `on_cell` counts them; 0 where none had begun.
        kind: class name of the error.
        reason: its message.
    """

    def __init__(self, message: str, *, cell: int, kind: str, reason: str) -> None:
        super().__init__(message)
        self.cell, self.kind, self.reason = cell, kind, reason


class RunStopped(TPOError):
    """What an `on_poll` raises to stop a run: no further cell begins, the kernel is interrupted, and killed after `grace_sec`.

    Attributes:
        state: one word for why, such as "interrupted", "memory" or "time".
        grace_sec: how long the kernel may take to save its state.
    """

    def __init__(self, state: str, message: str, *, grace_sec: float | None = None) -> None:
        super().__init__(message)
        self.state, self.grace_sec = state, GRACE_SEC if grace_sec is None else grace_sec


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
    log: Path | None = None,
    pass_fds: Sequence[int] = (),
    on_kernel: Callable[[int], None] | None = None,
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
        log: a file that keeps what the kernel itself prints; where None, one that is kept only where the run fails.
        pass_fds: open files that the kernel inherits, such as a lock that is to last as long as the kernel (POSIX only).
        on_kernel: called with the process id of the kernel when it has started, from another thread.
        on_cell: called with the number of finished cells and of all cells, from another thread.
        on_poll: called a few times a second while the notebook runs; what it raises stops the run, see `RunStopped`.

    Raises:
        UsageError: parameters that the notebook does not take.
        MissingExtraError: papermill or ipykernel is not installed.
        NotebookError: a cell failed, or the kernel died.
        TPOError: the notebook showed no result.
        KeyboardInterrupt: after Ctrl-C.
    """
    require_extra()
    chosen = checked(notebook, values)
    executed.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    # Sockets of the kernel lie in a folder of their own: paths of sockets may have about a hundred characters only.
    with tempfile.TemporaryDirectory(prefix="tpo-") as folder:
        output = log or executed.with_name("kernel.log")
        kernel = _Kernel(Path(folder), output, {**(env or {}), "IPYTHONDIR": folder}, executed.parent, tuple(pass_fds), on_kernel)
        cells = _Cells(on_cell)
        job = _Job(functools.partial(_papermill, notebook, executed, chosen, kernel, cells))
        job.start()
        try:
            while not job.finished.wait(POLL_SEC):
                if on_poll is not None:
                    on_poll()
        except BaseException as error:
            cells.stopped.set()
            kernel.stop(job, error.grace_sec if isinstance(error, RunStopped) else GRACE_SEC)
            raise
    if job.error is not None:
        raise _explained(job.error, notebook, executed, kernel.log, cells) from job.error
    if log is None:
        kernel.log.unlink(missing_ok=True)
    return NotebookRun(executed, chosen, read_result(executed), time.monotonic() - began)


@dataclass
class _Kernel:
    """Where the kernel of a run starts, and a handle on its process once it has.

    Attributes:
        folder: for its sockets and its profile.
        log: where its own output goes.
        env: environment variables beside those of this process.
        cwd: where it works.
        pass_fds: open files that it inherits.
        on_start: called with its process id.
        managers: the kernel managers that were made.
    """

    folder: Path
    log: Path
    env: Mapping[str, str]
    cwd: Path
    pass_fds: tuple[int, ...] = ()
    on_start: Callable[[int], None] | None = None
    managers: list[Any] = field(default_factory=list)

    def manager_class(self) -> type[Any]:
        """A kernel manager that starts `sys.executable`, so that no kernel of another environment is found by its name."""
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import AsyncKernelManager

        run = self

        class OwnInterpreter(AsyncKernelManager):
            @property
            def kernel_spec(self) -> KernelSpec:
                argv = [sys.executable, str(_KERNEL), "-f", "{connection_file}"]
                return KernelSpec(argv=argv, display_name="Python 3", language="python")

            async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
                self.connection_file = str(run.folder / "kernel.json")
                if os.name == "posix":
                    self.transport = "ipc"
                run.managers.append(self)
                # What a dying kernel says must not run into the progress bar; where it died, it is wanted.
                with run.log.open("ab") as log:
                    own = {"cwd": str(run.cwd), "env": run.environment(), "stdout": log, "stderr": log, **run.inherited()}
                    await super().start_kernel(**{**options, **own})
                if run.on_start is not None:
                    run.on_start(self.provisioner.process.pid)  # type: ignore[union-attr]

        return OwnInterpreter

    def inherited(self) -> dict[str, Any]:
        """What Popen gets beside the usual; Windows knows no inheritance of files by number."""
        return {"pass_fds": self.pass_fds} if self.pass_fds and os.name == "posix" else {}

    def environment(self) -> dict[str, str]:
        """The kernel imports the same tpo_lab, installed or not."""
        package = str(Path(__file__).resolve().parents[2])
        paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        return {**os.environ, **self.env, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}

    def processes(self) -> list[subprocess.Popen[bytes]]:
        """The kernel's process while it lives."""
        found = (getattr(manager.provisioner, "process", None) for manager in self.managers)
        return [process for process in found if process is not None and process.poll() is None]

    def stop(self, job: _Job, grace_sec: float) -> None:
        """Interrupt the kernel and wait until its notebook is written; kill it after `grace_sec`, or at a second Ctrl-C."""
        try:
            for process in self.processes() if grace_sec > 0 else ():
                process.send_signal(signal.SIGINT)
            job.finished.wait(grace_sec)
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


@dataclass
class _Cells:
    """Counts the cells of one run, and lets none begin after it was stopped: an idle kernel takes no notice of an interrupt.

    Attributes:
        on_cell: called with the number of finished cells and of all cells.
        begun: the number of the cell that runs or ran last, from 1.
        stopped: set to let no further cell begin.
    """

    on_cell: Callable[[int, int], None] | None
    begun: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def watch(self, nb_man: Any) -> None:
        """Stand between papermill's manager of a notebook and its cells."""
        start, finish, total = nb_man.cell_start, nb_man.cell_complete, len(nb_man.nb.cells)

        def counted_start(cell: Any, cell_index: int | None = None, **more: Any) -> None:
            if self.stopped.is_set():
                raise RunStopped("interrupted", "The run was stopped between two cells.")
            self.begun = (cell_index or 0) + 1
            start(cell, cell_index=cell_index, **more)

        def counted_finish(cell: Any, cell_index: int | None = None, **more: Any) -> None:
            finish(cell, cell_index=cell_index, **more)
            if self.on_cell is not None and cell_index is not None:
                self.on_cell(cell_index + 1, total)

        nb_man.cell_start, nb_man.cell_complete = counted_start, counted_finish


def _papermill(notebook: Path, executed: Path, values: dict[str, Any], kernel: _Kernel, cells: _Cells) -> None:
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
        iopub_timeout=_QUIET_SEC,
        start_timeout=_QUIET_SEC,
        cells=cells,
    )


@functools.cache
def _register_engine() -> None:
    """papermill has no callback per cell: an engine of our own counts them."""
    from papermill.engines import NBClientEngine, papermill_engines

    class CountingEngine(NBClientEngine):  # type: ignore[misc]
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, *, cells: _Cells, **options: Any) -> Any:
            cells.watch(nb_man)
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register(_ENGINE, CountingEngine)


def _explained(error: BaseException, notebook: Path, executed: Path, log: Path, cells: _Cells) -> NotebookError:
    if type(error).__name__ == "PapermillExecutionError":
        # papermill counts from 0, and before it puts its own two cells into the executed notebook
        cell, name, value = (getattr(error, attribute) for attribute in ("cell_index", "ename", "evalue"))
        message = f"notebook {notebook.name}: a cell failed with {name}: {value}. It is marked in {executed}."
        return NotebookError(message, cell=cell + 1, kind=name, reason=value)
    name = type(error).__name__
    message = f"notebook {notebook.name}: {name}: {error}. What ran until then is in {executed}, what the kernel said in {log}."
    return NotebookError(message, cell=cells.begun, kind=name, reason=str(error))
