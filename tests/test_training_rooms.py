"""The rooms of `tpo_lab.training` depend in one direction; above them stand `fitting` and `loop`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rooms import rooms_in
from tpo_lab import training

PACKAGE = "tpo_lab.training"
ROOT = Path(training.__file__).parent
MAY_IMPORT: dict[str, set[str]] = {
    "rows": set(),
    "steps": set(),
    "watch": {"rows", "steps"},
    "resume": {"rows", "steps"},
    "cost": {"rows", "steps"},
}
FOR_TYPES = {"watch": {""}, "resume": {""}}
"""What they measure or save is the loop and its options."""


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_from_the_rooms_before_it_only(room: str) -> None:
    modules = sorted((ROOT / room).glob("*.py"))
    assert len(modules) > 2
    for module in modules:
        found = rooms_in(module.read_text(), PACKAGE, MAY_IMPORT)
        assert found <= MAY_IMPORT[room] | {room} | FOR_TYPES.get(room, set()), module.name


def test_few_modules_stand_above_the_rooms() -> None:
    above = {path.stem for path in ROOT.glob("*.py")}
    assert above == {"__init__", "fitting", "loop", "options", "starts"}
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(MAY_IMPORT)
