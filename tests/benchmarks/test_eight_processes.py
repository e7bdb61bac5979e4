"""Eight processes, 20 steps: all end with the same weights. What is measured is printed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from tests.distributed import jobs
from tests.distributed.jobs import Job, largest_difference
from tests.distributed.team import Team

PROCESSES, STEPS = 8, 20


@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_eight_processes_end_equal(tiny_base: Path, tmp_path: Path, shard: str) -> None:
    stages = ({"steps": STEPS, "batch_size": 12, "rates": {"llm.base.*": 1e-4}},)
    job = Job(str(tiny_base), str(tmp_path / "run"), stages=stages, options={"shard": shard}, scenes=4)
    team = Team(PROCESSES)
    try:
        began = time.monotonic()
        found = team("train", job)
        seconds = time.monotonic() - began
    finally:
        team.end()
    assert [outcome.error for outcome in found] == [None] * PROCESSES
    first = found[0].weights
    assert all(torch.equal(outcome.weights[name], first[name]) for outcome in found for name in first)
    assert len(found[0].metrics) == STEPS
    one = jobs.train(Job(str(tiny_base), str(tmp_path / "one"), stages=stages, scenes=4))
    difference = largest_difference(first, one.weights)
    print(
        f"\n{shard}: {PROCESSES} processes, {STEPS} steps in {seconds:.0f} s, weights of all bitwise equal; to one process {difference:.1e}"
    )
    assert difference < 1e-4
