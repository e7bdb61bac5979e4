"""DeepSpeed's real engine on two processes: the weights of one process, whatever each has to do; stopped, resumed, refused."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.distributed import jobs
from tests.distributed.jobs import HEADS, Job, Outcome, largest_difference
from tests.distributed.test_ends import equal
from tests.distributed.test_equal_to_one import ALL, CASES, CLOSE, numbers
from tests.distributed.test_launched import launch
from tpo_lab import checkpoint
from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.errors import UsageError
from tpo_lab.sample import Sample
from tpo_lab.training.steps import deepspeed
from tpo_lab.training.steps.processes import chosen, cuts_weights

pytest.importorskip("deepspeed", reason="needs the extra deepspeed")

Two = Callable[..., list[Outcome]]
ZERO_2 = ["mixed batches", "a process without rows", "clips that cannot be read", "one stage after the other"]


@pytest.mark.parametrize(("case", "zero"), [*((case, 3) for case in CASES), *((case, 2) for case in ZERO_2)])
def test_two_processes_train_the_weights_of_one(
    two: Two, alone: Callable[..., Outcome], job: Callable[..., Job], case: str, zero: int
) -> None:
    asked = job(**CASES[case])
    one, both = alone(replace(asked, all_move=True)), two("train", replace(asked, zero=zero))
    assert [outcome.error for outcome in (one, *both)] == [None] * 3
    assert equal(*both)
    assert largest_difference(both[0].weights, one.weights) < CLOSE
    assert not both[0].sharded, "weights are whole again at the end"
    for here, there in zip(numbers(both[0]), numbers(one), strict=True):
        assert here == pytest.approx(there, rel=2e-3, abs=2e-5)


@pytest.mark.parametrize(("zero", "half"), [(2, False), (2, True), (3, False), (3, True)])
def test_a_run_that_was_stopped_goes_on_exactly(two: Two, job: Callable[..., Job], tmp_path: Path, zero: int, half: bool) -> None:
    rates = {"llm.base.*": 1e-4} if zero == 2 else {}
    asked = job(stages=({"precision": "bf16" if half else "fp32", "rates": rates},), heads=HEADS[:2], zero=zero, half=half)
    straight = two("train", replace(asked, out=str(tmp_path / "straight")))
    stopped = two("train", replace(asked, stop_at=2, stop_with=signal.SIGINT))
    assert [outcome.error for outcome in stopped] == ["Interrupted: Stopped in stage 3a after step 2 of 3. Go on with --resume."] * 2
    resumed = two("train", replace(asked, resume=True))
    assert [outcome.error for outcome in (*straight, *resumed)] == [None] * 4
    assert all(equal(here, straight[0]) for here in (*straight, *resumed))
    assert [line["step"] for line in resumed[0].metrics] == [1, 2, 3]
    assert half or largest_difference(jobs.loaded(asked), straight[0].weights) == 0


@pytest.mark.parametrize(("before", "after"), [(0, 3), (3, 0)])
def test_it_goes_on_from_what_other_processes_saved_and_they_from_what_it_saved(
    two: Two, job: Callable[..., Job], tmp_path: Path, before: int, after: int
) -> None:
    asked = job(heads=HEADS[:2])
    straight = two("train", replace(asked, out=str(tmp_path / "straight")))
    two("train", replace(asked, zero=before, stop_at=2))
    resumed = two("train", replace(asked, zero=after, anyway=True))
    assert [outcome.error for outcome in resumed] == [None, None]
    assert largest_difference(resumed[0].weights, straight[0].weights) < CLOSE


@pytest.mark.parametrize("zero", [2, 3])
def test_a_part_that_begins_as_another_is_what_trains(two: Two, alone: Callable[..., Outcome], job: Callable[..., Job], zero: int) -> None:
    asked = job(stages=({"starts_from": {"tokens.task.temporal": "tokens.task.region"}},), heads=HEADS[:2])
    one, both = alone(replace(asked, all_move=True)), two("train", replace(asked, zero=zero))
    assert largest_difference(both[0].weights, one.weights) < CLOSE


@pytest.mark.parametrize("zero", [2, 3])
def test_what_one_process_cannot_do_ends_all_with_its_reason(two: Two, job: Callable[..., Job], zero: int) -> None:
    first, second = two("fail", job(heads=HEADS[:1], zero=zero))
    assert (first.error, second.error) == (f"JobFailed: Process 1 of 2 failed. {second.error}", "ZeroDivisionError: rows of nothing")


@pytest.mark.parametrize("zero", [2, 3])
def test_a_loss_that_is_not_finite_ends_all_with_the_terms_of_any(two: Two, job: Callable[..., Job], zero: int) -> None:
    errors = [outcome.error for outcome in two("broken_loss", job(heads=HEADS[:1], zero=zero))]
    assert errors == ["JobFailed: stage 3a, step 1: the loss is not finite (terms: mlm)."] * 2


@pytest.mark.parametrize("family", ["videochat2", "qwen3_vl"])
def test_families_train_in_pieces_with_layers_that_are_computed_twice(two: Two, tmp_path: Path, family: str) -> None:
    base = write_tiny(family, tmp_path / "base", layers=2, dtype=torch.float32)
    stages = ({"steps": 2, "batch_size": 2, "rates": {"llm.base.*": 1e-4}},)
    asked = Job(str(base), str(tmp_path / "run"), stages=stages, heads=HEADS[:1], scenes=2)
    both = two("train", replace(asked, zero=3, options={"checkpointing": True}))
    one = jobs.train(replace(asked, out=str(tmp_path / "one"), all_move=True))
    assert [outcome.error for outcome in (one, *both)] == [None] * 3
    assert largest_difference(both[0].weights, one.weights) < CLOSE


def test_what_it_does_not_do_is_refused(two: Two, job: Callable[..., Job]) -> None:
    probed = two("train", job(heads=HEADS[:1], zero=2, options={"probe_every": 2}))
    assert all("probe_every: expected none under deepspeed, got 2" in (outcome.error or "") for outcome in probed)
    narrow = two("train", job(heads=HEADS[:1], zero=3, half=True, stages=({"rates": ALL, "precision": "bf16"},)))
    message = "deepspeed: expected all trained weights in single precision with ZeRO-3, got 'llm.base."
    assert all(message in (outcome.error or "") for outcome in narrow), narrow[0].error
    mixed = two("train", job(heads=HEADS[:1], zero=2, half=True, stages=({"rates": {"llm.lora.*": None, "llm.*": 1e-4}},)))
    assert all("expected weights of one type in llm.*, got 'llm." in (outcome.error or "") for outcome in mixed), mixed[0].error


def test_trained_bf16_weights_are_those_of_one_process(two: Two, alone: Callable[..., Outcome], job: Callable[..., Job]) -> None:
    asked = job(stages=({"precision": "bf16", "rates": ALL},), half=True, heads=HEADS[:1])
    one, both = alone(replace(asked, all_move=True)), two("train", replace(asked, zero=2))
    assert [outcome.error for outcome in (one, *both)] == [None] * 3
    assert equal(*both) and both[0].dtypes == one.dtypes and torch.bfloat16 in one.dtypes.values()
    norms = [name for name in one.weights if name.endswith(("norm.weight", "norm1.weight", "norm2.weight"))]
    assert largest_difference(both[0].weights, one.weights, [name for name in one.weights if name not in norms]) < 2e-3
    assert largest_difference(both[0].weights, one.weights, norms) <= 2**-7, "the next number to 1 in bf16"


def test_it_leaves_torch_as_it_is(two: Two, job: Callable[..., Job]) -> None:
    outcomes = two("train", job(heads=HEADS[:1], zero=3))
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert two("linear") == [("torch._C._nn", "linear")] * 2


@pytest.mark.slow
def test_the_launchers_own_configuration_is_read(
    world: Callable[..., list[Sample]], tiny_base: Path, tmp_path: Path, free_port: int
) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text("".join(sample.model_dump_json() + "\n" for index in range(3) for sample in world(index)))
    settings = ["--stage", "1", "--set", "1.steps=3", "--set", "1.batch_size=3", "--head", "region", "--head", "temporal"]
    command = ["train", "--data", str(data), "--out", str(tmp_path / "run"), "--backbone", str(tiny_base), "--json"]
    process = launch(free_port, "--use_deepspeed", "--zero_stage", "3", "-m", "tpo_lab", *command, *settings)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert [(stage["name"], stage["steps"]) for stage in json.loads(out)["stages"]] == [("1", 3)]
    assert checkpoint.load(tmp_path / "run" / "checkpoint").lora is not None


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ACCELERATE_DEEPSPEED_ZERO_STAGE", "1", "zero_stage: expected 2 or 3, got 1"),
        ("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "cpu", "offload_optimizer_device: expected none, got 'cpu'. Weights stay"),
        ("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "cpu", "offload_param_device: expected none, got 'cpu'"),
        ("ACCELERATE_DEEPSPEED_CONFIG_FILE", "nowhere.json", "deepspeed: expected settings that accelerate can read, got .*nowhere.json"),
        ("ACCELERATE_DEEPSPEED_ZERO_STAGE", "two", "deepspeed: expected settings that accelerate can read, got .*'two'"),
    ],
)
def test_a_configuration_that_is_not_done_is_refused(
    configured: None, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=message):
        chosen("auto")


def test_a_file_of_settings_counts_but_for_what_the_recipe_says(configured: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = {"train_micro_batch_size_per_gpu": 7, "zero_optimization": {"stage": 3, "stage3_max_live_parameters": 123}}
    path = tmp_path / "zero.json"
    path.write_text(json.dumps(settings))
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(path))
    found = deepspeed.configuration(jobs.stage_of(grad_clip=0.5), 10)
    assert (found["train_micro_batch_size_per_gpu"], found["gradient_clipping"]) == (1, 0.5)
    assert found["zero_optimization"]["stage3_max_live_parameters"] == 123
    path.write_text(json.dumps({**settings, "optimizer": {"type": "Adam"}}))
    with pytest.raises(UsageError, match="deepspeed's configuration, optimizer: expected no such entry"):
        deepspeed.configuration(jobs.stage_of(), 10)


def test_one_way_of_cutting_at_a_time(configured: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen("auto") == "deepspeed" and not cuts_weights("deepspeed")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    assert cuts_weights("deepspeed")
    with pytest.raises(UsageError, match="shard: expected auto or deepspeed, which accelerate is configured for, got 'fsdp'"):
        chosen("fsdp")
