"""A control of the tower's pretraining: each frame is learned with what another frame shows, so there is nothing to see."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class ShuffledFrames(nn.Module):
    """A vision tower whose features, in training, stand in the place of those of another scene's frame.

    Given to `pretrain_tower` in place of the tower, all else stays the same: steps, data, how often each label occurs. In evaluation
    mode it is the tower itself, so that scores say what was learned.

    Args:
        tower: what is trained; its batches hold at least two scenes.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower, self.config = tower, tower.config

    def forward(self, pixels: Tensor, **options: Any) -> Any:
        """Features of the tower, in training those of the frame half a batch away."""
        found = self.tower(pixels, **options)
        if not self.training:
            return found
        return SimpleNamespace(hidden_states=tuple(torch.roll(states, len(pixels) // 2, 0) for states in found.hidden_states))
