"""Which proposed window answers for which annotated one: one Hungarian problem per decoder layer and slot."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tpo_lab.matching import match_within
from tpo_lab.spans import cw_to_sec, span_giou


@dataclass(frozen=True)
class WindowMatches:
    """Pairs of a proposal and an annotated window, all LongTensors [match].

    Attributes:
        layer: of the decoder.
        slot: whose question it is.
        query: the proposal.
        window: the annotated window of the slot.
    """

    layer: Tensor
    slot: Tensor
    query: Tensor
    window: Tensor


@torch.no_grad()
def match_windows(
    spans_cw: Tensor,
    foreground_prob: Tensor,
    target_cw: Tensor,
    window_valid: Tensor,
    *,
    weight_span: float,
    weight_giou: float,
    weight_label: float,
) -> WindowMatches:
    """Match each layer's proposals to the annotated windows of their slot at the least total cost.

    The cost of a pair is weight_span * (|c - c*| + |w - w*|) - weight_giou * gIoU - weight_label * p(foreground).

    Args:
        spans_cw: proposals (centre, width) in [0,1] of the clip [layer, slot, query, 2].
        foreground_prob: in [0,1] [layer, slot, query].
        target_cw: annotated windows in the same unit [slot, window, 2].
        window_valid: which windows exist [slot, window].
        weight_span: weight of the L1 distance.
        weight_giou: weight of the generalised IoU.
        weight_label: weight of the probability.

    Source: the matching of CG-DETR (arXiv 2311.08835), as Moment-DETR has it.
    """
    layers, slots, queries, _ = spans_cw.shape
    slot, window = window_valid.nonzero(as_tuple=True)
    proposals, targets = spans_cw.flatten(1, 2)[:, :, None], target_cw[slot, window]
    distance = (proposals - targets).abs().sum(-1)
    overlap = span_giou(cw_to_sec(proposals, 1.0), cw_to_sec(targets, 1.0))
    cost = weight_span * distance - weight_giou * overlap - weight_label * foreground_prob.flatten(1)[..., None]
    owner = torch.arange(slots, device=slot.device).repeat_interleave(queries)
    found = [match_within(each, owner, slot) for each in cost]
    matched = torch.cat([match.slot for match in found])
    box = torch.cat([match.box for match in found])
    layer = torch.arange(layers, device=slot.device).repeat_interleave(torch.tensor([len(m.slot) for m in found], device=slot.device))
    return WindowMatches(layer, owner[matched], matched % queries, window[box])
