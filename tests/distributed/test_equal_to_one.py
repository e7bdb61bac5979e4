"""Two processes train the weights of one, whatever each has to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.distributed.jobs import HEADS, Job, Outcome, largest_difference

CLOSE = 1e-5
SHARDS = ["ddp", "fsdp"]
HOMOGENEOUS = {"batching": "homogeneous", "steps": 4}
"""All tasks have a turn."""
BOXES_AND_TIMES = HEADS[:2]
ALL = {"llm.base.*": 1e-4, "vision.*": 1e-4, "connector.*": 1e-4, "prompts.*": 1e-4}
CASES: dict[str, dict[str, Any]] = {
    "mixed batches": {},
    "a task for each step": {"stages": (HOMOGENEOUS,)},
    "an odd row": {"stages": ({"batch_size": 3},)},
    "a process without rows": {"stages": ({**HOMOGENEOUS, "batch_size": 1},)},
    "parts of one row": {"stages": ({"batch_size": 3},), "options": {"micro_batch": 1}, "heads": BOXES_AND_TIMES},
    "clips that cannot be read": {
        "stages": ({"batch_size": 2, "steps": 6},),
        "bad": 3,
        "options": {"on_bad": "skip", "max_dropped": ""},
    },
    "nothing but tokens and heads": {"stages": ({"rates": {"llm.lora.*": None}, "batch_size": 2},), "heads": BOXES_AND_TIMES},
    "all of the model": {"stages": ({"rates": ALL},), "heads": BOXES_AND_TIMES},
    "layers that are computed twice": {"options": {"checkpointing": True}, "heads": BOXES_AND_TIMES},
    "one stage after the other": {
        "stages": (
            {"name": "1", "title": "first", "steps": 2},
            {"name": "2.region", "title": "own weights", "steps": 2, "rates": {"llm.base.*": 1e-4}},
            {"name": "3a", "steps": 2},
        ),
        "heads": BOXES_AND_TIMES,
    },
}


def test_layers_that_are_computed_twice_give_the_same_weights(alone: Callable[..., Outcome], job: Callable[..., Job]) -> None:
    plain, twice = (alone(job(heads=BOXES_AND_TIMES, options={"checkpointing": on})) for on in (False, True))
    assert largest_difference(plain.weights, twice.weights) < 1e-6


def with_shard(job: Job, shard: str) -> Job:
    from dataclasses import replace

    return replace(job, options={**job.options, "shard": shard})


def numbers(outcome: Outcome) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in ("seconds", "memory_mib", "stage")} for line in outcome.metrics]


@pytest.mark.parametrize("shard", SHARDS)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_the_weights_of_one(
    two: Callable[..., list[Outcome]], alone: Callable[..., Outcome], job: Callable[..., Job], case: str, shard: str
) -> None:
    asked = job(**CASES[case])
    one, both = alone(asked), two("train", with_shard(asked, shard))
    assert [outcome.error for outcome in (one, *both)] == [None] * 3
    assert all(torch.equal(both[0].weights[name], both[1].weights[name]) for name in one.weights)
    assert largest_difference(both[0].weights, one.weights) < CLOSE
    assert bool(both[0].sharded) == (shard == "fsdp") and all(name.startswith("llm.base.") for name in both[0].sharded)
    for here, there in zip(numbers(both[0]), numbers(one), strict=True):
        assert here == pytest.approx(there, rel=2e-3, abs=2e-5)
