"""Dropout that a CPU can afford: there, drawing one float per number takes longer than the matrix products around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dropout(nn.Module):
    """Zeroes numbers in training, and scales the others up so that the mean stays.

    Differs in: on a CPU the mask comes from random bytes, eight for the price of one draw, so that the rate there is the nearest
    multiple of 1/256 (0.1 is 0.1016); the scale is that of the rate taken.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, tensor: Tensor) -> Tensor:
        """Return the tensor, thinned out in training."""
        if not self.training or self.rate == 0:
            return tensor
        if tensor.device.type != "cpu":
            return functional.dropout(tensor, self.rate)
        cut = round(256 * self.rate)
        words = torch.empty(-(-tensor.numel() // 8), dtype=torch.long).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: tensor.numel()].view(tensor.shape) >= cut
        return tensor * kept.to(tensor.dtype).mul_(256 / (256 - cut))

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.rate}"


class DropPath(nn.Module):
    """In training, leaves a residual branch [slot, ...] out of whole samples at a rate, and scales the others up by 1 / (1 - rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Return the branch [slot, token, d], zero for the samples that skip it."""
        if not self.training or self.rate == 0:
            return branch
        kept = torch.rand(len(branch), *[1] * (branch.ndim - 1), device=branch.device) >= self.rate
        return branch * (kept / (1 - self.rate))

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.rate}"
