from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tpo_lab import freeze
from tpo_lab.errors import UsageError
from tpo_lab.freeze import FreezePlan
from tpo_lab.recipes import recipe
from tpo_lab.schedules import build_optimizer, lr_factor, scheduler
from tpo_lab.stages import Stage


def stage_of(**changes: object) -> Stage:
    settings: dict[str, object] = {
        "name": "2.region",
        "title": "",
        "learning_rates": {"heads.region.*": 0.5, "tokens.task.region": 2.0},
        "data": {"region": 1.0},
        "losses": {},
        "steps": 10,
        "batch_size": 2,
        "warmup_ratio": 0.2,
        "min_lr_ratio": 0.1,
        "weight_decay": 0.3,
        "betas": (0.8, 0.95),
        "eps": 1e-5,
    }
    return Stage(**{**settings, **changes})  # type: ignore[arg-type]


def model() -> dict[str, nn.Parameter]:
    shapes = {"heads.region.weight": (3, 2), "heads.region.bias": (3,), "tokens.task.region": (1, 1, 2), "vision.weight": (4, 2)}
    return {name: nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}


def test_lr_factor_by_hand() -> None:
    rise = [1 / 3, 2 / 3]
    fall = [0.1 + 0.9 * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]
    factors = [lr_factor(step, 10, 0.2, 0.1) for step in range(10)]
    assert factors == pytest.approx(rise + fall)
    assert factors[2] == 1.0
    assert factors[6] == pytest.approx(0.55)
    assert lr_factor(10, 10, 0.2, 0.1) == lr_factor(99, 10, 0.2, 0.1) == pytest.approx(0.1)


def test_lr_factor_without_warmup_starts_at_the_peak() -> None:
    assert lr_factor(0, 5, 0.0, 0.0) == 1.0
    assert lr_factor(0, 1, 0.9, 0.0) == 1.0


def test_lr_factor_warms_up_for_the_exact_share() -> None:
    assert 100 * 0.07 > 7, "or rounding up would not show"
    assert [lr_factor(step, 100, 0.07, 0.0) for step in (0, 6, 7)] == [0.125, 0.875, 1.0]


@given(st.integers(1, 300), st.floats(0, 0.999), st.floats(0, 1))
def test_lr_factor_rises_to_one_once_then_falls_and_is_never_zero(total: int, warmup: float, least: float) -> None:
    factors = [lr_factor(step, total, warmup, least) for step in range(total)]
    peak = factors.index(max(factors))
    assert factors[peak] == 1.0
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert min(factors) > 0
    assert min(factors[peak:]) >= least * (1 - 1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 0.1, 0.0), "'total': 0"),
        ((-1, 5, 0.1, 0.0), "'step': -1"),
        ((0, 5, 1.0, 0.0), "'warmup_ratio': 1.0"),
        ((0, 5, 0.1, 1.5), "'min_lr_ratio': 1.5"),
        ((0, 5, float("nan"), 0.0), "'warmup_ratio': nan"),
    ],
)
def test_lr_factor_refuses_values_out_of_range(arguments: tuple[int, int, float, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lr_factor(*arguments)


def test_build_optimizer_takes_the_stages_numbers_and_no_frozen_parameter() -> None:
    parameters, stage = model(), stage_of()
    optimizer = build_optimizer(freeze.apply(FreezePlan.of(stage), parameters), stage)
    assert [(g["pattern"], g["names"], g["lr"], g["weight_decay"], g["betas"], g["eps"]) for g in optimizer.param_groups] == [
        ("heads.region.*", ["heads.region.weight"], 0.5, 0.3, (0.8, 0.95), 1e-5),
        ("heads.region.*", ["heads.region.bias"], 0.5, 0.0, (0.8, 0.95), 1e-5),
        ("tokens.task.region", ["tokens.task.region"], 2.0, 0.0, (0.8, 0.95), 1e-5),
    ]
    assert not any(parameter is parameters["vision.weight"] for group in optimizer.param_groups for parameter in group["params"])


def test_weight_decay_alone_shrinks_matrices_only() -> None:
    parameters, stage = model(), stage_of(warmup_ratio=0.0)
    optimizer = build_optimizer(freeze.apply(FreezePlan.of(stage), parameters), stage)
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    values = {name: parameter.flatten()[0].item() for name, parameter in parameters.items()}
    assert values == pytest.approx(
        {"heads.region.weight": 1 - 0.5 * 0.3, "heads.region.bias": 1, "tokens.task.region": 1, "vision.weight": 1}
    )


def test_build_optimizer_refuses_no_groups() -> None:
    with pytest.raises(UsageError, match=r"groups: .*Stage '2\.region' trains nothing"):
        build_optimizer([], stage_of())


def test_scheduler_multiplies_each_groups_own_peak() -> None:
    parameters, stage = model(), stage_of()
    optimizer = build_optimizer(freeze.apply(FreezePlan.of(stage), parameters), stage)
    schedule = scheduler(optimizer, stage, stage.total_steps(1))
    for step in range(10):
        factor = lr_factor(step, 10, 0.2, 0.1)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5 * factor, 0.5 * factor, 2.0 * factor])
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_scheduler_resumes_where_it_stopped() -> None:
    stage = stage_of()

    def fresh() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        optimizer = build_optimizer(freeze.apply(FreezePlan.of(stage), model()), stage)
        return optimizer, scheduler(optimizer, stage, 10)

    (first, running), (second, resumed) = fresh(), fresh()
    for _ in range(4):
        first.step()
        running.step()
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(running.state_dict())
    for each, schedule in ((first, running), (second, resumed)):
        each.step()
        schedule.step()
    assert [g["lr"] for g in first.param_groups] == [g["lr"] for g in second.param_groups]
    assert first.param_groups[2]["lr"] == pytest.approx(2.0 * lr_factor(5, 10, 0.2, 0.1))


def test_paper_stage_warms_up_for_a_fifth() -> None:
    (stage,) = recipe("paper").stage("1")
    factors = [lr_factor(step, 50, stage.warmup_ratio, stage.min_lr_ratio) for step in range(50)]
    assert factors.index(1.0) == 10
