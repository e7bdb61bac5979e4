"""Hit@1 and average precision of highlights, against hand-computed values and a slow loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.errors import UsageError
from tpo_lab.metrics.highlights import clip_scores, highlight_average_precisions, highlight_hits, highlight_scores

clips = st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.booleans()), min_size=1, max_size=9)


def slow_average_precision(scores, positive):
    """For every level of recall above 0 the best precision of any threshold that reaches it; their mean."""
    points = []
    for threshold in sorted(set(scores)):
        picked = [label for score, label in zip(scores, positive, strict=True) if score >= threshold]
        points.append((sum(picked), sum(picked) / len(picked)))
    levels = {found for found, _ in points if found}
    return float(np.mean([max(p for found, p in points if found >= level) for level in levels])) if levels else 0.0


@given(queries=st.lists(clips, min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_average_precision_equals_the_definition(queries):
    scores = [[each[0] for each in query] for query in queries]
    labels = [[each[1:] for each in query] for query in queries]
    expected = [[slow_average_precision(s, [row[a] for row in rows]) for a in range(2)] for s, rows in zip(scores, labels, strict=True)]
    np.testing.assert_allclose(highlight_average_precisions(scores, labels), expected, atol=1e-12)


def column(*labels: int) -> list[list[bool]]:
    return [[bool(each)] for each in labels]


def test_average_precision_by_hand():
    # ranks: right, wrong, right, wrong: levels 1/2 and 1 with precision 1 and 2/3, the same weight each
    assert highlight_average_precisions([[4, 3, 2, 1]], [column(1, 0, 1, 0)]).item() == pytest.approx((1 + 2 / 3) / 2)
    # a tie of the first two is one threshold: its precision is 1/2, and 2/3 of the lower one is better
    assert highlight_average_precisions([[4, 4, 2, 1]], [column(1, 0, 1, 0)]).item() == pytest.approx(2 / 3)


def test_levels_of_recall_weigh_the_same_however_far_apart():
    # levels 1/4 (precision 1) and 4/4 (three at once: 4/5)
    assert highlight_average_precisions([[9, 5, 5, 5, 5]], [column(1, 1, 1, 1, 0)]).item() == pytest.approx((1 + 4 / 5) / 2)


def test_all_negative_is_zero_and_all_positive_is_one():
    assert highlight_average_precisions([[1, 2], [1, 2]], [column(0, 0), column(1, 1)]).tolist() == [[0.0], [1.0]]


def test_short_scores_are_filled_with_zero_and_long_ones_cut():
    assert highlight_average_precisions([[-1.0]], [column(1, 0)]).item() == 0.5
    assert highlight_average_precisions([[1.0, 0.5, 9.0]], [column(1, 0)]).item() == 1.0


def test_hit_takes_the_first_maximum_and_any_annotator():
    labels = [[False, False], [False, True]]
    assert highlight_hits([[1, 3], [3, 3]], [labels, labels]).tolist() == [True, False]


def test_hit_behind_the_video_is_a_miss():
    assert highlight_hits([[0.5, 0.1, 0.9]], [column(1, 1)]).tolist() == [False]


def test_no_prediction_is_a_miss_and_stays_in_every_mean():
    labels = [column(1, 1), column(1, 0)]
    assert highlight_hits([None, [2, 1]], labels).tolist() == [False, True]
    assert highlight_average_precisions([None, [2, 1]], labels).tolist() == [[0.0], [1.0]]
    assert highlight_average_precisions([None], [column(1)]).tolist() == [[0.0]]


def test_scores_say_what_bounds_them():
    found = highlight_scores([[2, 1], None, [1, 2], [0, 0]], [column(1, 0), column(1, 0), column(0, 0), column(0, 1)])
    rates = {"hl_missing_rate": 1 / 4, "hl_no_positive_rate": 1 / 4, "hl_count": 4.0}
    assert found == pytest.approx({"hl_hit@1": 1 / 4, "hl_map": (1 + 0 + 0 + 1 / 2) / 4, **rates})


def test_equal_scores_hit_where_the_first_clip_is_positive_and_their_precision_is_the_share_of_positives():
    labels = [column(1, 0, 0), column(0, 1, 1)]
    assert highlight_hits([[0.3] * 3] * 2, labels).tolist() == [True, False]
    assert highlight_average_precisions([[0.3] * 3] * 2, labels)[:, 0] == pytest.approx([1 / 3, 2 / 3])


@given(
    scores=st.lists(st.floats(-5, 5), min_size=1, max_size=12),
    step=st.sampled_from([0.1, 0.25, 1.0, 2.0]),
    within=st.floats(0.0, 0.99),
)
@settings(deadline=None)
def test_one_frame_per_clip_gives_the_scores_themselves(scores, step, within):
    curve = [[(clip + within) * step, score] for clip, score in enumerate(scores)]
    assert clip_scores(curve[::-1], step_sec=step, count=len(scores)).tolist() == scores


def test_clips_average_their_frames_and_empty_ones_take_the_nearest():
    # clip 0 holds two frames, clip 1 none (its middle at 3 s is as far from 1.5 as from 4.5), clip 2 one; the last frame lies behind
    curve = [[0.5, 1.0], [1.5, 3.0], [4.5, 7.0], [8.5, 9.0]]
    assert clip_scores(curve, step_sec=2.0, count=4).tolist() == [2.0, 3.0, 7.0, 9.0]
    assert clip_scores([[0.3, 1.0], [0.05, 2.0]], step_sec=0.1, count=4).tolist() == [2.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("curve", "step", "count", "message"),
    [
        ([], 1.0, 2, "one or more finite"),
        ([[0.0, math.nan]], 1.0, 2, "one or more finite"),
        ([[0.0, 1.0, 2.0]], 1.0, 2, "one or more finite"),
        ([[0.0, 1.0]], 0.0, 2, "seconds above 0"),
        ([[0.0, 1.0]], 1.0, 0, "1 or more clips"),
    ],
)
def test_clip_scores_refuse_what_is_no_curve(curve, step, count, message):
    with pytest.raises(UsageError, match=message):
        clip_scores(curve, step_sec=step, count=count)


def test_highlights_refuse_what_cannot_be_scored():
    with pytest.raises(UsageError, match=r"pred_scores.*\(queries: 2\), got 1"):
        highlight_hits([[1]], [column(1), column(1)])
    with pytest.raises(UsageError, match=r"pred_scores\[0\]: expected one or more finite scores, got \[nan\]"):
        highlight_hits([[math.nan]], [column(1)])
    with pytest.raises(UsageError, match=r"positive\[1\].*\[clip, 1\], got \(1, 2\)"):
        highlight_average_precisions([[1], [1]], [column(1), [[True, False]]])
