"""Trained bf16 weights follow those of single precision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from tpo_lab.narrow_weights import EXACT, NarrowAdamW
from tpo_lab.recipes import recipe
from tpo_lab.training.resume import optimizer_state
from tpo_lab.training.steps.engine import OwnEngine

SETTINGS = {"lr": 1e-4, "weight_decay": 0.1, "betas": (0.9, 0.95), "eps": 1e-8}


def gradients(steps: int, *, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 5, generator=generator).bfloat16() for _ in range(steps)]


def test_many_small_steps_add_up_as_in_single_precision() -> None:
    narrow, wide = nn.Parameter(torch.ones(3, 5, dtype=torch.bfloat16)), nn.Parameter(torch.ones(3, 5))
    ours, torchs = NarrowAdamW([narrow], **SETTINGS), AdamW([wide], **SETTINGS)
    for gradient in gradients(60):
        narrow.grad, wide.grad = gradient.abs(), gradient.abs().float()
        ours.step()
        torchs.step()
    assert torch.allclose(ours.state[narrow][EXACT], wide, atol=1e-7, rtol=0)
    assert torch.equal(narrow, wide.bfloat16()) and narrow.dtype == torch.bfloat16
    assert (narrow < 1).all(), "a step of 1e-4 alone is less than the rounding of bf16 near one"


def test_single_precision_is_torchs_own() -> None:
    mixed = [nn.Parameter(torch.ones(3, 5)), nn.Parameter(torch.ones(3, 5, dtype=torch.bfloat16))]
    alone = nn.Parameter(torch.ones(3, 5))
    ours, torchs = NarrowAdamW(mixed, **SETTINGS), AdamW([alone], **SETTINGS)
    for gradient in gradients(3):
        mixed[0].grad, mixed[1].grad, alone.grad = gradient.float(), gradient, gradient.float()
        ours.step()
        torchs.step()
    assert torch.equal(mixed[0], alone) and EXACT not in ours.state[mixed[0]]
    assert torch.equal(mixed[1].grad, gradients(3)[-1]), "gradients stay until they are forgotten"


def test_a_weight_without_gradient_stays() -> None:
    parameter = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    optimizer = NarrowAdamW([parameter], **SETTINGS)
    optimizer.step()
    assert parameter.tolist() == [1.0, 1.0] and parameter not in optimizer.state


@pytest.mark.parametrize("at", [1, 4])
def test_what_is_saved_goes_on_to_the_bit(at: int) -> None:
    def optimizer(parameter: nn.Parameter) -> NarrowAdamW:
        return NarrowAdamW([{"params": [parameter], "names": ["w"]}], **SETTINGS)

    def engine(optimizer: NarrowAdamW) -> OwnEngine:
        return OwnEngine(nn.Identity(), optimizer, recipe("nano").stage("1")[0], lambda value: [value])

    straight = nn.Parameter(torch.ones(3, 5, dtype=torch.bfloat16))
    before = optimizer(straight)
    for number, gradient in enumerate(gradients(8)):
        if number == at:
            resumed = nn.Parameter(straight.detach().clone())
            after = optimizer(resumed)
            optimizer_state.put_back_groups(after, copy.deepcopy(optimizer_state.groups_of(before)))
            optimizer_state.put_back_tensors(engine(after), optimizer_state.tensors_of(engine(before)))
        straight.grad = gradient
        before.step()
        if number >= at:
            resumed.grad = gradient
            after.step()
    assert torch.equal(straight, resumed) and torch.equal(before.state[straight][EXACT], after.state[resumed][EXACT])
