"""Texts that do not belong: for each slot of a batch, another slot whose question is about other footage."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-4
"""Footage is the same where features differ by less than this share of their norm: encoding in other batches moves the last bits."""


@torch.no_grad()
def same_footage(features: Tensor, valid: Tensor) -> Tensor:
    """Which slots look at the same frames: [slot, slot] from features [slot, frame, d], valid [slot, frame].

    Differs in: the official code compares names of videos, so that two files with the same footage count as different.
    """
    rows = torch.where(valid[..., None], features, 0).flatten(1).float()
    norm = rows.norm(dim=-1)
    distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return distance <= TOLERANCE * torch.maximum(norm[:, None], norm[None])


def pair_negatives(same: Tensor, *, nearest: bool) -> tuple[Tensor, Tensor]:
    """Pair slots with a text about other footage.

    Args:
        same: which slots look at the same footage [slot, slot].
        nearest: take the next slot (cyclically) that differs; else only the very next one, as published.

    Returns:
        LongTensors [pair]: the slots that have a partner, and their partners.
    """
    count = len(same)
    here = torch.arange(count, device=same.device)
    if count < 2:
        return here[:0], here[:0]
    offsets = torch.arange(1, count if nearest else 2, device=same.device)
    candidates = (here[:, None] + offsets) % count
    differs = ~same.gather(1, candidates)
    some = differs.any(-1)
    # argmax of flags is the first that is set
    return here[some], candidates[some].gather(1, differs[some].int().argmax(-1, keepdim=True))[:, 0]
