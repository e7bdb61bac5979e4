"""What the cells of a notebook call: where its training goes, a line of progress, and the result that its last cell shows."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tpo_lab.errors import TPOError
from tpo_lab.runs import write_json

RESULT = "application/vnd.tpo.result+json"
"""The type under which the last cell of a notebook shows its result."""
SCHEMA = "tpo_lab.result/1"
JOB = "TPO_JOB_KEY"
"""Environment variable: the key of the job that a notebook runs for; its result carries it, so that no older one passes for it."""


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


def emit(out: Path | str, **result: Any) -> None:
    """In the last cell of a notebook: show its result, and write it to `out/result.json`, the mark that the notebook is done.

    The record holds what is given, the most memory that the kernel has held, and "job" where the notebook runs for a sweep.
    """
    from IPython.display import display

    job = {"job": os.environ[JOB]} if os.environ.get(JOB) else {}
    record = {"schema": SCHEMA, **result, **job, "peak_memory_mb": peak_memory_mb()}
    path = Path(out) / "result.json"
    figures = "".join(f"\n  {name}: {value:.3f}" for name, value in dict(result.get("headline", {})).items())
    display({RESULT: record, "text/plain": f"Written to {path}{figures}"}, raw=True)  # type: ignore[no-untyped-call]
    write_json(path, record)


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
