"""Matching: equal to trying all assignments, never across answers, and nothing lost without a trace."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.errors import UsageError
from tpo_lab.matching import Matching, match_in_order, match_within

quick = settings(deadline=None, max_examples=30)


def pairs(matching: Matching) -> dict[int, int]:
    return dict(zip(matching.slot.tolist(), matching.box.tolist(), strict=True))


def test_the_cheapest_assignment_is_not_the_greedy_one() -> None:
    cost = torch.tensor([[1.0, 2.0], [1.5, 9.0]])  # greedy takes (0, 0) and pays 10
    one = torch.zeros(2, dtype=torch.long)
    assert pairs(match_within(cost, one, one)) == {0: 1, 1: 0}


@quick
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000))
def test_total_cost_equals_the_best_of_all_assignments(slots: int, boxes: int, seed: int) -> None:
    cost = torch.rand(slots, boxes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matching = match_within(cost, torch.zeros(slots, dtype=torch.long), torch.zeros(boxes, dtype=torch.long))
    wide = cost if slots <= boxes else cost.T
    every = (
        sum(wide[row, column].item() for row, column in enumerate(chosen))
        for chosen in itertools.permutations(range(wide.shape[1]), wide.shape[0])
    )
    assert cost[matching.slot, matching.box].sum().item() == pytest.approx(min(every))


def test_a_slot_never_takes_a_box_of_another_answer() -> None:
    cost = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 9.5], [0.0, 8.0, 9.0]])
    matching = match_within(cost, torch.tensor([0, 1, 1]), torch.tensor([0, 1, 1]))
    assert pairs(matching) == {0: 0, 1: 2, 2: 1}


def test_what_finds_no_partner_is_listed() -> None:
    matching = match_within(torch.tensor([[5.0, 1.0], [0.0, 3.0], [4.0, 2.0]]), torch.tensor([0, 0, 1]), torch.tensor([0, 2]))
    assert pairs(matching) == {1: 0}
    assert matching.extra_slots.tolist() == [0, 2]
    assert matching.unmatched_boxes.tolist() == [1]


def test_no_slots_or_no_boxes_match_nothing() -> None:
    none, two = torch.zeros(0, dtype=torch.long), torch.zeros(2, dtype=torch.long)
    without_slots, without_boxes = match_within(torch.zeros(0, 2), none, two), match_within(torch.zeros(2, 0), two, none)
    assert pairs(without_slots) == pairs(without_boxes) == {}
    assert without_slots.unmatched_boxes.tolist() == without_boxes.extra_slots.tolist() == [0, 1]


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_a_broken_cost_is_the_last_choice(broken: float) -> None:
    one = torch.zeros(2, dtype=torch.long)
    assert pairs(match_within(torch.tensor([[broken, 50.0], [60.0, 1.0]]), one, one)) == {0: 1, 1: 0}
    assert len(match_within(torch.full((2, 2), broken), one, one).slot) == 2


def test_in_order_pairs_by_place_within_each_answer() -> None:
    matching = match_in_order(torch.tensor([0, 1, 0, 1, 1]), torch.tensor([1, 0, 1, 0, 0]))
    assert pairs(matching) == {0: 1, 2: 3, 1: 0, 3: 2}
    assert matching.extra_slots.tolist() == [4]
    assert matching.unmatched_boxes.tolist() == [4]


def test_a_cost_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cost: expected \[slot=2, box=3\], got \(3, 2\)"):
        match_within(torch.zeros(3, 2), torch.zeros(2, dtype=torch.long), torch.zeros(3, dtype=torch.long))
