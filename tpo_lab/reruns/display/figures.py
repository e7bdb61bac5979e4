"""The pictures of a run as files: those that its notebook wrote, and those that are shown in it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

_KINDS = {"image/png": ".png", "image/jpeg": ".jpg", "image/svg+xml": ".svg"}
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".svg", ".gif", ".pdf"})
FOLDER = "figures"


def figures_of(folder: Path) -> list[Path]:
    """The pictures of a run, sorted; what its executed notebook shows is first written to `folder/figures`, where it is not there yet.

    Args:
        folder: of the run; its folder `run`, where training writes, is left out.
    """
    executed = folder / "executed.ipynb"
    if executed.exists():
        _write_shown(executed, folder / FOLDER)
    found = (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    return sorted(path for path in found if path.relative_to(folder).parts[0] != "run")


def _write_shown(executed: Path, into: Path) -> None:
    for name, content in _shown(executed):
        path = into / name
        if not path.exists() or path.stat().st_mtime < executed.stat().st_mtime:
            into.mkdir(exist_ok=True)
            path.write_bytes(content)


def _shown(executed: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each picture, by the place of its cell; none from a notebook that is only half written."""
    try:
        cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError):
        return
    for place, cell in enumerate(cells):
        outputs = [output.get("data", {}) for output in cell.get("outputs", ())]
        shown = [(kind, data[kind]) for data in outputs for kind in _KINDS if kind in data]
        for number, (kind, content) in enumerate(shown, 1):
            text = content if isinstance(content, str) else "".join(content)
            picture = text.encode() if kind == "image/svg+xml" else base64.b64decode(text)
            yield f"cell-{place:02d}-{number}{_KINDS[kind]}", picture
