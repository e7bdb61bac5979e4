"""The learned tokens of CG-DETR: dummies that know the text, summaries of sentences and moments, and the saliency token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tpo_lab.heads.cg_detr.encoder import Encoder
from tpo_lab.heads.cg_detr.settings import CGDETRSettings


class QueryDummies(nn.Module):
    """Learned tokens that see the text through self-attention over both; the text's own outputs are not used, nor computed."""

    def __init__(self, settings: CGDETRSettings) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(settings.dummies, settings.dim))
        self.position = nn.Parameter(torch.randn(settings.dummies, settings.dim))
        self.encoder = Encoder(settings, settings.dummy_layers)

    def forward(self, text: Tensor, text_valid: Tensor) -> Tensor:
        """Condition the dummies on text [slot, token, d]: [slot, dummy, d]."""
        count = len(self.tokens)
        tokens = torch.cat([self.tokens.expand(len(text), -1, -1), text], dim=1)
        position = functional.pad(self.position, (0, 0, 0, text.shape[1]))
        return self.encoder(tokens, position, functional.pad(text_valid, (count, 0), value=True), rows=count)  # type: ignore[no-any-return]


class SummaryToken(nn.Module):
    """One learned token in front of others, and self-attention over all: it sums up what may be looked at."""

    def __init__(self, settings: CGDETRSettings, layers: int) -> None:
        super().__init__()
        self.token, self.position = nn.Parameter(torch.randn(settings.dim)), nn.Parameter(torch.randn(settings.dim))
        self.encoder = Encoder(settings, layers)

    def forward(self, tokens: Tensor, position: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Sum up the valid ones of [slot, token, d] with positions alike: the summary [slot, d] and every token's output."""
        position = position.expand_as(tokens)
        joined = torch.cat([self.token.expand(len(tokens), 1, -1), tokens], dim=1)
        placed = torch.cat([self.position.expand(len(tokens), 1, -1), position], dim=1)
        encoded = self.encoder(joined, placed, functional.pad(valid, (1, 0), value=True))
        return encoded[:, 0], encoded[:, 1:]


class SaliencyToken(nn.Module):
    """The token against which every frame's saliency is measured: the clip's mean, moved by the prototypes that fit best.

    Source: CG-DETR (arXiv 2311.08835), moment-adaptive saliency detector.
    """

    def __init__(self, settings: CGDETRSettings) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(settings.prototypes, settings.dim))
        self.position = nn.Parameter(torch.randn(settings.dim))
        self.chosen = settings.chosen_prototypes

    def forward(self, frames: Tensor, valid: Tensor, text_share: Tensor) -> Tensor:
        """Make the token [slot, d].

        Args:
            frames: projected, before any text is mixed in [slot, frame, d].
            valid: which frames exist [slot, frame].
            text_share: how much of each frame's attention goes to the text, in [0,1] [slot, frame]; no gradient flows through it.
        """
        count = valid.sum(-1, keepdim=True).clamp(min=1)
        context = (torch.where(valid[..., None], frames, 0).sum(1) / count).detach()
        directions = functional.normalize(frames - context[:, None], dim=-1) @ functional.normalize(self.prototypes, dim=-1).T
        share = torch.where(valid, text_share.detach(), 0)
        weight = share * count / share.sum(-1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
        relevance = (directions.softmax(-1) * weight[..., None]).sum(1) / count
        best, index = relevance.topk(self.chosen, dim=-1)
        return context + (best[..., None] * self.prototypes[index]).sum(1)
