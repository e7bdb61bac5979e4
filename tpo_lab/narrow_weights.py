"""AdamW for weights that are kept in bf16: steps of 2e-5 vanish in the rounding of a weight near one, so they are added up beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

EXACT = "exact"
"""Under this name the optimizer's state holds the weight in single precision; saved and resumed with the moments."""


class NarrowAdamW(AdamW):
    """AdamW that keeps every trained weight narrower than single precision a second time, exactly; the others are torch's own affair.

    The weight that computes is the exact one, rounded. That and both moments take 12 bytes for each trained number. Works on pieces of
    weights as on whole ones.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # there is no closure here
        """Change the weights."""
        gradients = {p: p.grad for group in self.param_groups for p in group["params"] if p.grad is not None and p.dtype.itemsize < 4}
        for parameter in gradients:
            parameter.grad = None
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter in gradients:
                    parameter.grad = gradients[parameter]
                    self._step_exactly(parameter, gradients[parameter].float(), group)

    def _step_exactly(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (first, second) = self.state[parameter], group["betas"]
        if not state:
            exact = parameter.detach().float()
            state.update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(exact), exp_avg_sq=torch.zeros_like(exact))
            state[EXACT] = exact
        state["step"] += 1
        count, exact = float(state["step"]), state[EXACT]
        exact.mul_(1 - group["lr"] * group["weight_decay"])
        mean = state["exp_avg"].lerp_(gradient, 1 - first)
        square = state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        size = (square / (1 - second**count)).sqrt_().add_(group["eps"])
        exact.addcdiv_(mean, size, value=-group["lr"] / (1 - first**count))
        parameter.copy_(exact)
