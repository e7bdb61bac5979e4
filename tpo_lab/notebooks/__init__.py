"""Notebooks as programs: typed parameters, a run by papermill in a kernel of this very interpreter, and a result record read back.

Not here: what the notebooks teach (the folder `notebooks`), and sweeps over many of them.
"""

from __future__ import annotations

from tpo_lab.notebooks.cells import RESULT, emit, open_run, peak_memory_mb, progress_line, read_result
from tpo_lab.notebooks.declared import Parameter, available, checked, find, parameters
from tpo_lab.notebooks.execution import NotebookRun, execute, require_extra
from tpo_lab.notebooks.start import start, world

__all__ = [
    "RESULT",
    "NotebookRun",
    "Parameter",
    "available",
    "checked",
    "emit",
    "execute",
    "find",
    "open_run",
    "parameters",
    "peak_memory_mb",
    "progress_line",
    "read_result",
    "require_extra",
    "start",
    "world",
]
