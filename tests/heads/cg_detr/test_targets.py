"""Annotations to targets: windows, graded saliency, frames of the moment, and clips in which nothing happens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tpo_lab.errors import UsageError
from tpo_lab.heads import ClipInfo
from tpo_lab.heads.cg_detr.targets import CGDETRTarget, collate_items, encode_item
from tpo_lab.spans import frame_cells

CLIP = ClipInfo(width=80, height=60, duration_sec=10.0, times_sec=(1.0, 3.0, 5.0, 7.0, 9.0))
VALID = torch.ones(1, 5, dtype=torch.bool)
CELLS = frame_cells(torch.tensor([CLIP.times_sec]), torch.tensor([10.0]), VALID)


def target(*annotations: dict[str, Any]) -> CGDETRTarget:
    return collate_items([encode_item(each, CLIP) for each in annotations], [1] * len(annotations), "cpu")


def saliency(*scores: float, step_sec: float = 2.0) -> dict[str, Any]:
    return {"step_sec": step_sec, "scores": list(scores)}


def test_windows_are_cut_to_the_clip_and_padded() -> None:
    found = target({"windows_sec": [[-1.0, 4.0]]}, {"windows_sec": [[0.0, 1.0], [8.0, 12.0]]}, {"windows_sec": []})
    assert found.windows_sec.tolist() == [[[0, 4], [0, 0]], [[0, 1], [8, 10]], [[0, 0], [0, 0]]]
    assert found.window_valid.tolist() == [[True, False], [True, True], [False, False]]
    assert found.graded.tolist() == [False] * 3


def test_every_slot_of_an_answer_gets_all_of_it() -> None:
    items = [encode_item({"windows_sec": [[0.0, 4.0]]}, CLIP), encode_item({"windows_sec": [], "saliency": saliency(1, 2)}, CLIP)]
    found = collate_items(items, [1, 2], "cpu").validate()
    assert found.window_valid[:, 0].tolist() == [True, False, False]
    assert found.graded.tolist() == [False, True, True]


def test_a_frame_takes_the_grade_of_the_step_that_holds_it() -> None:
    found = target({"windows_sec": [[0.0, 4.0]], "saliency": saliency(0, 4, 1, step_sec=3.0)})
    assert found.grades.tolist() == [[0.0, 4.0, 4.0, 1.0, 0.0]]


def test_frames_of_the_moment_are_covered_by_half_or_hold_a_windows_middle() -> None:
    found = target({"windows_sec": [[1.0, 4.9], [8.2, 8.4]]})
    assert found.inside(CELLS, VALID).tolist() == [[True, True, False, False, True]]


def test_padding_is_never_inside() -> None:
    valid = torch.tensor([[True, True, True, True, False]])
    assert target({"windows_sec": [[6.0, 10.0]]}).inside(CELLS, valid).tolist() == [[False, False, False, True, False]]


def test_grades_become_levels_and_windows_the_first_level() -> None:
    found = target({"windows_sec": [[0.0, 4.0]], "saliency": saliency(0, 1, 2, 4, 9)}, {"windows_sec": [[0.0, 4.0]]})
    inside = found.inside(CELLS.expand(2, -1, -1), VALID.expand(2, -1))
    assert found.levels(inside, top_grade=4.0, count=12).tolist() == [[0, 3, 6, 12, 12], [1, 1, 0, 0, 0]]


def test_saliency_alone_says_nothing_of_windows_unless_it_is_zero() -> None:
    bright, dark, nothing = {"saliency": saliency(0, 0, 3)}, {"saliency": saliency(0, 0, 0), "windows_sec": []}, {"windows_sec": []}
    found = target(bright, dark, nothing, {"windows_sec": [[0.0, 1.0]]})
    assert found.windows_known().tolist() == [False, True, True, True]
    inside = found.inside(CELLS.expand(4, -1, -1), VALID.expand(4, -1))
    assert inside.tolist() == [[False, False, True, False, False], [False] * 5, [False] * 5, [True, False, False, False, False]]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({}, r"temporal\.windows_sec: expected a list of \[start, end\], empty if nothing happens, got \[\]"),
        ({"windows_sec": [[0.0, 1.0], [4.0, 4.0]]}, r"temporal\.windows_sec\[1\]: expected start < end.* 10 s, got \[4\.0, 4\.0\]"),
        ({"windows_sec": [[11.0, 12.0]]}, r"temporal\.windows_sec\[0\]: expected .*, got \[11\.0, 12\.0\]"),
    ],
)
def test_annotations_that_cannot_be_meant_are_refused(annotation: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        encode_item(annotation, CLIP)
