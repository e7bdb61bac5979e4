"""`tpo-lab doctor --backbone`: a sound backbone, one that is none, and options that belong together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tpo_lab.backbones.checks import CHECKS


def test_a_backbone_is_checked(call: Callable[..., Any], tiny_base: Path) -> None:
    found = call("doctor", "--backbone", tiny_base, "--frames", 3, "--json")
    assert found.status == 0
    assert (found.document["frames"], found.document["passed"], len(found.document["checks"])) == (3, True, len(CHECKS))


def test_a_check_that_fails_is_exit_status_1(call: Callable[..., Any], tiny_base: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tpo_lab.backbones.nano.NanoBackbone.parts", lambda self: {"vision": (), "connector": (), "llm": ("",)})
    found = call("doctor", "--backbone", tiny_base)
    assert found.status == 1 and "FAILS" in found.words


def test_what_is_no_backbone_is_one_sentence(call: Callable[..., Any], tmp_path: Path) -> None:
    found = call("doctor", "--backbone", tmp_path / "none")
    assert found.status == 2 and "There is no such folder." in found.err
    assert call("doctor", "--frames", 3).status == 2
