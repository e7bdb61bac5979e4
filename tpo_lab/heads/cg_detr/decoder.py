"""The decoder: queries that carry a window as their position and refine it layer by layer (DAB-DETR, in one dimension)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from tpo_lab.heads.cg_detr.dropout import Dropout, DropPath
from tpo_lab.heads.cg_detr.encoder import FeedForward, attend, sine, split_heads
from tpo_lab.heads.cg_detr.settings import CGDETRSettings

EDGE = 1e-3
"""Centres and widths nearer to 0 or 1 count as this near, in logits and in divisions."""
CONTENT_STD = 0.02


class Mlp(nn.Sequential):
    """Linear layers with ReLU in between, of the given widths."""

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = []
        for inner, outer in itertools.pairwise(widths):
            layers += [nn.Linear(inner, outer), nn.ReLU()]
        super().__init__(*layers[:-1])


class QueryAttention(nn.Module):
    """Self-attention among queries, with maps of their own for contents and for positions."""

    def __init__(self, settings: CGDETRSettings) -> None:
        super().__init__()
        dim = settings.dim
        self.heads, self.dropout = settings.heads, Dropout(settings.dropout)
        self.query, self.query_position = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.key, self.key_position = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.value, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, queries: Tensor, position: Tensor) -> Tensor:
        """Mix the contents [slot, query, d]; positions alike."""
        query, key = self.query(queries) + self.query_position(position), self.key(queries) + self.key_position(position)
        everyone = queries.new_ones(queries.shape[:2], dtype=torch.bool)
        return self.out(attend(query, key, self.value(queries), everyone, self.heads, self.dropout))  # type: ignore[no-any-return]


class WindowAttention(nn.Module):
    """Cross-attention whose queries and keys are, in each head, content beside position: twice as wide as the values."""

    def __init__(self, settings: CGDETRSettings, *, first: bool) -> None:
        super().__init__()
        dim = settings.dim
        self.heads, self.dropout = settings.heads, Dropout(settings.dropout)
        self.query, self.window = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.key, self.place = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.value, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.start = nn.Linear(dim, dim) if first else None

    def forward(self, queries: Tensor, position: Tensor, wave: Tensor, memory: Tensor, memory_position: Tensor, valid: Tensor) -> Tensor:
        """Look at the memory [slot, frame, d] from queries, their positions and their windows' waves, each [slot, query, d]."""
        query, key, place = self.query(queries), self.key(memory), self.place(memory_position)
        if self.start is not None:
            # contents say little in the first layer, so positions take their part
            query, key = query + self.start(position), key + place
        query, key = (self._beside(*pair) for pair in ((query, self.window(wave)), (key, place)))
        return self.out(attend(query, key, self.value(memory), valid, self.heads, self.dropout))  # type: ignore[no-any-return]

    def _beside(self, content: Tensor, position: Tensor) -> Tensor:
        joined = torch.cat([split_heads(content, self.heads), split_heads(position, self.heads)], dim=-1)
        return joined.transpose(1, 2).flatten(2)


class DecoderLayer(nn.Module):
    """Self-attention among queries, cross-attention to frames, feed-forward; each followed by residual and LayerNorm."""

    def __init__(self, settings: CGDETRSettings, *, first: bool) -> None:
        super().__init__()
        self.among, self.across = QueryAttention(settings), WindowAttention(settings, first=first)
        self.feedforward = FeedForward(settings)
        self.norms = nn.ModuleList(nn.LayerNorm(settings.dim) for _ in range(3))
        self.dropout, self.drop_path = Dropout(settings.dropout), DropPath(settings.drop_path)

    def forward(self, queries: Tensor, position: Tensor, wave: Tensor, memory: Tensor, memory_position: Tensor, valid: Tensor) -> Tensor:
        """Refine the contents of the queries [slot, query, d]."""
        queries = self.norms[0](queries + self.drop_path(self.dropout(self.among(queries, position))))
        branch = self.across(queries, position, wave, memory, memory_position, valid)
        queries = self.norms[1](queries + self.drop_path(self.dropout(branch)))
        return self.norms[2](queries + self.drop_path(self.dropout(self.feedforward(queries))))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Proposes windows, and says of each how likely it is one that was asked for.

    Every query starts with a learned content and a learned window. A layer sees the window as sines of centre and width, stretched by
    what the content makes of the width, and its refinement is the next layer's window, without gradient in between.

    Source: DAB-DETR (arXiv 2201.12329) in one dimension, as CG-DETR (arXiv 2311.08835) takes it.
    Differs in: a layer's window and the next layer's reference are one and the same, refined from the normed content; published, the
    reference comes from the content before the norm. Key maps have no bias, which softmax cancels. Unless `behaviour="official"`,
    contents are learned: published they start at zero, so that three matrices of the first self-attention never get a gradient.
    """

    def __init__(self, settings: CGDETRSettings) -> None:
        super().__init__()
        dim = settings.dim
        self.windows = nn.Parameter(torch.randn(settings.queries, 2))
        self.contents = None if settings.official else nn.Parameter(CONTENT_STD * torch.randn(settings.queries, dim))
        self.layers = nn.ModuleList(DecoderLayer(settings, first=number == 0) for number in range(settings.decoder_layers))
        self.position, self.width, self.refine = Mlp(dim, dim, dim), Mlp(dim, dim, 1), Mlp(dim, dim, dim, 2)
        self.scale = Mlp(dim, dim, dim) if settings.decoder_layers > 1 else None
        self.norm, self.label = nn.LayerNorm(dim), nn.Linear(dim, 2)

    def forward(self, memory: Tensor, memory_position: Tensor, valid: Tensor, first: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Decode frames [slot, frame, d] with positions alike, valid [slot, frame].

        Args:
            first: where the queries start: (centre, width) in [0,1], not trained by this [slot, query, 2]. The learned windows, in logits,
                then say by how much each query starts beside it.

        Returns:
            (centre, width) in [0,1] of the clip [layer, slot, query, 2], and class logits [layer, slot, query, 2], foreground first.
        """
        start = self.windows.expand(len(memory), -1, -1)
        window = (start if first is None else start + first.detach().logit(eps=EDGE)).sigmoid()
        empty = memory.new_zeros(window.shape[1], memory.shape[-1])
        queries = (empty if self.contents is None else self.contents).expand(len(memory), -1, -1)
        spans, contents = [], []
        for number, layer in enumerate(self.layers):
            wave = sine(window, queries.shape[-1] // 2).flatten(-2)
            position = self.position(wave)
            if self.scale is not None and number > 0:
                wave = wave * self.scale(queries)
            wave = wave * self.width(queries).sigmoid() / window[..., 1:].clamp(min=EDGE)
            queries = layer(queries, position, wave, memory, memory_position, valid)
            contents.append(self.norm(queries))
            spans.append((self.refine(contents[-1]) + window.logit(eps=EDGE)).sigmoid())
            window = spans[-1].detach()
        return torch.stack(spans), self.label(torch.stack(contents))
