"""The rooms of `tpo_lab.reruns` depend in one direction. Read from the sources, imports inside functions and for types included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tpo_lab import reruns

ROOT = Path(reruns.__file__).parent
MAY_IMPORT = {
    "plan": set(),
    "disk": {"plan"},
    "workers": {"plan", "disk"},
    "running": {"plan", "disk", "workers"},
    "results": {"plan", "disk"},
    "display": {"results"},
}


def rooms_in(source: str) -> set[str]:
    """The rooms that a source imports from; "" stands for the package itself, whose names lie in all rooms."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom | ast.Import)]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    parts = [module.split(".") for module in modules if module.startswith("tpo_lab.reruns")]
    return {(each[2] if len(each) > 2 and each[2] in MAY_IMPORT else "") for each in parts}


def test_the_reader_sees_every_import():
    source = """
import tpo_lab.reruns.plan.job, tpo_lab.runs
from tpo_lab.reruns.disk import store
if TYPE_CHECKING:
    from tpo_lab.reruns.results.collected import Run
def inside():
    from tpo_lab.reruns.display.cells import cell
"""
    assert rooms_in(source) == {"plan", "disk", "results", "display"}
    assert rooms_in("from tpo_lab.reruns import Store") == rooms_in("from tpo_lab import reruns") == {""}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_from_the_rooms_before_it_only(room: str):
    modules = sorted((ROOT / room).glob("*.py"))
    assert len(modules) > 2
    for module in modules:
        assert rooms_in(module.read_text()) <= MAY_IMPORT[room] | {room}, module.name


def test_every_module_lies_in_a_room():
    assert {path.name for path in ROOT.iterdir() if path.name != "__pycache__"} == {"__init__.py", *MAY_IMPORT}
    assert {path.parent.name for path in ROOT.glob("*/*.py")} == set(MAY_IMPORT)
