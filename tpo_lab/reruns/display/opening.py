"""Opening an executed notebook: in JupyterLab where that is installed, else as a web page."""

from __future__ import annotations

import subprocess
import sys
import webbrowser
from importlib.util import find_spec
from pathlib import Path

from tpo_lab.errors import MissingExtraError, TPOError


def open_notebook(executed: Path) -> str:
    """Show an executed notebook to the person at the machine. JupyterLab runs until it is closed or Ctrl-C is pressed.

    Returns:
        What was opened.

    Raises:
        TPOError: there is no such file, or JupyterLab failed.
        MissingExtraError: neither jupyterlab nor nbconvert is installed.
    """
    if not executed.exists():
        raise TPOError(f"{executed}: the run has not been executed yet.")
    if find_spec("jupyterlab") is not None:
        status = subprocess.run([sys.executable, "-m", "jupyterlab", str(executed)], check=False).returncode
        if status:
            raise TPOError(f"JupyterLab ended with status {status}. The notebook is {executed}.")
        return str(executed)
    if find_spec("nbconvert") is None:
        raise MissingExtraError("jupyterlab", "notebooks", "Opening a notebook")
    page = as_page(executed)
    webbrowser.open(page.resolve().as_uri())
    return str(page)


def as_page(executed: Path) -> Path:
    """The notebook as an HTML file beside it."""
    from nbconvert import HTMLExporter

    page = executed.with_suffix(".html")
    body, _ = HTMLExporter(template_name="lab").from_filename(str(executed))  # type: ignore[no-untyped-call]
    page.write_text(body, encoding="utf-8")
    return page
