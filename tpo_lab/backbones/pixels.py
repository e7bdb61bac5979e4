"""Bytes of frames to the pixel values that vision towers take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def normalise(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 [..., 3, h, w] to float32, less the mean and over the deviation of each colour, both in [0,1].

    Mean and deviation are scaled instead of the bytes, as transformers' video processors do it, so that every bit is theirs.
    """
    shape = (3, 1, 1)
    at, by = (255 * torch.tensor(each, device=frames.device).reshape(shape) for each in (mean, std))
    return (frames.float() - at) / by
