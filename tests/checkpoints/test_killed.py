"""A training that is killed at any time leaves a checkpoint that loads, and goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.checkpoints.killing import Killer
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample


def test_a_killed_training_goes_on_to_the_bit(build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path) -> None:
    killer = Killer(build_tiny, samples, tmp_path, seed=3)
    for number in range(3):
        found = killer.kill_and_resume(number)
        assert found.loadable and found.differences == ()
