"""An optimizer and its schedule as tensors and JSON, by the names of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tpo_lab.training.steps.engine import Engine

_NO_SETTINGS = ("params", "names")
_SPLIT = "|"


def tensors_of(engine: Engine, *, wanted: bool = True) -> dict[str, Tensor]:
    """`<parameter>|<what>` -> a tensor in main memory; every process calls it, and gets none where they are not `wanted`."""
    found = {}
    for name, state in engine.remembered():
        if wanted:
            found.update({f"{name}{_SPLIT}{key}": value.detach().cpu() for key, value in state.items()})
    return found


def groups_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The settings of every group, and the names of its parameters; JSON-ready."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def put_back_groups(optimizer: Optimizer, groups: list[dict[str, Any]]) -> None:
    """The settings as they were; the groups must be the same."""
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        for name, value in saved.items():
            if name not in _NO_SETTINGS:
                group[name] = tuple(value) if isinstance(group.get(name), tuple) else value


def put_back_tensors(engine: Engine, tensors: Mapping[str, Tensor]) -> None:
    """What the optimizer remembers of every parameter that it still has, by name."""
    states: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        owner, _, key = name.rpartition(_SPLIT)
        states.setdefault(owner, {})[key] = value
    engine.remember(states)


def forward_to(schedule: LambdaLR, step: int) -> None:
    """Where a schedule is after so many steps, whatever rates it began with."""
    schedule.last_epoch, schedule._step_count = step, step + 1
    rates = [rate * factor(step) for rate, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates
