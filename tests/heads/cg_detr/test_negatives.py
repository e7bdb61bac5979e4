"""Negative texts: the same footage is found by its features, and every slot gets a partner where there is one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tpo_lab.heads.cg_detr.negatives import pair_negatives, same_footage


def pairs(videos: list[int], nearest: bool = True) -> dict[int, int]:
    names = torch.tensor(videos)
    rows, partner = pair_negatives(names[:, None] == names[None], nearest=nearest)
    return dict(zip(rows.tolist(), partner.tolist(), strict=True))


def test_footage_is_the_same_up_to_the_last_bits_and_whatever_padding_holds() -> None:
    features = torch.randn(3, 4, 5)
    features[2] = features[0] * (1 + 1e-6)
    valid = torch.tensor([[True, True, True, False]] * 3)
    features[2, 3] = 9.0
    assert same_footage(features, valid).tolist() == [[True, False, True], [False, True, False], [True, False, True]]


def test_the_same_frames_in_another_order_are_other_footage() -> None:
    features = torch.randn(1, 4, 5)
    both = torch.cat([features, features.flip(1)])
    assert same_footage(both, torch.ones(2, 4, dtype=torch.bool)).tolist() == [[True, False], [False, True]]


def test_a_text_is_looked_for_in_the_whole_batch() -> None:
    assert pairs([7, 7, 7, 8]) == {0: 3, 1: 3, 2: 3, 3: 0}


def test_published_only_the_next_slot_is_looked_at() -> None:
    assert pairs([7, 7, 7, 8], nearest=False) == {2: 3, 3: 0}


@pytest.mark.parametrize("videos", [[], [1], [1, 1, 1]])
@pytest.mark.parametrize("nearest", [True, False])
def test_without_other_footage_there_is_no_pair(videos: list[int], nearest: bool) -> None:
    assert pairs(videos, nearest) == {}


@given(st.lists(st.integers(0, 2), min_size=1, max_size=7))
def test_every_slot_of_a_mixed_batch_has_a_partner_about_other_footage(videos: list[int]) -> None:
    found = pairs(videos)
    assert all(videos[row] != videos[partner] for row, partner in found.items())
    assert set(found) == (set(range(len(videos))) if len(set(videos)) > 1 else set())
