"""Windows of the temporal heads: read and cut, padded, and pooled without near doubles."""

from __future__ import annotations

import pytest
import torch

from tpo_lab.errors import UsageError
from tpo_lab.heads import ClipInfo
from tpo_lab.heads.windows import pad_windows, pool_windows, read_windows

CLIP = ClipInfo(width=80, height=60, duration_sec=10.0, times_sec=(1.0, 5.0, 9.0))


def test_windows_are_cut_to_the_clip_and_none_are_an_empty_list() -> None:
    assert read_windows([[-1.0, 4.0], [8.0, 12.0]], CLIP).tolist() == [[0, 4], [8, 10]]
    assert read_windows([], CLIP).shape == (0, 2)
    for wrong in ([5.0, 5.0], [6.0, 4.0], [10.0, 12.0]):
        with pytest.raises(UsageError, match=rf"windows_sec\[1\]: expected start < end, .* 10 s, got \[{wrong[0]}, {wrong[1]}\]"):
            read_windows([[0.0, 1.0], wrong], CLIP)


def test_windows_are_padded_to_the_longest_list() -> None:
    windows, valid = pad_windows([torch.tensor([[0.0, 4.0]]), torch.zeros(0, 2), torch.tensor([[1.0, 2.0], [3.0, 5.0]])])
    assert windows.tolist() == [[[0, 4], [0, 0]], [[0, 0], [0, 0]], [[1, 2], [3, 5]]]
    assert valid.tolist() == [[True, False], [False, False], [True, True]]
    assert [part.shape for part in pad_windows([])] == [(0, 0, 2), (0, 0)]


def test_slots_pool_their_windows_without_doubles() -> None:
    one = (torch.tensor([[0.0, 4.0], [5.0, 6.0]]), torch.tensor([0.9, 0.2]))
    other = (torch.tensor([[0.1, 4.0], [8.0, 9.0]]), torch.tensor([0.8, 0.5]))
    windows, scores = pool_windows([one, other], nms_iou=0.7, count=10)
    assert windows == [[0.0, 4.0], [8.0, 9.0], [5.0, 6.0]]
    assert scores == pytest.approx([0.9, 0.5, 0.2])
    assert len(pool_windows([one, other], nms_iou=1.0, count=10)[0]) == 4
    assert pool_windows([one, other], nms_iou=0.7, count=1)[0] == [[0.0, 4.0]]
