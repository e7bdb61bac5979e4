"""Box metrics against values worked out by hand and slow pure-Python references."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.errors import UsageError
from tpo_lab.metrics.region import box_iou, box_set_counts, box_set_scores, precision_recall_f1, rec_ious, rec_scores

corner = st.integers(0, 12)
true_box = st.tuples(corner, corner, st.integers(1, 9), st.integers(1, 9)).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
any_box = st.tuples(corner, corner, corner, corner)


def pixel_iou(first: tuple[int, ...], second: tuple[int, ...]) -> float:
    """IoU by counting unit squares; an inverted box covers none."""
    covered = [{(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])} for b in (first, second)]
    union = covered[0] | covered[1]
    return len(covered[0] & covered[1]) / len(union) if union else 0.0


@given(first=st.lists(any_box, min_size=1, max_size=3), second=st.lists(any_box, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_box_iou_equals_counting_pixels(first, second):
    expected = [[pixel_iou(a, b) for b in second] for a in first]
    np.testing.assert_allclose(box_iou(first, second), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("box", "iou"),
    [
        ((0, 0, 10, 4), 1.0),
        ((0, 0, 10, 2), 0.5),
        ((5, 2, 15, 6), 10 / 70),
        ((10, 0, 20, 4), 0.0),
        ((10, 4, 0, 0), 0.0),
        ((3, 3, 3, 3), 0.0),
        ((math.nan, 0, 10, 4), 0.0),
        ((0, 0, math.inf, math.inf), 0.0),
        ((-math.inf, -math.inf, math.inf, math.inf), 0.0),
    ],
)
def test_box_iou_by_hand(box, iou):
    assert box_iou([box], [(0, 0, 10, 4)])[0, 0] == pytest.approx(iou)


def test_rec_scores_by_hand_keep_missing_and_inverted_predictions_in_the_denominator():
    true = [(0, 0, 10, 4)] * 5
    predicted = [(0, 0, 10, 4), (0, 0, 10, 2), None, (10, 4, 0, 0), (0, 0, 10, 1)]
    assert rec_ious(predicted, true).tolist() == [1.0, 0.5, 0.0, 0.0, 0.25]
    assert rec_scores(predicted, true) == pytest.approx(
        {"acc@0.5": 2 / 5, "miou": 1.75 / 5, "missing_rate": 1 / 5, "inverted_rate": 1 / 5, "count": 5}
    )


def test_rec_scores_strict_refuses_an_iou_of_exactly_the_threshold_and_says_so_in_its_key():
    scores = rec_scores([(0, 0, 10, 2)], [(0, 0, 10, 4)], strict=True)
    assert scores["acc>0.5"] == 0.0
    assert "acc@0.5" not in scores
    assert rec_scores([(0, 0, 10, 2)], [(0, 0, 10, 4)], threshold=0.25)["acc@0.25"] == 1.0


def test_rec_scores_count_a_nan_prediction_as_inverted():
    scores = rec_scores([(math.nan, 0, 1, 1)], [(0, 0, 1, 1)])
    assert (scores["inverted_rate"], scores["miou"]) == (1.0, 0.0)


@given(pairs=st.lists(st.tuples(st.none() | any_box, true_box), min_size=1, max_size=8), seed=st.randoms())
@settings(max_examples=50, deadline=None)
def test_rec_scores_ignore_the_order_of_samples_and_stay_in_bounds(pairs, seed):
    shuffled = pairs.copy()
    seed.shuffle(shuffled)
    scores, again = (rec_scores(*map(list, zip(*order, strict=True))) for order in (pairs, shuffled))
    assert scores == pytest.approx(again)
    assert all(0 <= value <= 1 for key, value in scores.items() if key != "count")


@given(true=st.lists(true_box, min_size=1, max_size=5))
def test_rec_scores_of_perfect_predictions(true):
    assert rec_scores(true, true) == {"acc@0.5": 1.0, "miou": 1.0, "missing_rate": 0.0, "inverted_rate": 0.0, "count": len(true)}


def brute_force_hits(predicted: list, true: list, threshold: float) -> int:
    """The most pairs above the threshold that any one-to-one assignment has."""
    small, large = sorted((predicted, true), key=len)
    return max(
        sum(pixel_iou(a, b) >= threshold for a, b in zip(small, chosen, strict=True))
        for chosen in itertools.permutations(large, len(small))
    )


@given(predicted=st.lists(any_box, max_size=3), true=st.lists(true_box, max_size=4), threshold=st.sampled_from([0.2, 0.5]))
@settings(max_examples=80, deadline=None)
def test_box_set_counts_equal_brute_force(predicted, true, threshold):
    expected = [brute_force_hits(predicted, true, threshold), len(predicted), len(true)]
    assert box_set_counts([predicted], [true], threshold=threshold).tolist() == [expected]


def test_box_set_counts_prefer_two_hits_over_the_larger_total_iou():
    # IoUs [[1, 6/11], [1/2, 1/11]]: the diagonal has the larger total (1.09 against 1.05) but one hit, the other pairing has two
    true = [(0, 0, 12, 1), (0, 0, 22, 1)]
    predicted = [(0, 0, 12, 1), (0, 0, 6, 1)]
    assert box_iou(predicted, true).trace() > np.fliplr(box_iou(predicted, true)).trace()
    assert box_set_counts([predicted], [true]).tolist() == [[2, 2, 2]]


def test_box_set_scores_by_hand():
    one, other = (0, 0, 10, 4), (20, 0, 30, 4)
    scores = box_set_scores(
        [[other, one], [one, (4, 4, 0, 0), other], None, []],
        [[one, other], [one], [one, other], []],
    )
    precision, recall = 3 / 5, 3 / 5
    assert scores == pytest.approx(
        {
            "precision@0.5": precision,
            "recall@0.5": recall,
            "f1@0.5": 0.6,
            "count_mismatch_rate": 2 / 4,
            "missing_rate": 1 / 4,
            "inverted_rate": 1 / 5,
            "count": 4,
            "predicted_count": 5,
            "true_count": 5,
        }
    )


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[0, 0, 0]], (1.0, 1.0, 1.0)),
        ([[0, 3, 0]], (0.0, 0.0, 0.0)),
        ([[0, 0, 2]], (0.0, 0.0, 0.0)),
        ([[1, 4, 1], [1, 0, 1]], (0.5, 1.0, 2 / 3)),
    ],
)
def test_precision_recall_f1_at_the_edges(counts, expected):
    assert precision_recall_f1(counts) == pytest.approx(expected)


def test_metrics_refuse_what_cannot_be_scored():
    with pytest.raises(UsageError, match=r"one per target, at least one \(targets: 2\), got 1"):
        rec_scores([None], [(0, 0, 1, 1)] * 2)
    with pytest.raises(UsageError, match=r"targets: 0"):
        box_set_scores([], [])
    with pytest.raises(
        UsageError, match=r"true_boxes\[1\]: expected finite boxes with x1 < x2 and y1 < y2, got \[\[3\.0, 0\.0, 3\.0, 1\.0\]\]"
    ):
        rec_ious([None, None], [(0, 0, 1, 1), (3, 0, 3, 1)])
    with pytest.raises(UsageError, match=r"pred_sets\[0\]: expected boxes xyxy \[n, 4\], got \(2, 3\)"):
        box_set_counts([np.zeros((2, 3))], [[]])
    with pytest.raises(UsageError, match=r"pred_boxes\[0\].*got \(1, 2, 4\)"):
        rec_ious([np.zeros((2, 4))], [(0, 0, 1, 1)])
