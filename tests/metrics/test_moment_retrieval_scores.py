"""Average precision and recall at K of ranked windows, against hand-computed values and a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.errors import UsageError
from tpo_lab.metrics.moment_retrieval import AP_THRESHOLDS, average_precisions, hits_at, in_length_range, ranked_scores
from tpo_lab.metrics.temporal import aligned_window_iou, window_iou

second = st.integers(0, 14)
window = st.tuples(second, st.integers(1, 8)).map(lambda w: (w[0], w[0] + w[1]))
ranked = st.lists(st.tuples(window, st.integers(0, 3)).map(lambda each: (*each[0], each[1])), max_size=12)
queries = st.lists(st.tuples(ranked, st.lists(window, min_size=1, max_size=4)), min_size=1, max_size=5)


def slow_average_precision(predicted, true, threshold):
    """The rule in plain loops, one query and one threshold."""
    kept = sorted(predicted[:10], key=lambda each: -each[2])
    taken, hits = set(), []
    for start, end, _ in kept:
        overlaps = []
        for place, (other_start, other_end) in enumerate(true):
            shared = max(0, min(end, other_end) - max(start, other_start))
            overlaps.append((shared / (end - start + other_end - other_start - shared), place))
        free = [each for each in sorted(overlaps, reverse=True) if each[1] not in taken and each[0] >= threshold]
        hits.append(bool(free))
        if free:
            taken.add(free[0][1])
    area = 0.0
    for place, hit in enumerate(hits):
        if hit:
            area += max(sum(hits[: end + 1]) / (end + 1) for end in range(place, len(hits))) / len(true)
    return area


@given(queries=queries)
@settings(max_examples=80, deadline=None)
def test_average_precisions_equal_plain_loops(queries):
    predicted, true = zip(*queries, strict=True)
    expected = [[slow_average_precision(rows, windows, t) for t in AP_THRESHOLDS] for rows, windows in queries]
    np.testing.assert_allclose(average_precisions(predicted, true), expected, atol=1e-12)


def test_average_precision_by_hand():
    true = [(0, 10), (20, 30)]
    predicted = [(0, 10, 0.9), (40, 50, 0.8), (20, 30, 0.7)]
    # hit, miss, hit: half of the recall at precision 1, half at 2/3
    assert average_precisions([predicted], [true], thresholds=[0.5]).item() == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_second_prediction_of_a_taken_window_is_a_false_alarm():
    assert average_precisions(
        [[(0, 10, 0.9), (0, 10, 0.8), (20, 30, 0.7)]], [[(0, 10), (20, 30)]], thresholds=[0.5]
    ).item() == pytest.approx(5 / 6)


def test_only_the_first_ten_windows_as_given_count():
    misses = [(50, 60, 0.1)] * 10
    assert average_precisions([[*misses, (0, 10, 0.99)]], [[(0, 10)]], thresholds=[0.5]).item() == 0.0
    assert average_precisions([[(0, 10, 0.99), *misses]], [[(0, 10)]], thresholds=[0.5]).item() == 1.0


def test_equal_scores_keep_the_given_order():
    good, bad = (0, 10, 0.5), (30, 40, 0.5)
    assert average_precisions([[good, bad]], [[(0, 10)]], thresholds=[0.5]).item() == 1.0
    assert average_precisions([[bad, good]], [[(0, 10)]], thresholds=[0.5]).item() == 0.5


def test_equal_ious_take_the_later_true_window():
    # (2, 12) meets both true windows with IoU 8/12; taking the later leaves (0, 10) for the second, whose IoU with (4, 14) is too low
    true = [(0, 10), (4, 14)]
    assert average_precisions([[(2, 12, 0.9), (0, 10, 0.8)]], [true], thresholds=[0.6]).item() == 1.0
    assert average_precisions([[(2, 12, 0.9), (4, 14, 0.8)]], [true], thresholds=[0.6]).item() == 0.5


def test_no_prediction_and_no_length_score_zero():
    assert average_precisions([[], [(3, 3, 0.5)]], [[(0, 10)], [(3, 3)]]).tolist() == [[0.0] * 10] * 2


@given(true=st.lists(st.lists(window, min_size=1, max_size=4, unique=True), min_size=1, max_size=4))
@settings(deadline=None)
def test_perfect_predictions_have_average_precision_one(true):
    predicted = [[(*each, 1.0) for each in windows] for windows in true]
    np.testing.assert_allclose(average_precisions(predicted, true), 1.0)


def test_average_precisions_refuse_what_cannot_be_scored():
    with pytest.raises(UsageError, match=r"pred_windows.*\(queries: 2\), got 1"):
        average_precisions([[]], [[(0, 1)], [(0, 1)]])
    with pytest.raises(UsageError, match=r"true_windows\[1\]: expected one or more windows, got \[\]"):
        average_precisions([[], []], [[(0, 1)], []])
    with pytest.raises(UsageError, match=r"pred_windows\[0\]: expected an array \[n, 3\], got \(1, 2\)"):
        average_precisions([[(0, 1)]], [[(0, 1)]])
    with pytest.raises(UsageError, match=r"pred_windows\[0\]: expected finite values, got .*nan"):
        average_precisions([[(0, float("nan"), 1)]], [[(0, 1)]])


@given(queries=queries)
@settings(max_examples=40, deadline=None)
def test_hits_equal_counting_by_hand(queries):
    predicted = [[row[:2] for row in rows] for rows, _ in queries]
    true = [windows[0] for _, windows in queries]
    expected = [any(window_iou([p], [t]).item() > 0.3 for p in rows[:2]) for rows, t in zip(predicted, true, strict=True)]
    assert hits_at(predicted, true, count=2, threshold=0.3).tolist() == expected


def test_hits_are_strict_at_the_threshold():
    assert hits_at([[(0, 5)]], [(0, 10)], count=1, threshold=0.5).tolist() == [False]
    assert hits_at([[], [(4, 4)]], [(0, 10), (4, 4)], count=5, threshold=0.3).tolist() == [False, False]


def test_length_ranges_are_open_below_and_closed_above():
    windows = [(0, 10), (0, 10.5), (5, 35), (0, 31)]
    assert in_length_range(windows, (10, 30)).tolist() == [[0, 10.5], [5, 35]]


@given(first=st.lists(window, min_size=1, max_size=5), second=st.lists(window, min_size=5, max_size=5))
@settings(deadline=None)
def test_aligned_iou_is_the_diagonal_of_the_cross_form(first, second):
    np.testing.assert_allclose(
        aligned_window_iou(first, second[: len(first)]), np.diag(window_iou(first, second[: len(first)])), atol=1e-12
    )


def test_aligned_iou_with_epsilon_misses_an_exact_half():
    assert aligned_window_iou([(0, 5)], [(0, 10)]).tolist() == [0.5]
    assert 0.4999 < aligned_window_iou([(0, 5)], [(0, 10)], epsilon=1e-8).item() < 0.5
    with pytest.raises(UsageError, match=r"second_sec.*\(1\), got 2"):
        aligned_window_iou([(0, 5)], [(0, 5), (0, 5)])


def test_ranked_scores_are_means_over_queries_and_thresholds():
    # IoU 0.8 is found up to 0.8, 7 of 10 thresholds; the second query has two windows, of which one is found exactly; the third has none
    found = ranked_scores([[[0, 8, 1]], [[0, 4, 1]], []], [[[0, 10]], [[0, 4], [6, 9]], [[0, 1]]])
    assert found == pytest.approx({"map": (0.7 + 0.5 + 0) / 3, "map@0.5": (1 + 0.5 + 0) / 3, "map@0.75": (1 + 0.5 + 0) / 3})
