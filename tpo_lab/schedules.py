"""The learning rate as a function of the step, and the optimizer of a stage."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tpo_lab.errors import UsageError
from tpo_lab.freeze import ParameterGroup
from tpo_lab.narrow_weights import NarrowAdamW
from tpo_lab.stages import Stage


def lr_factor(step: int, total: int, warmup_ratio: float, min_lr_ratio: float) -> float:
    """What the peak learning rate is multiplied by at one optimizer step: a linear rise, then half a cosine.

    With w = round(total * warmup_ratio): (step + 1) / (w + 1) for step < w, exactly 1 at step w, and `min_lr_ratio` from step `total` on,
    which is after the last update. So no step of the run has a rate of zero.
    Differs in: the usual warm-up starts at zero and spends its first step on nothing.

    Args:
        step: optimizer step, the first is 0.
        total: steps of the stage.
        warmup_ratio: part of `total` that the rise takes, in [0, 1).
        min_lr_ratio: end of the fall relative to the peak, in [0, 1].

    Returns:
        A factor in [0, 1].

    Raises:
        UsageError: a value out of its range.
    """
    if total < 1 or step < 0:
        raise UsageError("lr_factor", expected="total >= 1 and step >= 0", got={"step": step, "total": total})
    if not (0 <= warmup_ratio < 1 and 0 <= min_lr_ratio <= 1):
        given = {"warmup_ratio": warmup_ratio, "min_lr_ratio": min_lr_ratio}
        raise UsageError("lr_factor", expected="warmup_ratio in [0, 1) and min_lr_ratio in [0, 1]", got=given)
    # A rise over the whole run would leave no step at the peak.
    warmup = min(round(total * warmup_ratio), total - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / (total - warmup))
    return min_lr_ratio + (1 - min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(groups: Sequence[ParameterGroup], stage: Stage) -> AdamW:
    """AdamW over the groups of `freeze.apply`; each of its `param_groups` also holds its "pattern" and "names".

    Raises:
        UsageError: there is no group.
    """
    if not groups:
        raise UsageError("groups", expected="at least one parameter group", got=list(groups), hint=f"Stage {stage.name!r} trains nothing.")
    return NarrowAdamW(
        [
            {
                "params": list(group.parameters),
                "lr": group.learning_rate,
                "weight_decay": stage.weight_decay if group.decayed else 0.0,
                "pattern": group.pattern,
                "names": list(group.names),
            }
            for group in groups
        ],
        betas=stage.betas,
        eps=stage.eps,
    )


def scheduler(optimizer: Optimizer, stage: Stage, total_steps: int) -> LambdaLR:
    """Multiplies every group's own peak rate by `lr_factor`; call its `step()` after each optimizer step.

    Raises:
        UsageError: `total_steps` is below 1.
    """
    return LambdaLR(optimizer, lambda step: lr_factor(step, total_steps, stage.warmup_ratio, stage.min_lr_ratio))
