"""Fifty trainings that are killed at random times while they train and save: fifty checkpoints that load, fifty exact resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpoints.killing import Kill, Killer
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample

KILLS = 50


def test_fifty_kills_are_fifty_exact_resumes(
    build_tiny: Callable[..., TPOModel], world: Callable[..., list[Sample]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killer = Killer(build_tiny, [sample for index in range(4) for sample in world(index)], tmp_path, seed=8)
    found: list[Kill] = []
    for number in range(KILLS):
        found.append(killer.kill_and_resume(number))
        saving, loadable = sum(kill.saving for kill in found), sum(kill.loadable for kill in found)
        exact = sum(not kill.differences for kill in found)
        with capsys.disabled():
            print(f"\r{len(found)} kills, {saving} of them in a save: {loadable} loadable checkpoints, {exact} exact resumes", end="")
    assert loadable == exact == KILLS
    assert 0 < saving < KILLS, "kills fall into training and into saving"
