"""Adaptive cross-attention: a frame takes from the text only what the dummies do not take away."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tpo_lab.heads.cg_detr.dropout import Dropout, DropPath
from tpo_lab.heads.cg_detr.encoder import FeedForward, attention_prob, split_heads
from tpo_lab.heads.cg_detr.settings import CGDETRSettings


class CrossAttentionLayer(nn.Module):
    """One layer. Queries, keys and values are not projected; of the output the projection alone is learned."""

    def __init__(self, settings: CGDETRSettings) -> None:
        super().__init__()
        self.heads, self.thin = settings.heads, Dropout(settings.dropout)
        self.out, self.feedforward = nn.Linear(settings.dim, settings.dim), FeedForward(settings)
        self.norms = nn.ModuleList(nn.LayerNorm(settings.dim) for _ in range(2))
        self.dropout, self.drop_path = Dropout(settings.dropout), DropPath(settings.drop_path)

    def forward(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        """Add what was attended to, then the feed-forward layer, around which the residual is the sum before its norm."""
        tokens = tokens + self.drop_path(self.dropout(self.out(mixed)))
        branch = self.dropout(self.feedforward(self.norms[0](tokens)))
        return self.norms[1](tokens + self.drop_path(branch))  # type: ignore[no-any-return]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """Softmax over all keys, sum over the text alone, whose columns come last.

        Args:
            query: frames with positions [slot, frame, d].
            key: dummies and text with positions, by head [slot, head, dummy + token, a].
            value: text by head [slot, head, token, a].
            allowed: which keys exist [slot, dummy + token].

        Returns:
            the mixture [slot, frame, d], and the probabilities [slot, frame, dummy + token], the mean over heads.
        """
        prob = attention_prob(split_heads(query, self.heads), key, allowed)
        text = self.thin(prob[..., -value.shape[2] :])
        return (text @ value).transpose(1, 2).flatten(2), prob.mean(1)


class AdaptiveCrossAttention(nn.Module):
    """The layers of adaptive cross-attention from frames to dummies and text, neither of which changes.

    Source: CG-DETR (arXiv 2311.08835), adaptive cross-attention.
    Differs in: the attention is handed out before dropout, so that each row sums to 1.
    """

    def __init__(self, settings: CGDETRSettings) -> None:
        super().__init__()
        self.heads = settings.heads
        self.layers = nn.ModuleList(CrossAttentionLayer(settings) for _ in range(settings.cross_layers))

    def forward(
        self, frames: Tensor, frame_position: Tensor, dummies: Tensor, dummy_position: Tensor, text: Tensor, text_valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mix text into frames.

        Args:
            frames: [slot, frame, d], with their positions alike.
            frame_position: [slot, frame, d].
            dummies: conditioned on the text [slot, dummy, d].
            dummy_position: [dummy, d]; text has no position.
            text: [slot, token, d].
            text_valid: which tokens exist [slot, token].

        Returns:
            frames [slot, frame, d], and the attention [slot, frame, dummy + token] in [0,1], the mean over heads and layers.
        """
        key = split_heads(torch.cat([dummies + dummy_position, text], dim=1), self.heads)
        value = split_heads(text, self.heads)
        allowed = functional.pad(text_valid, (dummies.shape[1], 0), value=True)
        prob = []
        for layer in self.layers:
            assert isinstance(layer, CrossAttentionLayer)
            mixed, each = layer.attend(frames + frame_position, key, value, allowed)
            frames = layer(frames, mixed)
            prob.append(each)
        return frames, torch.stack(prob).mean(0)

    def without_text(self, tokens: Tensor) -> Tensor:
        """Pass tokens [slot, token, d] through the layers with nothing to attend to."""
        for layer in self.layers:
            tokens = layer(tokens, torch.zeros_like(tokens))
        return tokens
