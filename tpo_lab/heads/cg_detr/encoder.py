"""What the stages of CG-DETR are built of: projections of the inputs, positions, and post-norm self-attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tpo_lab.heads.cg_detr.dropout import Dropout, DropPath
from tpo_lab.heads.cg_detr.settings import CGDETRSettings


class Projection(nn.Sequential):
    """LN - Dropout - Linear - ReLU - LN - Dropout - Linear, [..., input_dim] -> [..., dim]."""

    def __init__(self, input_dim: int, settings: CGDETRSettings) -> None:
        dim, rate = settings.dim, settings.input_dropout
        first = (nn.LayerNorm(input_dim), Dropout(rate), nn.Linear(input_dim, dim), nn.ReLU())
        super().__init__(*first, nn.LayerNorm(dim), Dropout(rate), nn.Linear(dim, dim))


class FeedForward(nn.Sequential):
    """Linear - PReLU - Dropout - Linear, [..., dim] -> [..., dim]."""

    def __init__(self, settings: CGDETRSettings) -> None:
        dim, hidden = settings.dim, settings.feedforward_dim
        super().__init__(nn.Linear(dim, hidden), nn.PReLU(), Dropout(settings.dropout), nn.Linear(hidden, dim))


class SelfAttention(nn.Module):
    """Multi-head self-attention; positions are added to queries and keys, never to values. Keys have no bias: softmax cancels it."""

    def __init__(self, settings: CGDETRSettings) -> None:
        super().__init__()
        dim = settings.dim
        self.heads, self.dropout = settings.heads, Dropout(settings.dropout)
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.value, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, position: Tensor, valid: Tensor, rows: int | None = None) -> Tensor:
        """Attend from the first `rows` tokens (all where None) to all valid ones: [slot, token, d] -> [slot, rows, d]."""
        placed = tokens + position
        query, key = self.query(placed[:, :rows]), self.key(placed)
        return self.out(attend(query, key, self.value(tokens), valid, self.heads, self.dropout))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each followed by residual and LayerNorm."""

    def __init__(self, settings: CGDETRSettings) -> None:
        super().__init__()
        self.attention, self.feedforward = SelfAttention(settings), FeedForward(settings)
        self.norms = nn.ModuleList(nn.LayerNorm(settings.dim) for _ in range(2))
        self.dropout, self.drop_path = Dropout(settings.dropout), DropPath(settings.drop_path)

    def forward(self, tokens: Tensor, position: Tensor, valid: Tensor, rows: int | None = None) -> Tensor:
        """Encode the first `rows` tokens (all where None): [slot, token, d] -> [slot, rows, d]."""
        attended = self.attention(tokens, position, valid, rows)
        tokens = self.norms[0](tokens[:, :rows] + self.drop_path(self.dropout(attended)))
        return self.norms[1](tokens + self.drop_path(self.dropout(self.feedforward(tokens))))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """A stack of self-attention layers."""

    def __init__(self, settings: CGDETRSettings, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(settings) for _ in range(layers))

    def forward(self, tokens: Tensor, position: Tensor, valid: Tensor, rows: int | None = None) -> Tensor:
        """Encode tokens [slot, token, d].

        Args:
            tokens: the input [slot, token, d].
            position: added to queries and keys [slot, token, d], or what broadcasts to it.
            valid: which tokens may be looked at [slot, token].
            rows: how many leading tokens are wanted back; the last layer computes no others.
        """
        for number, layer in enumerate(self.layers, 1):
            tokens = layer(tokens, position, valid, rows if number == len(self.layers) else None)
        return tokens


def attend(query: Tensor, key: Tensor, value: Tensor, valid: Tensor, heads: int, dropout: nn.Module) -> Tensor:
    """Multi-head attention of [slot, row, heads * a] to keys [slot, token, heads * a] and values [slot, token, d], valid [slot, token].

    Rows without a valid key look at all alike.
    """
    query, key, value = (split_heads(part, heads) for part in (query, key, value))
    prob = attention_prob(query, key, valid)
    mixed: Tensor = dropout(prob) @ value
    return mixed.transpose(1, 2).flatten(2)


def attention_prob(query: Tensor, key: Tensor, valid: Tensor) -> Tensor:
    """Softmax of scaled products over valid keys [slot, token], [slot, head, row, token]; a row without any is even and finite."""
    # scaled before the product and masked by a sum, since both have fewer numbers, or a cheaper gradient, than on the logits
    bias = torch.zeros_like(valid, dtype=key.dtype).masked_fill(~valid, torch.finfo(key.dtype).min)[:, None, None]
    logits: Tensor = query / key.shape[-1] ** 0.5 @ key.transpose(-1, -2) + bias
    return logits.softmax(-1)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """[slot, token, heads * a] -> [slot, head, token, a]."""
    return tokens.reshape(*tokens.shape[:-1], heads, tokens.shape[-1] // heads).transpose(1, 2)


def place_frames(valid: Tensor, dim: int) -> Tensor:
    """Sine position [slot, frame, dim] of each frame's rank among the valid ones, the last of which stands at a full turn."""
    rank = valid.cumsum(-1)
    return sine(rank / rank[:, -1:].clamp(min=1), dim)


def sine(share: Tensor, dim: int) -> Tensor:
    """Interleaved sines and cosines [..., dim] of shares [...] of a full turn, at frequencies from 1 down to nearly 1 / 10000."""
    exponents = torch.arange(0, dim, 2, device=share.device, dtype=share.dtype) / dim
    angle = 2 * math.pi * share[..., None] * 10000.0**-exponents
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)
