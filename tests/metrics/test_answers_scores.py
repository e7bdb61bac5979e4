"""Segments with annotators, grounded answers and letters: each rule on the cases that give it away."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.errors import UsageError
from tpo_lab.metrics.grounded_qa import grounding
from tpo_lab.metrics.multiple_choice import mlvu_letter, mmiu_letter, mvbench_correct, strict_letter, video_mme_letter
from tpo_lab.metrics.segments import segment_iou, segment_scores

MOMENTS = [(first, last) for first in range(6) for last in range(first, 6)]
moment = st.sampled_from(MOMENTS)


@given(first=moment, second=moment)
def test_segment_iou_counts_segments_with_both_ends(first, second):
    one, two = set(range(first[0], first[1] + 1)), set(range(second[0], second[1] + 1))
    expected = len(one & two) / len(one | two) if one & two else 0.0
    assert segment_iou(first, second) == pytest.approx(expected)


def test_segments_average_the_three_annotators_that_agree_best():
    # ranks 1, 1, 2 and 6; IoUs 1, 1, 1/2 and 0
    assert segment_scores(MOMENTS, [(5, 5), (0, 0), (0, 1), (0, 0)]) == pytest.approx((4 / 3, 2.5 / 3))


@given(ranked=st.permutations(MOMENTS), true=st.lists(moment, min_size=4, max_size=7))
@settings(max_examples=40, deadline=None)
def test_segments_equal_sorting_by_hand(ranked, true):
    rank, iou = segment_scores(ranked, true)
    assert rank == pytest.approx(sum(sorted(ranked.index(each) + 1 for each in true)[:3]) / 3)
    assert iou == pytest.approx(sum(sorted((segment_iou(ranked[0], each) for each in true), reverse=True)[:3]) / 3)


def test_segments_refuse_an_annotation_that_is_no_candidate():
    with pytest.raises(UsageError, match=r"the moment \[3, 4\] of an annotator among the candidates, got 1"):
        segment_scores([(0, 0)], [(3, 4)])


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((0, 10), (1.0, 1.0)),
        ((2, 4), (0.2, 1.0)),
        ((3, 3), (0.0, 1.0)),
        ((10, 10), (0.0, 1.0)),
        ((12, 9), (0.0, 0.0)),
        ((40, 40), (0.0, 0.0)),
        ((40, 50), (0.0, 0.0)),
    ],
)
def test_grounding_by_hand(span, expected):
    assert grounding(span, [(0, 10)]) == pytest.approx(expected)


def test_iou_and_iop_take_their_maximum_each_over_its_own_span():
    # IoU is best with (0, 12): 8/12; IoP with (1, 40): 1
    assert grounding((2, 10), [(0, 12), (1, 40)]) == pytest.approx((8 / 12, 1.0))
    assert grounding((2, 14), [(2, 20), (12, 13)]) == pytest.approx((12 / 18, 1.0))


def test_grounding_refuses_what_is_no_span():
    with pytest.raises(UsageError, match=r"pred_span.*got \[1\.0, nan\]"):
        grounding((1, float("nan")), [(0, 1)])
    with pytest.raises(UsageError, match=r"true_spans.*got \[\]"):
        grounding((1, 2), [])


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("(C) a cat", True),
        ("C", True),
        ("c.", True),
        ("", True),
        ("(", True),
        ("(A)(C)", True),
        ("(A) a", False),
        ("The answer is C", False),
    ],
)
def test_mvbench_rule(answer, right):
    assert mvbench_correct(answer, "C") is right


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("C. a cat", "C"),
        ("The best answer is D", "D"),
        ("Best answer:D", "B"),
        ("Can say B", "C"),
        ("it is the red one", ""),
        ("", ""),
        ("one two three four five six seven eight nine ten eleven", ""),
    ],
)
def test_video_mme_rule(answer, letter):
    assert video_mme_letter(answer) == letter


@pytest.mark.parametrize(("answer", "letter"), [("B) a dog", "B"), ("(B) a dog", "(B"), ("B", "B"), ("B.", "B.")])
def test_mlvu_rule(answer, letter):
    assert mlvu_letter(answer) == letter


@pytest.mark.parametrize(("answer", "letter"), [(" n ", "N"), ("A", "A"), ("O", None), ("A.", None), ("The A", None), ("", None)])
def test_mmiu_rule(answer, letter):
    assert mmiu_letter(answer) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("C", "C"),
        ("(c)", "C"),
        ("c.", "C"),
        ("(C) a cat", "C"),
        ("C: a cat", "C"),
        ("", None),
        ("(", None),
        ("Cats", None),
        ("(A)(C)", None),
    ],
)
def test_strict_rule(answer, letter):
    assert strict_letter(answer) == letter
