"""The terms beside the windows: saliency, attention, and the alignment of moments with sentences."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tpo_lab.heads.cg_detr import losses
from tpo_lab.heads.cg_detr.network import Network, Reading, Scene, text_share
from tpo_lab.heads.cg_detr.settings import CGDETRSettings
from tpo_lab.losses import BinaryCrossEntropy


def saliency_terms(
    positive: Reading, negative: Reading, rows: Tensor, levels: Tensor, valid: Tensor, settings: CGDETRSettings
) -> dict[str, Tensor]:
    """Margin and rank of the saliency within a clip, and low saliency where the text does not belong.

    Args:
        positive: the slots with their own texts.
        negative: slots with a text about other footage, one per pair.
        rows: which slots those are, LongTensor [pair].
        levels: whole numbers from 0, float [slot, frame].
        valid: which frames exist [slot, frame].
        settings: of the head.
    """
    ordered = _ordered_terms(positive.saliency_logits, negative.saliency_logits, rows, levels, valid, settings)
    named = {f"saliency_{name}": values for name, values in ordered.items()}
    return {**named, "saliency_negative": losses.negative_values(negative.saliency_logits, valid[rows])}


def attention_terms(
    positive: Reading, negative: Reading, rows: Tensor, levels: Tensor, valid: Tensor, settings: CGDETRSettings
) -> dict[str, Tensor]:
    """The terms of `saliency_terms` for the share of attention that goes to the text, and its cross-entropy with the moment."""
    share, dummy_share = text_share(positive.attention, settings.dummies)
    other_share, other_dummy_share = text_share(negative.attention, settings.dummies)
    ordered = _ordered_terms(share, other_share, rows, levels, valid, settings)
    return {
        **{f"attention_{name}": values for name, values in ordered.items()},
        "attention_negative": losses.negative_share_values(other_dummy_share, valid[rows]),
        "attention_match": losses.share_values(share, dummy_share, levels > 0, valid),
    }


def alignment_terms(network: Network, scene: Scene, attention: Tensor, inside: Tensor, settings: CGDETRSettings) -> dict[str, Tensor]:
    """Moments that belong to their sentences, attention that follows how frames and words go together, and dummies that differ.

    Slots without a frame `inside` [slot, frame] are only there as sentences that others do not belong to.
    """
    valid, official = scene.frame_valid, settings.official
    sentence, filler, words = network.sum_up(scene)
    rows = inside.any(-1).nonzero()[:, 0]
    moment, outside, frames = network.sum_up_moments(scene.rows(rows), inside[rows])
    has_outside = (~inside & valid).any(-1)[rows]
    # published, the first moment belongs to the second column and all others to the first
    wanted = (rows == 0).long() if official else len(sentence) + rows
    kept = torch.ones_like(has_outside) if official else has_outside
    dots = (frames @ moment[..., None])[..., 0] / (1.0 if official else moment.shape[-1] ** 0.5)
    here, there = valid[rows], inside[rows]
    similarity = frames @ words[rows].transpose(1, 2)
    allowed = functional.pad(scene.text_valid[rows], (settings.dummies, 0), value=True)[:, None].expand_as(similarity)
    return {
        "align_sentence": losses.contrast_values(moment, outside, sentence, has_outside, rows),
        "align_dummies": losses.contrast_values(moment[kept], outside[kept], filler, has_outside[kept], wanted[kept]),
        "align_frames": BinaryCrossEntropy()(dots, there.to(dots.dtype), here),
        "distill": losses.distill_values(attention[rows][there], similarity[there], allowed[there]),
        "orthogonal_dummies": losses.orthogonal_values(scene.dummies),
        "orthogonal_prototypes": losses.orthogonal_values(network.saliency.prototypes)[None],
    }


def _ordered_terms(
    scores: Tensor, others: Tensor, rows: Tensor, levels: Tensor, valid: Tensor, settings: CGDETRSettings
) -> dict[str, Tensor]:
    competing = torch.zeros_like(scores).index_copy(0, rows, others)
    exist = torch.zeros_like(valid).index_copy(0, rows, valid[rows])
    return {
        "margin": losses.margin_values(scores, levels, valid, settings.margin),
        "rank": losses.rank_values(scores, levels, valid, competing, exist, count=settings.grades, temperature=settings.temperature),
    }
