"""One process alone, and what is refused before any other is needed."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from tests.distributed.jobs import stage_of
from tpo_lab.cli import run
from tpo_lab.errors import MissingExtraError, TPOError, UsageError
from tpo_lab.model import TPOModel
from tpo_lab.stages import Lora
from tpo_lab.training.steps import engine, fsdp
from tpo_lab.training.steps.engine import OwnEngine
from tpo_lab.training.steps.processes import JobFailed, Processes, chosen
from tpo_lab.training.steps.sharding import is_sharded, put, whole, whole_gradient


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "FSDP_VERSION", "FSDP_OFFLOAD_PARAMS"):
        monkeypatch.delenv(name, raising=False)


def test_how_weights_lie_is_what_is_asked_or_what_accelerate_is_configured_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (chosen("auto"), chosen("ddp"), chosen("fsdp")) == ("ddp", "ddp", "fsdp")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert (chosen("auto"), chosen("fsdp")) == ("fsdp", "fsdp")
    with pytest.raises(UsageError, match="shard: expected auto or fsdp, which accelerate is configured for, got 'ddp'"):
        chosen("ddp")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("FSDP_VERSION", "1", r"fsdp_version: expected 2, got '1'\. Add --fsdp_version 2"),
        ("FSDP_OFFLOAD_PARAMS", "true", "fsdp_offload_params: expected false, got 'true'"),
    ],
)
def test_what_accelerate_may_be_configured_for_and_is_not_done_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=message):
        chosen("auto")


def test_an_unknown_shard_is_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match=r"shard: expected one of auto, ddp, fsdp, got 'fdsp'\. Did you mean 'fsdp'"):
        chosen("fdsp")


def test_pieces_for_one_process_are_refused() -> None:
    with pytest.raises(UsageError, match=r"shard: expected ddp with one process, got 'fsdp'\. Start the command by `accelerate launch"):
        Processes("fsdp")


def test_deepspeed_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr("tpo_lab.training.steps.deepspeed.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"tpo-lab\[deepspeed\]"):
        chosen("auto")


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_a_wrong_call_is_said_by_one_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str, lines: int
) -> None:
    monkeypatch.setenv("RANK", rank)
    assert run(["train", "--recipe", "unheard", "--dry-run"]) == 2
    assert capsys.readouterr().err.count("error: ") == lines


def test_a_failure_of_one_process_alone_is_said_by_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    for error, lines in ((TPOError("the disk is full"), 1), (JobFailed("Process 0 of 2 failed."), 0)):
        monkeypatch.setattr("tpo_lab.recipes.recipe", mock.Mock(side_effect=error))
        assert run(["train", "--recipe", "nano", "--dry-run"]) == 1
        assert capsys.readouterr().err.count("error: ") == lines


def test_one_process_is_its_own_company() -> None:
    alone = Processes()
    assert (alone.kind, alone.rank, alone.count, alone.is_main, alone.in_step) == ("ddp", 0, 1, True, False)
    assert alone.everyone({"a": 1}) == [{"a": 1}] and alone.any(True) and not alone.any(False)
    with pytest.raises(ZeroDivisionError), alone.all_or_none():
        _ = 1 / 0
    used, unused = (nn.Parameter(torch.zeros(3)) for _ in range(2))
    own = OwnEngine(nn.Identity(), AdamW([{"params": [used, unused], "names": ["a", "b"]}]), stage_of(), alone.everyone)
    with own.adding_up():
        own.backward(used.sum())
    assert used.grad is not None and used.grad.tolist() == [1.0, 1.0, 1.0] and unused.grad is None


def test_what_another_process_could_not_do_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Processes()
    monkeypatch.setattr(alone, "everyone", lambda value: [value, "sample a: no such file.", None])
    alone.count = 3
    with pytest.raises(JobFailed, match=r"Process 1 of 3 failed\. sample a: no such file\."), alone.all_or_none():
        pass


def test_a_lost_connection_is_a_sentence_and_other_errors_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Processes()
    alone.count = 2
    with pytest.raises(JobFailed, match="Another process of this job has ended"), alone.company():
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), alone.company():
        raise RuntimeError("shapes do not fit")


def test_buckets_hold_one_type_and_no_more_than_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUCKET", 5)
    parameters = [
        nn.Parameter(torch.zeros(count, dtype=dtype)) for count, dtype in ((2, torch.float32), (3, torch.float32), (1, torch.float32))
    ]
    parameters += [nn.Parameter(torch.zeros(1, dtype=torch.bfloat16)), nn.Parameter(torch.zeros(9, dtype=torch.bfloat16))]
    assert [[p.numel() for p in bucket] for bucket in engine._buckets(parameters)] == [[2, 3], [1], [1], [9]]
    assert list(engine._buckets([])) == []


def test_a_plain_tensor_is_whole_as_it_is() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    assert not is_sharded(parameter) and whole_gradient(parameter) is None
    assert whole(parameter).data_ptr() == parameter.data_ptr() and not whole(parameter).requires_grad
    put(parameter, torch.tensor([3, 4], dtype=torch.int64))
    assert parameter.tolist() == [3.0, 4.0] and parameter.dtype == torch.float32 and parameter.requires_grad


def test_decoder_layers_are_those_of_the_language_model_alone(build_tiny: Callable[..., TPOModel]) -> None:
    model = build_tiny()
    model.add_lora(Lora(rank=2, targets=("q_proj",)))
    layers = fsdp.decoder_layers(model)
    assert layers == list(model.backbone.model.model.language_model.layers) and len(layers) == 3


def test_a_group_of_pieces_has_the_type_of_most_numbers() -> None:
    few, many = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    assert fsdp._of_one_type([few, many]) == [many] and fsdp._of_one_type([]) == []
