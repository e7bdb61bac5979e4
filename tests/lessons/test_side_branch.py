"""With the slot hidden, training sees what inference sees; with it open, later words do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tpo_lab.lessons.side_branch import apart, states_under, states_without_slots
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel

BOX = {"time_sec": 0.0, "xyxy": [1.0, 2.0, 9.0, 12.0]}


@pytest.fixture
def batch(tiny: TPOModel, say: Callable[..., Any]) -> Any:
    sample = say(0, "Where are they?", "<region> and <region> there", region=[BOX, BOX])
    return tiny.collate([Frames(tiny.backbone).row([sample])])


def test_its_own_mask_gives_the_states_of_the_forward_pass(tiny: TPOModel, batch: Any):
    with torch.no_grad():
        expected = tiny(batch).hidden
    assert torch.allclose(states_under(tiny, batch, batch.attention_mask()), expected, atol=1e-6)


def test_without_slots_all_other_tokens_are_as_with_hidden_slots(tiny: TPOModel, batch: Any):
    without = states_without_slots(tiny, batch)
    slots = batch.is_slot[0]
    assert slots.sum() == 2 and without[slots].isnan().all()
    found = apart(states_under(tiny, batch, batch.attention_mask())[0], without)
    assert found[~slots].max() < 1e-4 and found[slots].isnan().all()


def test_an_open_slot_changes_later_tokens_and_no_earlier_one(tiny: TPOModel, batch: Any):
    count = batch.ids.shape[1]
    causal = torch.ones(count, count, dtype=torch.bool).tril()[None, None]
    found = apart(states_under(tiny, batch, causal)[0], states_without_slots(tiny, batch))
    first = int(batch.is_slot[0].nonzero()[0])
    assert found[:first].max() < 1e-4 < 1e-3 < found[first + 1 :].nan_to_num().max()


def test_distance_is_a_share_of_the_others_length():
    assert apart(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 4.0]])).tolist() == [0.75]
