"""An optimizer and its schedule as tensors and JSON, by the names of the parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tpo_lab.training.sharding import put, whole

_NO_SETTINGS = ("params", "names")
_SPLIT = "|"


def tensors_of(optimizer: Optimizer, *, wanted: bool = True) -> dict[str, Tensor]:
    """`<parameter>|<what>` -> a tensor in main memory; every process calls it, and gets none where they are not `wanted`."""
    found = {}
    for name, parameter in _named(optimizer):
        for key, value in sorted(optimizer.state.get(parameter, {}).items()):
            full = whole(value) if isinstance(value, Tensor) else torch.tensor(value)
            if wanted:
                found[f"{name}{_SPLIT}{key}"] = full.detach().cpu()
    return found


def groups_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The settings of every group, and the names of its parameters; JSON-ready."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def put_back(optimizer: Optimizer, groups: list[dict[str, Any]], tensors: Mapping[str, Tensor]) -> None:
    """Everything as it was; the groups must be the same."""
    put_back_moments(optimizer, tensors)
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        for name, value in saved.items():
            if name not in _NO_SETTINGS:
                group[name] = tuple(value) if isinstance(group.get(name), tuple) else value


def put_back_moments(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """What the optimizer remembers of every parameter that it still has, by name; its settings stay."""
    states: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        owner, _, key = name.rpartition(_SPLIT)
        states.setdefault(owner, {})[key] = value
    for name, parameter in _named(optimizer):
        if name in states:
            optimizer.state[parameter] = {key: _like(parameter, value) for key, value in states[name].items()}


def forward_to(schedule: LambdaLR, step: int) -> None:
    """Where a schedule is after so many steps, whatever rates it began with."""
    schedule.last_epoch, schedule._step_count = step, step + 1
    rates = [rate * factor(step) for rate, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


def _named(optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    for group in optimizer.param_groups:
        yield from zip(group["names"], group["params"], strict=True)


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """Where and how the parameter is: its moments have its shape; a count of steps stays in main memory."""
    if not value.ndim:
        return value.clone()
    made = torch.zeros_like(parameter, dtype=value.dtype)
    put(made, value)
    return made
