"""Evaluations at other numbers of frames: each sees so many, and the model is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tpo_lab import evaluation
from tpo_lab.errors import UsageError
from tpo_lab.lessons.frames import scores_by_frames
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample


def test_each_number_is_shown(tiny: TPOModel, world: Callable[..., list[Sample]], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def noted(frames: Any) -> Any:
        seen.append(frames.shape[1])
        return encode(frames)

    encode = tiny.backbone.video_features
    monkeypatch.setattr(tiny.backbone, "video_features", noted)
    found = scores_by_frames(tiny, world(1, "region")[:2], [3, 1])
    assert list(found) == [3, 1] and set(seen) == {3, 1}
    assert "REC Acc@0.5" in found[3]
    assert tiny.backbone.num_frames == 4


def test_the_model_shows_as_many_as_before_even_after_a_failure(
    tiny: TPOModel, world: Callable[..., list[Sample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(evaluation, "evaluate", broken)
    with pytest.raises(RuntimeError):
        scores_by_frames(tiny, world(1, "region")[:1], [2])
    assert tiny.backbone.num_frames == 4
    with pytest.raises(UsageError, match=r"numbers of frames from 1 up, got \[2, 0\]"):
        scores_by_frames(tiny, [], [2, 0])
