"""J and F of small masks by hand and against a slow oracle; statistics over frames; gIoU and cIoU."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.errors import UsageError
from tpo_lab.metrics.masks import (
    contour,
    contour_accuracy,
    contour_radius,
    cumulative_iou,
    frame_statistics,
    object_ious,
    overlap,
    proposal_objects,
    region_similarity,
)


def mask(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


def block(size: tuple[int, int], top: int, left: int, height: int, width: int) -> np.ndarray:
    made = np.zeros(size, dtype=bool)
    made[top : top + height, left : left + width] = True
    return made


def slow_contour(inside: np.ndarray) -> list[tuple[int, int]]:
    height, width = inside.shape
    found = []
    for row in range(height):
        for column in range(width):
            steps = [(0, 1), (1, 0), (1, 1)]
            if row == height - 1:
                steps = [(0, 1)]
            elif column == width - 1:
                steps = [(1, 0)]
            around = [(row + down, column + right) for down, right in steps if row + down < height and column + right < width]
            if any(inside[row, column] != inside[place] for place in around):
                found.append((row, column))
    return found


def slow_f(pred: np.ndarray, true: np.ndarray, radius: int) -> float:
    first, second = slow_contour(pred), slow_contour(true)
    if not first and not second:
        return 1.0
    if not first or not second:
        return 0.0

    def share(points, others):
        return sum(any((a - c) ** 2 + (b - d) ** 2 <= radius**2 for c, d in others) for a, b in points) / len(points)

    precision, recall = share(first, second), share(second, first)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_contour_lies_on_the_upper_left_side_of_the_edge():
    assert (contour(mask("....", ".#..", "....")) == mask("##..", "##..", "....")).all()


def test_contour_in_the_last_row_and_column_and_corner():
    # the border of the frame is no edge, and the last pixel has no neighbour left
    assert (contour(mask("....", "...#", "..##")) == mask("..##", ".##.", ".#..")).all()
    assert not contour(np.ones((3, 5))).any() and not contour(np.zeros((3, 5))).any()
    assert (contour(mask("..#.")) == mask(".##.")).all() and (contour(mask(".", "#", ".")) == mask("#", "#", ".")).all()


@pytest.mark.parametrize(("size", "radius"), [((480, 854), 8), ((480, 910), 9), ((5, 7), 1), ((75, 100), 1), ((1080, 1920), 18)])
def test_radius_is_a_share_of_the_diagonal_rounded_up(size, radius: int):
    assert contour_radius(size) == radius
    assert contour_radius(size, 3) == 3


def test_region_similarity_by_hand():
    pred, true = mask("##..", "##.."), mask(".##.", ".##.")
    assert region_similarity(pred, true) == 2 / 6 and overlap(pred, true) == (2, 6)
    assert region_similarity(pred, true, mask("#...", ".#..")) == 1 / 4
    assert region_similarity(pred, true, np.ones((2, 4))) == 1.0


@pytest.mark.parametrize(("pred", "true", "expected"), [(0, 0, (1, 1)), (1, 0, (0, 0)), (0, 1, (0, 0))])
def test_empty_masks(pred: int, true: int, expected):
    some = block((9, 11), 2, 3, 4, 5)
    masks = some & bool(pred), some & bool(true)
    assert (region_similarity(*masks), contour_accuracy(*masks)) == expected


def test_a_whole_frame_has_no_contour():
    full, empty = np.ones((6, 8), dtype=bool), np.zeros((6, 8), dtype=bool)
    assert contour_accuracy(full, empty) == 1.0 and region_similarity(full, empty) == 0.0
    assert contour_accuracy(full, block((6, 8), 1, 1, 2, 2)) == 0.0


@pytest.mark.parametrize(("moved", "expected"), [(3, 1.0), (4, 0.5), (5, 0.0)])
def test_contours_meet_within_the_radius_and_not_beyond(moved: int, expected: float):
    # the contour of a lone pixel is 2 x 2: one column further than the radius, the columns that face each other still meet
    size = (40, 60)
    assert contour_accuracy(block(size, 20, 10, 1, 1), block(size, 20, 10 + moved, 1, 1), tolerance=3) == expected


def test_the_disk_is_euclidean():
    # contours at (0..1, 0..1) and (3..4, 3..4) offset: the nearest pixels are (2, 2) apart
    one, other = block((30, 40), 10, 10, 1, 1), block((30, 40), 13, 13, 1, 1)
    assert contour_accuracy(one, other, tolerance=2) == 0.0  # sqrt(8) > 2
    assert contour_accuracy(one, other, tolerance=3) == 0.25  # one of four pixels each


def test_precision_and_recall_are_joined_by_their_harmonic_mean():
    true = block((50, 70), 5, 5, 1, 1)
    pred = true | block((50, 70), 40, 60, 1, 1)
    assert contour_accuracy(pred, true) == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert contour_accuracy(true, pred) == pytest.approx(2 / 3)


def test_void_is_background_in_both_contours():
    true, pred = block((20, 30), 5, 5, 6, 6), block((20, 30), 5, 5, 6, 12)
    void = block((20, 30), 0, 11, 20, 19)
    assert contour_accuracy(pred, true) < 1.0 and contour_accuracy(pred, true, void) == 1.0 and region_similarity(pred, true, void) == 1.0


sizes = st.tuples(st.integers(1, 9), st.integers(1, 12))


@settings(max_examples=40, deadline=None)
@given(size=sizes, seed=st.integers(0, 10_000), share=st.sampled_from([0.0, 0.05, 0.4, 0.9, 1.0]), radius=st.integers(1, 4))
def test_f_equals_a_slow_oracle(size, seed: int, share: float, radius: int):
    generator = np.random.default_rng(seed)
    pred, true = generator.random(size) < share, generator.random(size) < 0.3
    assert contour_accuracy(pred, true, tolerance=radius) == pytest.approx(slow_f(pred, true, radius), abs=1e-12)
    assert contour_accuracy(true, pred, tolerance=radius) == pytest.approx(slow_f(pred, true, radius), abs=1e-12)
    assert contour_accuracy(true, true, tolerance=radius) == region_similarity(true, true) == 1.0


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_f_of_blobs_equals_a_dilated_image(seed: int):
    from scipy import ndimage

    generator = np.random.default_rng(seed)
    pred, true = (ndimage.gaussian_filter(generator.standard_normal((60, 107)), 4) > 0.02 for _ in range(2))
    radius = 3
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    first, second = contour(pred), contour(true)
    grown = [ndimage.binary_dilation(each, rows**2 + columns**2 <= radius**2) for each in (first, second)]
    precision, recall = (first & grown[1]).sum() / first.sum(), (second & grown[0]).sum() / second.sum()
    assert contour_accuracy(pred, true, tolerance=radius) == 2 * precision * recall / (precision + recall)


def test_masks_that_do_not_fit_are_refused():
    good = np.zeros((3, 5))
    with pytest.raises(UsageError, match=r"pred: expected a mask of the size of the true one \(3, 5\), got \(5, 3\)"):
        region_similarity(good.T, good)
    with pytest.raises(UsageError, match=r"void: expected .*\(3, 5\), got \(3,\)"):
        contour_accuracy(good, good, np.zeros(3))
    with pytest.raises(UsageError, match=r"true: expected a mask \[h, w\], got \(2, 3, 5\)"):
        overlap(good, np.zeros((2, 3, 5)))


def test_statistics_of_frames_by_hand():
    # 9 frames: quarters end at frames 1, 3, 5, 7, 9 and share them
    values = [1.0, 0.9, 0.8, 0.5, 0.5, 0.5, 0.6, 0.2, 0.1]
    mean, recall, decay = frame_statistics(values)
    assert (mean, recall, decay) == pytest.approx((5.1 / 9, 4 / 9, 0.9 - 0.3))


@pytest.mark.parametrize(("frames", "first", "last"), [(1, [0], [0]), (2, [0], [1]), (3, [0, 1], [2]), (7, [0, 1, 2], [5, 6])])
def test_quarters_of_few_frames_round_halves_up(frames: int, first: list[int], last: list[int]):
    values = np.arange(frames) ** 2.0
    assert frame_statistics(values)[2] == values[first].mean() - values[last].mean()


def test_quarters_wrap_at_a_byte():
    values = np.random.default_rng(0).random(400)
    assert frame_statistics(values[:256])[2] == pytest.approx(values[:65].mean() - values[191:256].mean())
    assert math.isnan(frame_statistics(values[:257])[2])
    # ends 0, 100, 200, 299, 399: 299 and 399 are 43 and 143 in a byte
    assert frame_statistics(values)[2] == pytest.approx(values[:101].mean() - values[43:144].mean())


@pytest.mark.parametrize("values", [[], [[0.5, 0.1]]])
def test_statistics_need_frames(values):
    with pytest.raises(UsageError, match="values: expected one value per frame, at least one, got"):
        frame_statistics(values)


def test_each_object_takes_the_proposal_of_the_best_assignment():
    # greedily, object 0 would take proposal 2 and leave object 1 with 0.1
    region = np.array([[[0.0], [0.1]], [[0.8], [0.0]], [[0.9], [0.7]]])
    j, f = proposal_objects(region, region / 2)
    assert j.tolist() == [[0.8], [0.7]] and f.tolist() == [[0.4], [0.35]]
    with pytest.raises(UsageError, match=r"region: expected \[proposal >= object.*got \(1, 2, 1\)"):
        proposal_objects(region[:1], region[:1])


def test_refseg_by_hand():
    rows = [[50, 100], [0, 0], [1, 1]]
    assert object_ious(rows).tolist() == [50 / (100 + 1e-5), 1.0, 1 / (1 + 1e-5)]
    assert cumulative_iou(rows) == 51 / (101 + 1e-10)
    assert cumulative_iou([[0, 0]]) == 0.0
    with pytest.raises(UsageError, match=r"overlaps: expected .*at least one object, got \(0,\)"):
        cumulative_iou([])
