"""Notebooks as programs: typed parameters, a run by papermill in a kernel of this very interpreter, and a result record read back.

Not here: what the notebooks teach (the folder `notebooks`), and sweeps over many of them.
"""

from __future__ import annotations

import ast
import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tokenize
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tpo_lab.errors import MissingExtraError, TPOError, UsageError, unknown_name
from tpo_lab.runs import write_json

RESULT = "application/vnd.tpo.result+json"
"""The type under which the last cell of a notebook shows its result."""
SCHEMA = "tpo_lab.result/1"
POLL_SEC = 0.25
GRACE_SEC = 30.0
"""How long an interrupted kernel may take to save its state before it is killed."""
_TYPES: Mapping[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (float, int), "bool": (bool,)}
_ENGINE = "tpo-lab"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook: name, type ("str", "int", "float" or "bool"), default, and the comment behind it."""

    name: str
    type: str
    default: Any
    help: str


@dataclass(frozen=True)
class NotebookRun:
    """An executed notebook: where it is, with which parameters it ran, the result that it showed, and wall seconds."""

    path: Path
    parameters: dict[str, Any]
    result: dict[str, Any]
    seconds: float


def available() -> dict[str, Path]:
    """The shipped notebooks by name, in reading order."""
    from tpo_lab.backbones import shipped

    return {path.stem: path for path in sorted(shipped("notebooks").glob("*.ipynb"))}


def find(name: str) -> Path:
    """A shipped notebook by its name.

    Raises:
        UsageError: there is no such notebook.
    """
    found = available()
    if name not in found:
        raise unknown_name("notebook", name, found)
    return found[name]


def parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook, read from the cell tagged `parameters` without running anything.

    Raises:
        UsageError: there is no such cell, or one of its lines is not `name: type = value` of a type in str, int, float, bool.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    source = next(("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", ())), None)
    if source is None:
        raise UsageError(f"notebook {notebook.name}", expected="a cell tagged 'parameters'", got="none")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    for node in ast.parse(source).body:
        if not (
            isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value and ast.unparse(node.annotation) in _TYPES
        ):
            expected = f"name: type = value, the type one of {', '.join(_TYPES)}"
            raise UsageError(f"notebook {notebook.name}: parameters", expected=expected, got=ast.unparse(node))
        name = node.target.id
        found[name] = Parameter(name, ast.unparse(node.annotation), ast.literal_eval(node.value), comments.get(node.lineno, ""))
    return found


def checked(notebook: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, where each names a parameter of the notebook and has its type.

    Raises:
        UsageError: an unknown name (papermill would only log it), or a value of another type (papermill would pass it on).
    """
    known = parameters(notebook)
    for name, value in values.items():
        if name not in known:
            raise unknown_name(f"notebook {notebook.name}: parameter", name, known)
        kind = known[name].type
        if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
            raise UsageError(f"notebook {notebook.name}: {name}", expected=kind, got=value)
    return dict(values)


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
        kernel = _Kernel(Path(folder), executed.parent, {**(env or {}), "IPYTHONDIR": folder})
        job = _Job(functools.partial(_papermill, notebook, executed, chosen, kernel, on_cell))
        job.start()
        try:
            while job.is_alive():
                job.join(POLL_SEC)
                if on_poll is not None:
                    on_poll()
        except BaseException:
            kernel.stop(job)
            raise
    if job.error is not None:
        raise TPOError(_explained(job.error, notebook, executed)) from job.error
    return NotebookRun(executed, chosen, read_result(executed), time.monotonic() - began)


def read_result(executed: Path) -> dict[str, Any]:
    """The result that an executed notebook shows.

    Raises:
        TPOError: it shows none.
    """
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    shown = [output["data"][RESULT] for cell in cells for output in cell.get("outputs", ()) if RESULT in output.get("data", ())]
    if not shown:
        raise TPOError(f"notebook {executed}: expected an output of type {RESULT}, got none.")
    result: dict[str, Any] = shown[-1]
    return result


def emit(out: Path | str, result: Mapping[str, Any]) -> None:
    """In the last cell of a notebook: show its result, and write it to `out/result.json`, the mark that the notebook is done."""
    from IPython.display import display

    record = {"schema": SCHEMA, **result, "peak_memory_mb": peak_memory_mb()}
    display({RESULT: record, "text/plain": json.dumps(record, indent=2)}, raw=True)  # type: ignore[no-untyped-call]
    write_json(Path(out) / "result.json", record)


def open_run(out: Path | str) -> Path:
    """The folder `out/run` for the training of a notebook that runs with `tpo.fit(..., resume=True)`.

    Where the notebook was finished, its run is thrown away and training starts anew; where it was interrupted, training goes on.
    """
    folder, mark = Path(out) / "run", Path(out) / "result.json"
    if mark.exists():
        shutil.rmtree(folder, ignore_errors=True)
        mark.unlink()
    return folder


def progress_line(every_sec: float = 1.0) -> Callable[[str, int, int, Any], None]:
    """A listener for `tpo.fit`: one line of output that is written anew, with the step and the loss of each part."""
    from IPython.display import display

    shown: dict[str, Any] = {"at": 0.0, "handle": {}}

    def listen(stage: str, step: int, total: int, report: Any) -> None:
        if step < total and time.monotonic() - shown["at"] < every_sec:
            return
        shown["at"] = time.monotonic()
        losses = "  ".join(f"{name} {value:.3f}" for name, value in report.floats().items())
        line = {"text/plain": f"stage {stage}  step {step}/{total}  {losses}"}
        handles = shown["handle"]
        if stage in handles:
            handles[stage].update(line, raw=True)
        else:
            handles[stage] = display(line, raw=True, display_id=True)  # type: ignore[no-untyped-call]

    return listen


def peak_memory_mb() -> float | None:
    """The most memory that this process has held, in MiB; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        return None if line is None else int(line.split()[1]) / 1024
    if find_spec("resource") is None:
        return None
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (1024 * 1024 if sys.platform == "darwin" else 1024)


@dataclass
class _Kernel:
    """Where the kernel of a run starts, and a handle on its process once it has."""

    folder: Path
    cwd: Path
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
                await super().start_kernel(**{**options, "cwd": str(run.cwd), "env": run.environment()})

        return OwnInterpreter

    def environment(self) -> dict[str, str]:
        """The kernel imports the same tpo_lab, installed or not."""
        package = str(Path(__file__).resolve().parents[1])
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
            job.join(GRACE_SEC)
        finally:
            for process in self.processes():
                process.kill()
            job.join(POLL_SEC * 20)


class _Job(threading.Thread):
    """A call in a thread of its own, so that the main thread stays free for Ctrl-C and for progress."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.call()
        except BaseException as error:
            self.error = error


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


def _explained(error: BaseException, notebook: Path, executed: Path) -> str:
    if type(error).__name__ == "PapermillExecutionError":
        name, value = getattr(error, "ename", ""), getattr(error, "evalue", "")
        return f"notebook {notebook.name}: a cell failed with {name}: {value}. It is marked in {executed}."
    return f"notebook {notebook.name}: {type(error).__name__}: {error}. What ran until then is in {executed}."
