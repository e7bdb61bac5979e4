"""How a job of several processes stops, goes on, and fails."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.distributed import jobs
from tests.distributed.jobs import HEADS, Job, Outcome, largest_difference
from tests.distributed.team import PATIENCE_SEC, Team
from tests.distributed.test_equal_to_one import ALL, CLOSE, SHARDS

Two = Callable[..., list[Outcome]]


def equal(here: Outcome, there: Outcome) -> bool:
    assert here.weights.keys() == there.weights.keys()
    return all(torch.equal(weight, there.weights[name]) for name, weight in here.weights.items())


@pytest.mark.parametrize(
    ("shard", "signal_number", "half"), [("ddp", signal.SIGINT, False), ("fsdp", signal.SIGTERM, False), ("fsdp", signal.SIGTERM, True)]
)
def test_a_signal_to_one_process_stops_all_after_the_same_step_and_the_run_goes_on_exactly(
    two: Two, job: Callable[..., Job], tmp_path: Path, shard: str, signal_number: int, half: bool
) -> None:
    stages = ({"steps": 3, "rates": {"llm.base.*": 1e-4}, "precision": "bf16" if half else "fp32"},)
    asked = job(stages=stages, heads=HEADS[:2], options={"shard": shard}, half=half)
    straight = two("train", replace(asked, out=str(tmp_path / "straight")))
    stopped = two("train", replace(asked, stop_at=2, stop_with=signal_number))
    assert [outcome.error for outcome in stopped] == ["Interrupted: Stopped in stage 3a after step 2 of 3. Go on with --resume."] * 2
    resumed = two("train", replace(asked, resume=True))
    assert [outcome.error for outcome in resumed] == [None, None]
    assert all(equal(here, straight[0]) for here in (*straight, *resumed))
    assert [line["step"] for line in resumed[0].metrics] == [1, 2, 3]
    # the backbone that the checkpoint names is not the one that this test has made narrow
    assert half or largest_difference(jobs.loaded(asked), straight[0].weights) == 0


def test_what_two_processes_saved_one_can_go_on_from(two: Two, job: Callable[..., Job], tmp_path: Path) -> None:
    stages = ({"steps": 3, "rates": {"llm.base.*": 1e-4}},)
    asked = job(stages=stages, heads=HEADS[:2], options={"shard": "fsdp"})
    straight = two("train", replace(asked, out=str(tmp_path / "straight")))
    two("train", replace(asked, stop_at=2))
    alone = jobs.train(replace(asked, options={}, resume=True))
    assert alone.error is not None and "processes" in alone.error, "it is not told"
    alone = jobs.train(replace(asked, options={}, anyway=True))
    assert alone.error is None and largest_difference(alone.weights, straight[0].weights) < CLOSE


@pytest.mark.parametrize("shard", SHARDS)
def test_what_one_process_cannot_do_ends_all_with_its_reason(two: Two, job: Callable[..., Job], shard: str) -> None:
    first, second = two("fail", job(options={"shard": shard}, heads=HEADS[:1]))
    assert first.error == "JobFailed: Process 1 of 2 failed. ZeroDivisionError: rows of nothing"
    assert second.error == "ZeroDivisionError: rows of nothing"


def test_a_clip_that_cannot_be_read_ends_all_with_its_name(two: Two, job: Callable[..., Job]) -> None:
    asked = job(bad=2, heads=HEADS[:1])
    errors = [outcome.error or "" for outcome in two("train", asked)]
    assert all("broken" in error and "--on-bad skip" in error for error in errors), errors


def test_a_loss_that_is_not_finite_ends_all_with_the_terms_of_any(two: Two, job: Callable[..., Job]) -> None:
    errors = [outcome.error for outcome in two("broken_loss", job(heads=HEADS[:1]))]
    assert errors == ["JobFailed: stage 3a, step 1: the loss is not finite (terms: mlm)."] * 2


@pytest.mark.parametrize(("what", "message"), [("data", "in rows: {'region': 3,"), ("model", "in weights. All of them need")])
def test_processes_that_would_train_different_things_are_refused(two: Two, job: Callable[..., Job], what: str, message: str) -> None:
    errors = [outcome.error or "" for outcome in two("unlike", job(heads=HEADS[:1]), what)]
    assert all("Processes 0 and 1 differ" in error and message in error for error in errors), errors


def test_a_probe_of_one_process_is_refused_where_it_has_a_piece_of_the_weights(two: Two, job: Callable[..., Job]) -> None:
    errors = [outcome.error or "" for outcome in two("train", job(heads=HEADS[:1], options={"shard": "fsdp", "probe_every": 2}))]
    assert all("probe_every: expected none under fsdp, got 2" in error for error in errors)


def test_a_killed_process_ends_the_others_with_a_sentence(job: Callable[..., Job]) -> None:
    team = Team(2)
    try:
        for pipe in team.pipes:
            pipe.send(("train", (job(stop_at=1, stop_with=signal.SIGKILL, heads=HEADS[:1]),)))
        assert team.pipes[0].poll(PATIENCE_SEC), "it hangs"
        outcome, problem = team.pipes[0].recv()
    finally:
        team.end()
    assert problem is None and "Another process of this job has ended" in outcome.error


@pytest.mark.parametrize("shard", SHARDS)
def test_a_head_without_gradient_is_reported(two: Two, job: Callable[..., Job], shard: str) -> None:
    losses = {"mlm": 1.0, "assign": 1.0, "temporal": 1.0}
    asked = job(stages=({"losses": losses, "steps": 2},), heads=HEADS[:2], options={"shard": shard, "gradient_patience": 2})
    (first, _) = two("train", asked)
    assert [line for line in first.said if "gradient" in line] == ["warning: head 'region' has had no gradient for 2 steps of stage 3a"]
    assert all(line["gradient/region"] == 0 and line["gradient/temporal"] > 0 for line in first.metrics)


def test_trained_bf16_weights_in_pieces_are_those_of_one_process(two: Two, alone: Callable[..., Outcome], job: Callable[..., Job]) -> None:
    asked = job(stages=({"precision": "bf16", "steps": 3, "rates": ALL},), half=True, heads=HEADS[:1])
    one, both = alone(asked), two("train", replace(asked, options={"shard": "fsdp"}))
    assert [outcome.error for outcome in (one, *both)] == [None] * 3
    assert equal(*both) and both[0].dtypes[both[0].sharded[0]] == torch.bfloat16
    norms = [name for name in one.weights if name.startswith("llm.base.") and name.endswith("layernorm.weight")]
    assert largest_difference(both[0].weights, one.weights, [name for name in one.weights if name not in norms]) < 2e-3
    assert largest_difference(both[0].weights, one.weights, norms) <= 2**-7, "the next number to 1 in bf16"


def test_bf16_weights_in_pieces_beside_whole_ones_in_single_precision(
    two: Two, alone: Callable[..., Outcome], job: Callable[..., Job]
) -> None:
    asked = job(stages=({"precision": "bf16", "steps": 2},), half=True, heads=HEADS[:2])
    one, both = alone(asked), two("train", replace(asked, options={"shard": "fsdp"}))
    assert [outcome.error for outcome in (one, *both)] == [None] * 3
    found = both[0]
    trained = {name for name in found.dtypes if name.startswith(("llm.lora.", "tokens.", "heads."))}
    assert {found.dtypes[name] for name in trained} == {torch.float32}
    assert {found.dtypes[name] for name in found.sharded} == {torch.bfloat16}
    assert len(found.sharded) > 20 and equal(*both)
    assert largest_difference(found.weights, one.weights) < 2e-3, "three steps of 1e-3 in bf16"
    assert found.metrics[0]["loss"] == pytest.approx(one.metrics[0]["loss"], rel=1e-2)
