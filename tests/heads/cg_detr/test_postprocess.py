"""Windows in seconds: cut, ranked, and never without length."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tpo_lab.heads.cg_detr.postprocess import snap, windows_of


def test_windows_are_cut_to_the_clip_and_come_best_first() -> None:
    spans = torch.tensor([[0.5, 0.2], [0.1, 0.4], [0.9, 0.4]])
    windows, scores = windows_of(spans, torch.tensor([0.1, 0.7, 0.3]), 10.0, None)
    assert scores.tolist() == pytest.approx([0.7, 0.3, 0.1])
    assert windows.flatten().tolist() == pytest.approx([0.0, 3.0, 7.0, 10.0, 4.0, 6.0])


def test_rounding_moves_to_the_nearest_step_and_keeps_one_step() -> None:
    windows = torch.tensor([[1.2, 3.7], [4.6, 5.3], [5.1, 5.3], [9.7, 9.9]])
    assert snap(windows, 2.0, 9.9).tolist() == [[2.0, 4.0], [4.0, 6.0], [4.0, 6.0], [8.0, pytest.approx(9.9)]]


@given(st.floats(0, 30), st.floats(0.01, 30), st.floats(0.1, 7), st.floats(0.5, 40))
def test_no_rounded_window_is_empty_or_leaves_the_clip(start: float, length: float, step: float, duration: float) -> None:
    window = torch.tensor([[start, start + length]], dtype=torch.float64).clamp(0, duration)
    if window[0, 0] == window[0, 1]:
        return
    begin, end = snap(window, step, duration)[0].tolist()
    assert 0 <= begin < end <= duration
