"""Spans: conversions, 1-D IoU, the cells that frames stand for, and targets on them, against plain-Python oracles."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.errors import UsageError
from tpo_lab.spans import (
    boundary_weights,
    coverage,
    cw_to_sec,
    frame_cells,
    pairwise_span_giou,
    pairwise_span_iou,
    sec_to_cw,
    span_giou,
    span_iou,
    span_nms,
)

quick = settings(deadline=None, max_examples=30)
DURATION = 10.0
window = st.tuples(st.floats(0, DURATION, width=32), st.floats(0, DURATION, width=32)).map(sorted)
times = st.lists(st.floats(0, DURATION, width=32), min_size=1, max_size=6).map(sorted)


def cells_of(times_sec: list[float], duration: float = DURATION) -> torch.Tensor:
    row = torch.tensor([times_sec], dtype=torch.float64)
    return frame_cells(row, torch.tensor([duration], dtype=torch.float64), torch.ones_like(row, dtype=torch.bool))[0]


def test_seconds_to_centre_and_width_divide_by_each_clip_s_duration() -> None:
    windows = torch.tensor([[[2.0, 6.0]], [[0.0, 5.0]]])
    spans_cw = sec_to_cw(windows, torch.tensor([[8.0], [20.0]]))
    torch.testing.assert_close(spans_cw, torch.tensor([[[0.5, 0.5]], [[0.125, 0.25]]]))
    torch.testing.assert_close(cw_to_sec(spans_cw, torch.tensor([[8.0], [20.0]])), windows)


def test_conversion_refuses_a_clip_without_duration() -> None:
    with pytest.raises(UsageError, match=r"duration_sec: expected seconds above 0, got 0\.0"):
        sec_to_cw(torch.tensor([[1.0, 2.0]]), 0.0)


def test_iou_and_giou_of_worked_examples() -> None:
    a = torch.tensor([[0.0, 4.0], [0.0, 1.0]])
    b = torch.tensor([[2.0, 6.0], [3.0, 4.0]])
    assert span_iou(a, b).tolist() == pytest.approx([2 / 6, 0])
    assert span_giou(a, b).tolist() == pytest.approx([2 / 6, -(4 - 2) / 4])


@quick
@given(window, window)
def test_giou_is_symmetric_bounded_and_never_above_iou(a: list[float], b: list[float]) -> None:
    first, second = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    iou, giou = span_iou(first, second).item(), span_giou(first, second).item()
    assert giou == pytest.approx(span_giou(second, first).item(), abs=1e-12)
    assert -1 <= giou <= iou + 1e-12 <= 1 + 2e-12


def test_pairwise_tables_have_rows_of_the_first_and_columns_of_the_second() -> None:
    a, b = torch.tensor([[0.0, 4.0], [4.0, 6.0]]), torch.tensor([[0.0, 4.0], [2.0, 4.0], [5.0, 9.0]])
    torch.testing.assert_close(pairwise_span_iou(a, b), torch.tensor([[1, 0.5, 0], [0, 0, 0.2]]))
    torch.testing.assert_close(pairwise_span_giou(a, b)[1], torch.tensor([-0.0, 0, 0.2]))


def test_gradient_of_giou_without_overlap_is_finite_and_not_zero() -> None:
    leaf = torch.tensor([0.0, 1.0], requires_grad=True)
    span_giou(leaf, torch.tensor([5.0, 6.0])).backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert leaf.grad.abs().sum() > 0


def test_cells_meet_at_midpoints_and_reach_both_ends() -> None:
    assert cells_of([1.0, 2.0, 6.0]).tolist() == [[0, 1.5], [1.5, 4], [4, 10]]


def test_one_frame_stands_for_the_whole_clip() -> None:
    assert cells_of([3.0]).tolist() == [[0, 10]]


@quick
@given(times)
def test_cells_tile_the_clip_and_hold_their_frame(times_sec: list[float]) -> None:
    cells = cells_of(times_sec)
    assert cells[0, 0] == 0
    assert cells[-1, 1] == DURATION
    assert torch.equal(cells[1:, 0], cells[:-1, 1])
    moments = torch.tensor(times_sec, dtype=torch.float64)
    assert ((cells[:, 0] <= moments) & (moments <= cells[:, 1])).all()


@pytest.mark.parametrize("where", [0, 2, 5], ids=["before", "between", "after"])
def test_masked_frames_change_no_valid_cell(where: int) -> None:
    times_sec, valid = [1.0, 2.0, 6.0, 7.0, 9.0], [True] * 5
    padded = [*times_sec[:where], float("nan"), 99.0, *times_sec[where:]]
    mask = torch.tensor([[*valid[:where], False, False, *valid[where:]]])
    cells = frame_cells(torch.tensor([padded]), torch.tensor([DURATION]), mask)
    torch.testing.assert_close(cells[mask], cells_of(times_sec).float())
    assert (cells[~mask] == 0).all()


def test_cells_stop_at_the_duration_where_a_frame_lies_behind_it() -> None:
    assert cells_of([1.0, 9.0, 12.0]).tolist() == [[0, 5], [5, 10], [10, 10]]


def test_decreasing_times_are_refused() -> None:
    with pytest.raises(UsageError, match=r"times_sec: .*got \[\[1\.0, 3\.0, 2\.0\]\]"):
        cells_of([1.0, 3.0, 2.0])


def covered(cell: list[float], windows: list[list[float]]) -> float:
    """Length of a cell inside the union of windows, by walking over all cut points."""
    cuts = sorted({cell[0], cell[1], *(min(max(edge, cell[0]), cell[1]) for pair in windows for edge in pair)})
    pieces = itertools.pairwise(cuts)
    return sum(high - low for low, high in pieces if any(start <= low and high <= end for start, end in windows))


@quick
@given(times, st.lists(window, max_size=4))
def test_coverage_of_overlapping_windows_equals_the_oracle(times_sec: list[float], windows: list[list[float]]) -> None:
    cells = cells_of(times_sec)
    stacked = torch.tensor(windows, dtype=torch.float64).reshape(1, -1, 2)
    share = coverage(cells[None], stacked, torch.ones(1, len(windows), dtype=torch.bool))[0]
    for cell, got in zip(cells.tolist(), share.tolist(), strict=True):
        if cell[1] - cell[0] > 1e-3:
            assert got == pytest.approx(covered(cell, windows) / (cell[1] - cell[0]), abs=1e-6)


def test_coverage_leaves_out_masked_windows() -> None:
    cells = torch.tensor([[[0.0, 5.0], [5.0, 10.0]], [[0.0, 5.0], [5.0, 10.0]]])
    windows = torch.tensor([[[4.0, 6.0], [0.0, 10.0], [0.0, 1.0]], [[0.0, 10.0], [5.0, 5.5], [0.0, 0.0]]])
    mask = torch.tensor([[True, False, True], [False, True, False]])
    torch.testing.assert_close(coverage(cells, windows, mask), torch.tensor([[0.4, 0.2], [0, 0.1]]))


def test_a_cell_without_length_counts_as_its_moment() -> None:
    cells = torch.tensor([[[3.0, 3.0], [5.0, 5.0]]])
    assert coverage(cells, torch.tensor([[[3.0, 5.0]]]), torch.tensor([[True]])).tolist() == [[1, 0]]


def weights(times_sec: list[float], moments: list[float]) -> list[float]:
    row, points = torch.tensor([times_sec]), torch.tensor([moments])
    every = torch.ones_like(row, dtype=torch.bool)
    return boundary_weights(row, every, points, torch.ones_like(points, dtype=torch.bool))[0].tolist()


def test_a_boundary_is_split_in_proportion_to_nearness() -> None:
    assert weights([0.0, 2.0, 6.0], [3.0]) == pytest.approx([0, 0.75, 0.25])


def test_boundaries_outside_the_frames_go_to_the_first_and_last() -> None:
    assert weights([1.0, 2.0, 6.0], [0.5]) == [1, 0, 0]
    assert weights([1.0, 2.0, 6.0], [9.0]) == [0, 0, 1]


def test_several_boundaries_share_the_mass() -> None:
    assert weights([0.0, 2.0, 6.0], [2.0, 5.0]) == pytest.approx([0, 0.5 + 0.125, 0.375])


@quick
@given(times, st.floats(0, DURATION, width=32))
def test_weights_sum_to_one_and_peak_in_the_cell_of_the_moment(times_sec: list[float], moment: float) -> None:
    got = weights(times_sec, [moment])
    assert sum(got) == pytest.approx(1, abs=1e-5)
    distances = [abs(second - moment) for second in times_sec]
    best = max(range(len(got)), key=got.__getitem__)
    assert distances[best] == pytest.approx(min(distances), abs=1e-4)


def test_no_boundary_and_padding_give_no_mass() -> None:
    row = torch.tensor([[1.0, 2.0, float("nan")], [1.0, 2.0, 3.0]])
    valid = torch.tensor([[True, True, False], [True, True, True]])
    got = boundary_weights(row, valid, torch.tensor([[1.5, 0.0], [0.0, 0.0]]), torch.tensor([[True, False], [False, False]]))
    assert got.tolist() == [[0.5, 0.5, 0], [0, 0, 0]]


def test_nms_keeps_the_best_and_drops_what_overlaps_it() -> None:
    windows = torch.tensor([[0.0, 4.0], [0.0, 5.0], [6.0, 8.0], [4.0, 6.0]])
    scores = torch.tensor([0.5, 0.9, 0.7, 0.1])
    assert span_nms(windows, scores, iou=0.5, count=5).tolist() == [1, 2, 3]
    assert span_nms(windows, scores, iou=0.5, count=2).tolist() == [1, 2]
    assert span_nms(windows, scores, iou=0.8, count=5).tolist() == [1, 2, 0, 3]
    assert span_nms(windows[:0], scores[:0], iou=0.5, count=2).tolist() == []
