"""A JupyterLab of its own for the browser tests: its settings, its files and its kernels are gone when the tests are."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
# No news pop-up, no saving behind one's back, every cell in the page, and the state of widgets in the saved file.
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": True},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}
READY = """() => {
  const shown = window.jupyterapp && window.jupyterapp.shell.currentWidget;
  const kernel = shown && shown.context && shown.context.isReady && shown.context.sessionContext.session
    && shown.context.sessionContext.session.kernel;
  return !!kernel && kernel.status === 'idle';
}"""
PATIENCE_MS = 120_000


@dataclass(frozen=True)
class Lab:
    """A running server.

    Attributes:
        url: where it listens.
        token: what opens it.
        root: the folder that it shows.
    """

    url: str
    token: str
    root: Path

    def write(self, name: str, cells: Sequence[str]) -> Path:
        """A notebook of code cells."""
        path = self.root / name
        path.write_text(notebook_of(cells))
        return path

    def open(self, page: Any, name: str) -> None:
        """Shows a notebook and waits for its kernel."""
        page.goto(f"{self.url}/lab/tree/{name}?token={self.token}&reset", wait_until="domcontentloaded")
        page.wait_for_function(READY, timeout=PATIENCE_MS)

    def run(self, page: Any) -> None:
        """Runs all cells; none may fail."""
        done = page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        assert done is not False, page.locator(".jp-OutputArea-output").all_inner_texts()

    def save(self, page: Any) -> None:
        """Saves the notebook, with the state of its widgets."""
        page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")


def read_when(path: Path, true: Any, patience_sec: float = 60.0) -> Any:
    """The JSON of a file that a kernel writes, once something holds of it."""
    end = time.monotonic() + patience_sec
    found = None
    while time.monotonic() < end:
        try:
            found = json.loads(path.read_text())
            if true(found):
                return found
        except (OSError, json.JSONDecodeError):
            pass  # not written yet, or half of it
        time.sleep(0.05)
    raise AssertionError(f"{path.name} did not become what was expected: {found}")


def notebook_of(cells: Sequence[str]) -> str:
    """A notebook of code cells, as text."""
    made = [
        {"cell_type": "code", "id": f"c{number}", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
        for number, source in enumerate(cells)
    ]
    return json.dumps({"cells": made, "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5})


@contextmanager
def running(folder: Path) -> Iterator[Lab]:
    """A server whose settings, data and files lie in a folder; it ends with the block, and its kernels with it."""
    root = folder / "lab"
    root.mkdir(parents=True)
    environment = _environment(folder / "home")
    port, token = _free_port(), secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}"]
    command += ["--KernelManager.transport=ipc", "--expose-app-in-browser"]
    url = f"http://127.0.0.1:{port}"
    with _started(command, environment, folder / "lab.log", f"{url}/api/status?token={token}") as process:
        yield Lab(url, token, root)
        urllib.request.urlopen(urllib.request.Request(f"{url}/api/shutdown?token={token}", method="POST"), timeout=10).close()
        process.wait(20)


@contextmanager
def voila(folder: Path, cells: Sequence[str]) -> Iterator[str]:
    """Voila, which shows a notebook of these cells as a page; gives its address."""
    folder.mkdir(parents=True)
    (folder / "page.ipynb").write_text(notebook_of(cells))
    port = _free_port()
    command = [sys.executable, "-m", "voila", str(folder / "page.ipynb"), "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"]
    url = f"http://127.0.0.1:{port}/"
    with _started(command, _environment(folder / "home"), folder / "voila.log", f"{url}static/voila.js"):
        yield url


@contextmanager
def _started(command: Sequence[str], environment: Mapping[str, str], log: Path, status: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server, once it answers; it has gone when the block ends, and its kernels with it."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        _wait(process, status, log)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(home: Path) -> dict[str, str]:
    """Every folder that Jupyter writes to, in one of our own."""
    for name in ("cfg/labconfig", "data", "run", "ws", "settings", "ipython"):
        (home / name).mkdir(parents=True)
    (home / "cfg/labconfig/default_setting_overrides.json").write_text(json.dumps(SETTINGS))
    return {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(home / "cfg"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "run"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "ws"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "widgets")]),
    }


def _wait(process: subprocess.Popen[bytes], status: str, log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(status, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    process.kill()
    raise AssertionError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
