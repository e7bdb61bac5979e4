"""The rooms of `tpo_lab.reruns` depend in one direction. Read from the sources, imports inside functions and for types included."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rooms import rooms_in
from tpo_lab import reruns

PACKAGE = "tpo_lab.reruns"
ROOT = Path(reruns.__file__).parent
MAY_IMPORT = {
    "plan": set(),
    "disk": {"plan"},
    "workers": {"plan", "disk"},
    "running": {"plan", "disk", "workers"},
    "results": {"plan", "disk"},
    "display": {"results"},
}


def test_the_reader_sees_every_import():
    source = """
import tpo_lab.reruns.plan.job, tpo_lab.runs
from tpo_lab.reruns.disk import store
if TYPE_CHECKING:
    from tpo_lab.reruns.results.collected import Run
def inside():
    from tpo_lab.reruns.display.cells import cell
"""
    assert rooms_in(source, PACKAGE, MAY_IMPORT) == {"plan", "disk", "results", "display"}
    assert (
        rooms_in("from tpo_lab.reruns import Store", PACKAGE, MAY_IMPORT)
        == rooms_in("from tpo_lab import reruns", PACKAGE, MAY_IMPORT)
        == {""}
    )


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_from_the_rooms_before_it_only(room: str):
    modules = sorted((ROOT / room).glob("*.py"))
    assert len(modules) > 2
    for module in modules:
        assert rooms_in(module.read_text(), PACKAGE, MAY_IMPORT) <= MAY_IMPORT[room] | {room}, module.name


def test_every_module_lies_in_a_room():
    assert {path.name for path in ROOT.iterdir() if path.name != "__pycache__"} == {"__init__.py", *MAY_IMPORT}
    assert {path.parent.name for path in ROOT.glob("*/*.py")} == set(MAY_IMPORT)
