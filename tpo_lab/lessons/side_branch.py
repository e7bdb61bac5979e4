"""The slot as a side branch: what the other tokens become under another attention mask, and where there is no slot at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tpo_lab.batch import Batch
    from tpo_lab.model import TPOModel


@torch.no_grad()
def states_under(model: TPOModel, batch: Batch, mask: Tensor) -> Tensor:
    """States after the final norm [row, token, d] under an attention mask of one's own, bool [row, 1, token, key]."""
    inputs, _ = model.inputs(batch, model.encode_video(batch.rows))
    hidden: Tensor = model.backbone.language_model(inputs, mask=mask)[0]
    return hidden


@torch.no_grad()
def states_without_slots(model: TPOModel, batch: Batch) -> Tensor:
    """States of the tokens of one row as if its slots had never been there, which is what inference sees: [token, d], NaN at the slots.

    Args:
        model: the model.
        batch: of one row.
    """
    kept = ~batch.is_slot[0]
    inputs, _ = model.inputs(batch, model.encode_video(batch.rows))
    mask = batch.attention_mask()[:, :, kept][..., kept]
    hidden = model.backbone.language_model(inputs.at(kept), mask=mask)[0]
    whole = hidden.new_full((len(kept), hidden.shape[-1]), torch.nan)
    whole[kept] = hidden[0]
    return whole


def apart(states: Tensor, others: Tensor) -> Tensor:
    """How far states are from others [token, d], as shares of the others' length: [token]."""
    share: Tensor = torch.linalg.vector_norm(states - others, dim=-1) / torch.linalg.vector_norm(others, dim=-1)
    return share
