"""Window metrics against values worked out by hand, a grid reference, and the official numbers of QVHighlights."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.errors import UsageError
from tpo_lab.metrics.temporal import moment_ious, moment_scores, window_iou

second = st.integers(0, 12)
any_window = st.tuples(second, second)
true_window = st.tuples(second, st.integers(1, 9)).map(lambda w: (w[0], w[0] + w[1]))
ranked = st.none() | st.lists(any_window, max_size=3)


def grid_iou(first: tuple[int, int], other: tuple[int, int]) -> float:
    """IoU by counting whole seconds; an inverted window covers none."""
    one, two = set(range(*first)), set(range(*other))
    return len(one & two) / len(one | two) if one | two else 0.0


@given(first=st.lists(any_window, min_size=1, max_size=3), other=st.lists(any_window, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_window_iou_equals_counting_seconds(first, other):
    np.testing.assert_allclose(window_iou(first, other), [[grid_iou(a, b) for b in other] for a in first], atol=1e-12)


@pytest.mark.parametrize("window", [(math.nan, 4.0), (0.0, math.inf), (-math.inf, math.inf), (5.0, 5.0)])
def test_window_iou_of_degenerate_windows_is_zero(window):
    assert window_iou([window], [(0.0, 8.0), (5.0, 5.0)]).tolist() == [[0.0, 0.0]]


def test_moment_scores_by_hand():
    predicted = [[(2, 6), (0, 10)], [(0, 10)], [(0, 3), (0, 10)], None, [], [(9, 1)]]
    true = [[(2, 6)], [(0, 1), (5, 10)], [(0, 10)], [(0, 4)], [(0, 4)], [(0, 10)]]
    np.testing.assert_allclose(moment_ious(predicted, true), [1.0, 0.5, 0.3, 0, 0, 0])
    assert moment_scores(predicted, true) == pytest.approx(
        {"r1@0.3": 3 / 6, "r1@0.5": 2 / 6, "r1@0.7": 1 / 6, "miou": 1.8 / 6, "missing_rate": 2 / 6, "inverted_rate": 1 / 6, "count": 6}
    )


def test_moment_scores_take_the_first_window_and_not_the_best():
    assert moment_ious([[(8, 9), (0, 4)]], [[(0, 4)]]).tolist() == [0.0]


def test_moment_scores_strict_is_nlqs_rule():
    scores = moment_scores([[(0, 5)]], [[(0, 10)]], thresholds=(0.3, 0.5), strict=True)
    assert (scores["r1>0.3"], scores["r1>0.5"]) == (1.0, 0.0)
    assert not any(key.startswith("r1@") for key in scores)


@given(pairs=st.lists(st.tuples(ranked, st.lists(true_window, min_size=1, max_size=3)), min_size=1, max_size=6), random=st.randoms())
@settings(max_examples=50, deadline=None)
def test_moment_scores_ignore_the_order_of_samples_and_of_true_windows(pairs, random):
    shuffled = [(predicted, random.sample(true, len(true))) for predicted, true in random.sample(pairs, len(pairs))]
    scores, again = (moment_scores(*map(list, zip(*order, strict=True))) for order in (pairs, shuffled))
    assert scores == pytest.approx(again)
    assert all(0 <= value <= 1 for key, value in scores.items() if key != "count")
    assert scores["r1@0.3"] >= scores["r1@0.5"] >= scores["r1@0.7"]


@given(true=st.lists(st.lists(true_window, min_size=1, max_size=3), min_size=1, max_size=5))
def test_moment_scores_of_perfect_predictions(true):
    scores = moment_scores(true, true)
    assert [scores[key] for key in ("r1@0.3", "r1@0.5", "r1@0.7", "miou")] == [1.0] * 4


def test_moment_scores_refuse_what_cannot_be_scored():
    with pytest.raises(UsageError, match=r"pred_windows.*\(targets: 2\), got 1"):
        moment_scores([None], [[(0, 1)], [(0, 1)]])
    with pytest.raises(UsageError, match=r"true_windows\[1\]: expected one or more finite windows with start <= end, got \[\]"):
        moment_scores([None, None], [[(0, 1)], []])
    with pytest.raises(UsageError, match=r"true_windows\[0\].*got \[\[4\.0, 1\.0\]\]"):
        moment_ious([None], [[(4, 1)]])
    with pytest.raises(UsageError, match=r"pred_windows\[0\]: expected windows \[n, 2\] of start and end, got \(1, 3\)"):
        moment_ious([[(0, 1, 0.9)]], [[(0, 1)]])


def test_moment_scores_equal_the_official_qvhighlights_numbers(real: Path):
    folder = real / "qvhighlights"
    truth, predicted = (
        {row["qid"]: row for row in map(json.loads, (folder / name).read_text().splitlines())}
        for name in ("highlight_val_release.jsonl", "sample_val_preds.jsonl")
    )
    official = json.loads((folder / "sample_val_preds_metrics_raw.json").read_text())["full"]["MR-R1"]
    windows = [[window[:2] for window in predicted[qid]["pred_relevant_windows"]] for qid in truth]
    scores = moment_scores(windows, [row["relevant_windows"] for row in truth.values()], thresholds=[float(t) for t in official])
    assert {t: round(100 * scores[f"r1@{t}"], 2) for t in official} == official
