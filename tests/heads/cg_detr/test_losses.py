"""Every term against numbers worked out by hand, or against loops in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.heads.cg_detr import losses

ALL = torch.ones(1, 3, dtype=torch.bool)
NONE = torch.zeros(1, 3, dtype=torch.bool)


def test_labels_weigh_the_background_a_tenth() -> None:
    logits = torch.tensor([[[2.0, 0.0], [2.0, 0.0]]])
    values = losses.label_values(logits, torch.tensor([[True, False]]), 0.1)
    assert values.tolist() == pytest.approx([math.log(1 + math.exp(-2)), 0.1 * math.log(1 + math.exp(2))])


def test_margin_is_twice_the_mean_over_all_ordered_pairs() -> None:
    scores, levels = torch.tensor([[0.5, 0.4, 0.9]]), torch.tensor([[2.0, 1.0, 0.0]])
    # pairs (0,1): 0.2 + 0.4 - 0.5; (0,2): 0.2 + 0.9 - 0.5; (1,2): 0.2 + 0.9 - 0.4
    assert losses.margin_values(scores, levels, ALL, 0.2).tolist() == pytest.approx([2 * (0.1 + 0.6 + 0.7) / 3])


def test_margin_leaves_padding_out_and_slots_without_a_pair() -> None:
    scores, levels = torch.tensor([[0.0, 5.0, 9.0], [1.0, 2.0, 3.0]]), torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    valid = torch.tensor([[True, True, False], [True, True, True]])
    assert losses.margin_values(scores, levels, valid, 0.2).tolist() == pytest.approx([2 * 5.2])


def test_margin_is_zero_where_the_order_is_clear() -> None:
    assert losses.margin_values(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[2.0, 1.0, 0.0]]), ALL, 0.2).tolist() == [0.0]


def test_rank_of_two_levels_is_the_hand_computed_one() -> None:
    scores, levels = torch.tensor([[1.0, 0.5, 0.0]]), torch.tensor([[2.0, 1.0, 0.0]])
    value = losses.rank_values(scores, levels, ALL, torch.zeros(1, 3), NONE, count=3, temperature=0.5)
    normal = math.log(math.exp(2) + math.exp(1) + 1)
    first, second = normal - 2, normal - 1
    assert value.tolist() == pytest.approx([((first + second) / 2 + first) / 3])


def test_rank_makes_frames_under_a_wrong_text_compete() -> None:
    scores, levels = torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]])
    exist = torch.tensor([[True, True, False]])
    value = losses.rank_values(scores, levels, ALL, torch.zeros(1, 3), exist, count=12, temperature=0.5)
    assert value.tolist() == pytest.approx([math.log(5) / 12])


def test_rank_has_no_value_where_nothing_stands_out() -> None:
    values = losses.rank_values(
        torch.zeros(2, 3),
        torch.tensor([[0.0] * 3, [0, 3, 0]]),
        ALL.repeat(2, 1),
        torch.zeros(2, 3),
        NONE.repeat(2, 1),
        count=12,
        temperature=0.5,
    )
    assert values.tolist() == pytest.approx([3 * math.log(3) / 12])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 3), st.integers(0, 12), st.booleans()), min_size=2, max_size=6))
def test_rank_equals_loops_in_plain_python(frames: list[tuple[float, int, bool]]) -> None:
    scores, levels, valid = (list(part) for part in zip(*frames, strict=True))
    normal = math.log(sum(math.exp(s / 0.5) for s, v in zip(scores, valid, strict=True) if v)) if any(valid) else 0.0
    expected = 0.0
    for rank in range(1, 12):
        reached = [normal - s / 0.5 for s, y, v in frames if v and y >= rank]
        expected += sum(reached) / len(reached) if reached else 0.0
    some = any(y > 0 and v for _, y, v in frames)
    empty = torch.zeros(1, len(frames))
    found = losses.rank_values(
        torch.tensor([scores]), torch.tensor([levels]).float(), torch.tensor([valid]), empty, empty.bool(), count=12, temperature=0.5
    )
    assert found.tolist() == (pytest.approx([expected / 12], rel=1e-4, abs=1e-5) if some else [])


def test_negative_is_the_sum_of_log_one_minus_sigmoid_and_never_infinite() -> None:
    logits = torch.tensor([[0.0, 1.0, 4.0]])
    valid = torch.tensor([[True, True, False]])
    assert losses.negative_values(logits, valid).tolist() == pytest.approx([math.log(2) + math.log(1 + math.e)])
    assert losses.negative_values(torch.tensor([[6.25, 100.0, 1e4]], dtype=torch.bfloat16), ALL).isfinite().all()


def test_negative_share_reads_one_minus_a_from_the_dummies() -> None:
    dummies = torch.tensor([[0.25, 0.5, 0.0]])
    assert losses.negative_share_values(dummies, torch.tensor([[True, True, False]])).tolist() == pytest.approx([math.log(8)])
    assert losses.negative_share_values(dummies, ALL).tolist() == pytest.approx([math.log(8) - math.log(losses.LEAST_SHARE)])


def test_match_of_shares_is_binary_cross_entropy() -> None:
    share = torch.tensor([[0.8, 0.3, 0.5]])
    values = losses.share_values(share, 1 - share, torch.tensor([[True, False, True]]), torch.tensor([[True, True, False]]))
    assert values.tolist() == pytest.approx([-math.log(0.8), -math.log(0.7)])


def test_contrast_of_two_moments_is_the_hand_computed_one() -> None:
    positive, negative = torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [0.0, 5.0]])
    sentence = torch.tensor([[1.0, 0.0], [0.0, 7.0]])
    values = losses.contrast_values(positive, negative, sentence, torch.tensor([True, False]), torch.tensor([0, 1]))
    # cosines of row 0: 1, 0 | 0, 1; of row 1, which has no outside: 0, 1
    assert values.tolist() == pytest.approx([math.log(2 * math.e + 2) - 1, math.log(math.e + 1) - 1], abs=1e-6)


def test_distillation_is_zero_where_attention_follows_similarity() -> None:
    similarity, allowed = torch.tensor([[1.0, 2.0, -1.0]]), torch.tensor([[True, True, False]])
    same = torch.tensor([[1 / (1 + math.e), math.e / (1 + math.e), 0.3]])
    assert losses.distill_values(same, similarity, allowed).tolist() == pytest.approx([0.0], abs=1e-6)
    even = losses.distill_values(torch.tensor([[0.5, 0.5, 0.0]]), similarity, allowed)
    p = math.e / (1 + math.e)
    assert even.tolist() == pytest.approx([(p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))) / 2])


def test_distillation_teaches_the_attention_and_not_the_teacher() -> None:
    attention, similarity = torch.full((1, 3), 1 / 3, requires_grad=True), torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    losses.distill_values(attention, similarity, ALL).sum().backward()
    assert attention.grad is not None and attention.grad.abs().sum() > 0 and similarity.grad is None


def test_orthogonality_is_the_mean_cosine_between_different_vectors() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 4.0], [1.0, 1.0]])
    assert float(losses.orthogonal_values(vectors)) == pytest.approx(4 * math.sqrt(0.5) / 6)
    assert float(losses.orthogonal_values(vectors[:1])) == 0.0
