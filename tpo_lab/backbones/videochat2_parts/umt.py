"""The UMT encoder: a plain vision transformer over all patches of all frames of a clip at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from tpo_lab.backbones.videochat2_parts.configuration import UMTConfig


def sinusoids(places: int, width: int) -> Tensor:
    """Positions 0 to places - 1 as sines (even columns) and cosines (odd ones) of falling frequency, float64 [place, width]."""
    pair = torch.arange(width, dtype=torch.float64) // 2
    angle = torch.arange(places, dtype=torch.float64)[:, None] / 10_000 ** (2 * pair / width)
    return torch.where(torch.arange(width) % 2 == 0, angle.sin(), angle.cos())


def clip_positions(frames: int, config: UMTConfig) -> Tensor:
    """Positions of all patches of a clip, float32 [frame * patch, hidden_size].

    Patches are numbered frame after frame, row by row, in a clip of `position_frames`. Those of longer and shorter clips are interpolated
    linearly between the frames of such a clip, whose first and last frame stand for their neighbourhoods; a single frame is the first one.

    Source: VideoChat2's released encoder.
    """
    patches = config.patches_per_side**2
    known = 1 if frames == 1 else config.position_frames
    table = sinusoids(known * patches, config.hidden_size).float()
    if frames == known:
        return table
    by_time = table.reshape(known, -1).T[None]
    return F.interpolate(by_time, size=frames, mode="linear")[0].T.reshape(frames * patches, config.hidden_size)


class UMTAttention(nn.Module):
    """Self-attention of every patch with every other of the clip. Keys have no bias, as published."""

    def __init__(self, config: UMTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def forward(self, patches: Tensor) -> Tensor:
        """Mix patches [clip, patch, d]."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        joined = F.linear(patches, self.qkv.weight, bias)
        query, key, value = joined.reshape(*joined.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class UMTLayer(GradientCheckpointingLayer):  # type: ignore[no-untyped-call]
    """Norm and attention, norm and two linear layers, each around a residual."""

    def __init__(self, config: UMTConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.norm1, self.attention = nn.LayerNorm(width, eps=eps), UMTAttention(config)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.fc1, self.fc2 = nn.Linear(width, config.intermediate_size), nn.Linear(config.intermediate_size, width)

    def forward(self, patches: Tensor) -> Tensor:
        """Encode patches [clip, patch, d]."""
        patches = patches + self.attention(self.norm1(patches))
        return patches + self.fc2(F.gelu(self.fc1(self.norm2(patches))))  # type: ignore[no-any-return]


class UMTEncoder(nn.Module):
    """From pixels to normed patch features.

    Source: Li et al., "Unmasked teacher" (2023); VideoChat2's released encoder, and the norm that it puts behind it.
    """

    def __init__(self, config: UMTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.layers = nn.ModuleList(UMTLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.output_norm_eps)
        self._positions: dict[int, Tensor] = {}

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Normalised pixels [clip, frame, 3, h, w] to features [clip, frame, patch, d]."""
        clips, frames = pixel_values.shape[:2]
        embedded = self.patch_embed(pixel_values.flatten(0, 1)).flatten(2).transpose(1, 2)
        patches = embedded.reshape(clips, -1, embedded.shape[-1])
        patches = patches + self.positions(frames, patches)
        for layer in self.layers:
            patches = layer(patches)
        return self.norm(patches).unflatten(1, (frames, -1))  # type: ignore[no-any-return]

    def positions(self, frames: int, like: Tensor) -> Tensor:
        """`clip_positions` with type and device of another tensor."""
        known = self._positions.get(frames)
        found = (clip_positions(frames, self.config) if known is None else known).to(like.device)
        # the last length alone, since a table of the published size takes megabytes
        self._positions = {frames: found}
        return found.to(like.dtype)
