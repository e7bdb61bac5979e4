"""Every family of backbones trains in pieces, with layers that are computed twice, as it does whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.distributed import jobs
from tests.distributed.jobs import HEADS, Job, Outcome, largest_difference
from tests.distributed.test_equal_to_one import CLOSE
from tpo_lab.backbones import FAMILIES
from tpo_lab.backbones.tiny import write_tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_train_the_weights_of_one_process(two: Callable[..., list[Outcome]], tmp_path: Path, family: str) -> None:
    base = write_tiny(family, tmp_path / "base", layers=2, dtype=torch.float32)
    stages = ({"steps": 2, "batch_size": 2, "rates": {"llm.base.*": 1e-4}},)
    job = Job(str(base), str(tmp_path / "run"), stages=stages, heads=HEADS[:1], scenes=2, options={"shard": "fsdp", "checkpointing": True})
    both = two("train", job)
    one = jobs.train(Job(str(base), str(tmp_path / "one"), stages=stages, heads=HEADS[:1], scenes=2))
    assert [outcome.error for outcome in (one, *both)] == [None] * 3
    assert largest_difference(both[0].weights, one.weights) < CLOSE
    assert {name for name in one.weights if name.startswith("llm.base.") and name.endswith("proj.weight")} <= set(both[0].sharded)
    assert len(both[0].sharded) > 10
