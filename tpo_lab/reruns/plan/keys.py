"""The key of a job: a hash of everything that its result depends on, so that a finished run is never taken for another one.

In it: the notebook's cells, the injected values, the code of TPO Lab, the content of inputs, and the key of the job before.
Not in it: where things lie, outputs and execution counts in the notebook, the sweep's name, limits, other packages' versions.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tpo_lab._version import __version__

EXACT_BYTES = 64 << 20
"""Files up to this size are hashed by content; larger ones by size and time of change."""
PATH_PARAMETERS = ("data", "checkpoint", "recipe_name")
"""Parameters whose value may be a path; what lies there is an input."""
_DIGITS = 16
_SOURCES = (".py", ".json", ".yaml")
# notebooks and weights lie inside the package only in a wheel
_SHIPPED = ("_notebooks", "_data")
_WEIGHTS = ("nano", "nano-sam2", "nano-tpo")
_on_disk: dict[str, Any] = {"state": None, "version": ""}


class Contents:
    """Hashes of notebooks, files and folders. Each is read once in the life of this object."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, Path], str] = {}

    def notebook(self, path: Path) -> str:
        """Of a notebook's cells: kind, source and tags. Outputs, execution counts, identifiers and metadata do not matter."""
        return self._once("notebook", path, _notebook_digest)

    def input(self, path: Path) -> str:
        """Of a file or of everything in a folder, with names relative to it.

        Files up to `EXACT_BYTES` count by their content, larger ones by size and time of change: a copy of such a file counts as new.
        """
        return self._once("input", path, _input_digest)

    def _once(self, kind: str, path: Path, digest: Any) -> str:
        place = (kind, path)
        if place not in self._found:
            self._found[place] = digest(path)
        return self._found[place]


def key_of(
    notebook: Path,
    values: Mapping[str, Any],
    *,
    inputs: Mapping[str, Path] | None = None,
    takes: Mapping[str, str] | None = None,
    before: str | None = None,
    contents: Contents | None = None,
) -> str:
    """The key of one run of a notebook: 16 hex digits of a SHA-256.

    Args:
        notebook: the notebook that runs.
        values: the injected parameters, as written: paths in them as the sweep file has them, so that a moved sweep keeps its keys.
        inputs: files and folders that the result depends on, by the name under which the sweep has them.
        takes: parameter -> field of the record of the job before.
        before: key of the job before.
        contents: shared between calls so that each file is read once.
    """
    contents = contents or Contents()
    parts = {
        "notebook": contents.notebook(notebook),
        "values": values,
        "code": code_version(),
        "inputs": {name: contents.input(path) for name, path in (inputs or {}).items()},
        "takes": dict(takes or {}),
        "before": before,
    }
    return _sha(json.dumps(parts, sort_keys=True).encode())[:_DIGITS]


@functools.cache
def code_version() -> str:
    """The hash of the code that runs: version, every .py, .json and .yaml of the package, and the shipped weights."""
    from tpo_lab.backbones import shipped

    package = _package()
    sources = (path for path in _files(package) if path.suffix in _SOURCES and path.relative_to(package).parts[0] not in _SHIPPED)
    parts = [__version__, *(f"{path.relative_to(package).as_posix()} {_file_digest(path)}" for path in sources)]
    parts += [f"{name} {_input_digest(shipped(name))}" for name in _WEIGHTS]
    return _sha("\n".join(parts).encode())


def code_version_on_disk() -> str:
    """`code_version` of what lies on disk now; hashed again only where a file has changed."""
    sources = (path for path in _package().rglob("*") if path.suffix in _SOURCES)
    state = sorted((str(path), stat.st_mtime_ns, stat.st_size) for path in sources for stat in [path.stat()])
    if state != _on_disk["state"]:
        _on_disk.update(state=state, version=code_version.__wrapped__())
    return str(_on_disk["version"])


def _package() -> Path:
    return Path(__file__).resolve().parents[2]


def _notebook_digest(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return _sha(json.dumps([(cell["cell_type"], "".join(cell["source"]), _tags(cell)) for cell in cells]).encode())


def _tags(cell: Mapping[str, Any]) -> list[str]:
    return sorted(cell.get("metadata", {}).get("tags", ()))


def _input_digest(path: Path) -> str:
    if not path.is_dir():
        return _file_digest(path)
    return _sha(json.dumps([(file.relative_to(path).as_posix(), _file_digest(file)) for file in _files(path)]).encode())


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in one order everywhere; links to folders are followed, each folder once."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = sorted(set(folders) - {"__pycache__", ".ipynb_checkpoints", ".git"}) if real not in seen else []
        if real not in seen:
            yield from (Path(root) / name for name in sorted(names))
        seen.add(real)


def _file_digest(path: Path) -> str:
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            return "no file"  # reading a pipe would wait for ever
        if state.st_size > EXACT_BYTES:
            return f"{state.st_size} bytes of {state.st_mtime_ns}"
        return _sha(path.read_bytes())
    except FileNotFoundError:  # a link that leads nowhere
        return "nothing"


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
