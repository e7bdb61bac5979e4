"""The terms of CG-DETR's objective as functions of tensors; each returns unreduced values in fp32.

Saliency terms serve two kinds of scores [slot, frame]: the saliency logits, and the share of attention that goes to the text.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tpo_lab.losses import masked_log_softmax

LEAST_SHARE = 1e-6
"""Shares of attention below this count as this, in logarithms."""


def label_values(class_logits: Tensor, foreground: Tensor, background_weight: float) -> Tensor:
    """Cross-entropy of logits [..., 2], foreground first, times 1 where `foreground` [...] and `background_weight` elsewhere."""
    wanted = torch.where(foreground, 0, 1)
    values = functional.cross_entropy(class_logits.flatten(0, -2), wanted.flatten(), reduction="none")
    return values * torch.where(foreground.flatten(), 1.0, background_weight)


def margin_values(scores: Tensor, levels: Tensor, valid: Tensor, margin: float) -> Tensor:
    """Twice the mean of max(0, margin + s_j - s_i) over the pairs of frames with level_i > level_j: one value per slot with a pair.

    Source: the margin loss of Moment-DETR and CG-DETR, 2/P times the sum over P pairs.
    Differs in: all pairs instead of two that are drawn at random, which is their expectation.
    """
    higher = (levels[:, :, None] > levels[:, None]) & valid[:, :, None] & valid[:, None]
    some = higher.any(-1).any(-1)
    higher, scores = higher[some], scores[some]
    violation = (margin + scores[:, None] - scores[:, :, None]).clamp(min=0)
    return 2 * torch.where(higher, violation, 0).sum((1, 2)) / higher.sum((1, 2)).clamp(min=1)


def rank_values(
    scores: Tensor, levels: Tensor, valid: Tensor, negative: Tensor, negative_valid: Tensor, *, count: int, temperature: float
) -> Tensor:
    """Rank-contrastive values, one per slot with a frame above level 0.

    For each level r from 1 to count - 1 that any frame reaches: the mean of -log softmax(s / temperature) over the frames of at least
    that level; summed over the levels and divided by `count`.

    Args:
        scores: [slot, frame].
        levels: whole numbers 0 to `count` [slot, frame].
        valid: which frames exist [slot, frame].
        negative: scores of the same frames for a text that does not belong to them [slot, frame].
        negative_valid: which of those are there; they compete, at level 0 [slot, frame].
        count: number of levels.
        temperature: of the softmax.

    Source: the rank-aware contrastive loss of QD-DETR and CG-DETR.
    """
    some = ((levels > 0) & valid).any(-1)
    both, exist = (torch.cat(pair, dim=-1)[some] for pair in ((scores, negative), (valid, negative_valid)))
    surprise = -masked_log_softmax(both / temperature, exist)[:, : scores.shape[1]]
    ranks = torch.arange(1, count, device=scores.device)
    reached = (levels[some][:, None] >= ranks[:, None]) & valid[some][:, None]
    sums = torch.where(reached, surprise[:, None], 0).sum(-1)
    return (sums / reached.sum(-1).clamp(min=1)).sum(-1) / count


def negative_values(logits: Tensor, valid: Tensor) -> Tensor:
    """Sum over frames of -log(1 - sigmoid(s)), as softplus(s), which no s makes infinite: [slot, frame] -> [slot]."""
    return torch.where(valid, functional.softplus(logits), 0).sum(-1)


def negative_share_values(dummy_share: Tensor, valid: Tensor) -> Tensor:
    """Sum over frames of -log(1 - a), where a is the text's share of attention: 1 - a is what the dummies get [slot, frame]."""
    return torch.where(valid, -log_share(dummy_share), 0).sum(-1)


def share_values(share: Tensor, dummy_share: Tensor, wanted: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy of the text's share of attention with `wanted` [slot, frame], for each valid frame [valid]."""
    return -torch.where(wanted, log_share(share), log_share(dummy_share))[valid]


def log_share(share: Tensor) -> Tensor:
    """Logarithm of shares in [0,1], bounded below."""
    return share.clamp(min=LEAST_SHARE).log()


def contrast_values(positive: Tensor, negative: Tensor, sentence: Tensor, has_negative: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy over the cosines of a moment with all sentences, then of its outside with all sentences.

    Args:
        positive: moment tokens [row, d].
        negative: tokens of what is outside the moments [row, d].
        sentence: [sentence, d].
        has_negative: which rows have an outside [row].
        wanted: LongTensor [row] into the 2 * sentence columns.

    Returns:
        Values [row].
    """
    cosines = [functional.normalize(moment, dim=-1) @ functional.normalize(sentence, dim=-1).T for moment in (positive, negative)]
    exist = torch.stack([torch.ones_like(has_negative), has_negative], dim=1).repeat_interleave(len(sentence), dim=1)
    log_prob = masked_log_softmax(torch.cat(cosines, dim=1), exist)
    return -log_prob.gather(1, wanted[:, None])[:, 0]


def distill_values(attention: Tensor, similarity: Tensor, allowed: Tensor) -> Tensor:
    """KL divergence of attention from the softmax of similarity, which gets no gradient, per allowed column: [..., column] -> [...]."""
    teacher = masked_log_softmax(similarity.detach(), allowed)
    each = teacher.exp() * (teacher - log_share(attention))
    return torch.where(allowed, each, 0).sum(-1) / allowed.sum(-1)


def orthogonal_values(vectors: Tensor) -> Tensor:
    """Mean absolute cosine of different vectors, one side without gradient: [..., vector, d] -> [...]; 0 for a single vector."""
    unit = functional.normalize(vectors, dim=-1)
    count = vectors.shape[-2]
    apart = ~torch.eye(count, dtype=torch.bool, device=vectors.device)
    cosines = unit @ unit.detach().transpose(-1, -2)
    return torch.where(apart, cosines.abs(), 0).sum((-1, -2)) / max(count * (count - 1), 1)
