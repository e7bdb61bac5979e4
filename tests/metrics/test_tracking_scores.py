"""Tracking by hand: what each evaluator of LaSOT does with the frames on which they differ, and GOT-10k's clipping and counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.errors import UsageError
from tpo_lab.metrics.tracking import (
    LASOT_VARIANTS,
    TrackCurves,
    got10k_ious,
    got10k_scores,
    lasot_curves,
    lasot_scores,
    stacked_lasot_scores,
)

BOX = (10.0, 20.0, 4.0, 5.0)
side = st.integers(1, 12)
box = st.tuples(side, side, side, side)
tracks = st.lists(st.tuples(box, box), min_size=2, max_size=6)


def cells(x, y, w, h):
    return {(column, row) for column in range(x, x + w) for row in range(y, y + h)}


def counted_iou(first, second):
    """IoU of whole boxes by counting cells: without negative sizes the + 1 of the pixel convention cancels out."""
    return len(cells(*first) & cells(*second)) / len(cells(*first) | cells(*second))


@pytest.mark.parametrize("variant", LASOT_VARIANTS)
@given(frames=tracks)
@settings(max_examples=40, deadline=None)
def test_curves_equal_counting_cells(variant, frames):
    predicted, true = map(list, zip(*frames, strict=True))
    curves = lasot_curves(predicted, true, [0] * len(true), variant=variant)
    predicted[0] = true[0]
    ious = [counted_iou(p, t) for p, t in zip(predicted, true, strict=True)]
    errors = [
        math.dist((p[0] + p[2] / 2, p[1] + p[3] / 2), (t[0] + t[2] / 2, t[1] + t[3] / 2)) for p, t in zip(predicted, true, strict=True)
    ]
    for place in (1, 5, 13):
        near = any(abs(iou - place / 20) < 1e-9 for iou in ious)
        assert near or curves.success[place] == np.mean([iou > place / 20 for iou in ious])
    assert curves.precision[2] == np.mean([error <= 2 for error in errors]) or any(abs(error - 2) < 1e-9 for error in errors)


@pytest.mark.parametrize("variant", LASOT_VARIANTS)
def test_perfect_track_fails_only_at_iou_one(variant):
    scores = lasot_scores([lasot_curves([BOX] * 3, [BOX] * 3, [0] * 3, variant=variant)], variant=variant)
    assert scores == pytest.approx({"Success": 20 / 21, "P": 1, "P_norm": 1, "SR@0.5": 1, "SR@0.75": 1})


def test_first_frame_is_the_true_one():
    curves = lasot_curves([(500, 500, 1, 1), BOX], [BOX, BOX], [0, 0])
    assert curves.success[10] == 1.0


def test_absent_frames_are_failures_but_for_got10k():
    found = {variant: lasot_curves([BOX] * 4, [BOX] * 4, [0, 1, 0, 1], variant=variant) for variant in LASOT_VARIANTS}
    assert {name: curves.success[10] for name, curves in found.items()} == {"matlab": 0.5, "pytracking": 0.5, "got10k": 1.0}
    assert {name: curves.norm_precision[50] for name, curves in found.items()} == {"matlab": 0.5, "pytracking": 0.5, "got10k": 1.0}


def test_visible_frame_without_true_size_passes_matlabs_errors():
    true = [BOX, (10.0, 20.0, 0.0, 5.0)]
    matlab, pytracking = (lasot_curves([BOX, BOX], true, [0, 0], variant=variant) for variant in ("matlab", "pytracking"))
    assert (matlab.precision[0], pytracking.precision[50]) == (1.0, 0.5)
    assert (matlab.success[0], pytracking.success[0]) == (0.5, 0.5)
    assert (matlab.norm_precision[0], pytracking.norm_precision[0]) == (1.0, 1.0)


def test_true_corner_at_zero_is_invalid_for_matlab_only():
    zero = (0.0, 20.0, 4.0, 5.0)
    found = {name: lasot_curves([zero] * 2, [zero] * 2, [0, 0], variant=name).success[10] for name in LASOT_VARIANTS}
    assert found == {"matlab": 0.0, "pytracking": 1.0, "got10k": 1.0}


def test_broken_prediction_becomes_the_one_before():
    track = [(1.0, 1.0, 1.0, 1.0), BOX, (math.nan, 0, 0, 0), (0, 0, 0, 7)]
    assert lasot_curves(track, [BOX] * 4, [0] * 4).success[19] == 1.0
    with pytest.raises(UsageError, match=r"pred_xywh\[2\]: expected no NaN and no negative size.*nan"):
        lasot_curves(track, [BOX] * 4, [0] * 4, variant="pytracking")
    assert lasot_curves([BOX, BOX, (5, 5, 0, 0)], [BOX] * 3, [0] * 3, variant="pytracking").success[19] == 1.0


def test_long_predictions_are_cut_and_short_ones_refused():
    assert lasot_curves([BOX] * 5, [BOX] * 3, [0] * 3).success[10] == 1.0
    with pytest.raises(UsageError, match=r"pred_xywh: expected one box per true box \(3\), got 2"):
        lasot_curves([BOX] * 2, [BOX] * 3, [0] * 3)


def test_matlab_drops_videos_whose_curve_is_zero():
    good, none = lasot_curves([BOX] * 2, [BOX] * 2, [0, 0]), lasot_curves([BOX] * 2, [BOX] * 2, [1, 1])
    assert lasot_scores([good, none])["P"] == 1.0
    assert lasot_scores([good, none], variant="pytracking")["P"] == 0.5


def test_normalised_precision_is_a_point_or_the_mean_of_the_curve():
    shifted = (12.0, 20.0, 4.0, 5.0)  # half a width aside
    curves = {name: lasot_curves([BOX, shifted], [BOX, BOX], [0, 0], variant=name) for name in LASOT_VARIANTS}
    found = {name: lasot_scores([each], variant=name)["P_norm"] for name, each in curves.items()}
    assert found == pytest.approx({"matlab": 0.5, "pytracking": 0.5, "got10k": (50 * 0.5 + 1.0) / 51})


def test_stacked_curves_score_as_the_list_of_them():
    tracks = [[BOX, (11.0 + far, 20.0, 4.0, 6.0), BOX] for far in range(4)]
    for variant in LASOT_VARIANTS:
        curves = [lasot_curves(track, [BOX] * 3, [0, 0, 1], variant=variant) for track in tracks]
        parts = zip(*((each.success, each.precision, each.norm_precision) for each in curves), strict=True)
        assert stacked_lasot_scores(TrackCurves(*map(np.stack, parts)), variant=variant) == lasot_scores(curves, variant=variant)
    with pytest.raises(UsageError, match="variant: expected one of got10k, matlab, pytracking, got 'matlb'"):
        stacked_lasot_scores(curves[0], variant="matlb")


def test_unknown_variant_is_refused():
    with pytest.raises(UsageError, match="variant: expected one of got10k, matlab, pytracking, got 'matlb'"):
        lasot_curves([BOX], [BOX], [0], variant="matlb")


def test_got10k_leaves_out_the_first_frame_and_uncovered_ones():
    far = (90.0, 90.0, 5.0, 5.0)
    assert got10k_ious([far, BOX, far], [BOX] * 3, [8, 8, 0], (100, 100)) == pytest.approx([1.0])
    assert got10k_scores([1.0, 0.5, 0.75, 0.2]) == {"AO": pytest.approx(2.45 / 4), "SR@0.5": 0.5, "SR@0.75": 0.25}


def test_got10k_clips_without_shortening_at_the_left():
    # (-4, 0, 10, 10) becomes (0, 0, 10, 10), since the width is only held by W - x
    assert got10k_ious([BOX, (-4, 0, 10, 10)], [BOX, (0, 0, 10, 10)], [1, 1], (50, 50)) == pytest.approx([1.0])
    assert got10k_ious([BOX, (45, 0, 10, 10)], [BOX, (45, 0, 5, 10)], [1, 1], (50, 50)) == pytest.approx([1.0])


def test_got10k_refuses_lengths_and_nothing():
    with pytest.raises(UsageError, match=r"cover: expected one row per true box \(2\), got 3"):
        got10k_ious([BOX] * 2, [BOX] * 2, [1, 1, 1], (50, 50))
    with pytest.raises(UsageError, match="ious: expected at least one counted frame, got 0"):
        got10k_scores([])
