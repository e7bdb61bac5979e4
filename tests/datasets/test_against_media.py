"""Samples against their media: each rule once, at its edge and one step beyond."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tpo_lab.datasets.against_media import LATE_SEC, against_media
from tpo_lab.errors import UsageError
from tpo_lab.lessons.mistakes import write_records
from tpo_lab.rle import encode_rle
from tpo_lab.video import write_clip

WIDTH, HEIGHT, SECONDS = 20, 12, 3.0


@pytest.fixture
def problems(tmp_path: Path) -> Callable[..., list[tuple[int, str, str]]]:
    """Line, field and rule of what is wrong with one sample about a clip of 20 x 12 pixels and 3 seconds."""
    write_clip(tmp_path / "a.mp4", np.zeros((6, HEIGHT, WIDTH, 3), np.uint8), 2.0)

    def found(
        answer: str = "yes", *, media: dict[str, Any] | None = None, question: str = "Where?", **more: Any
    ) -> list[tuple[int, str, str]]:
        record = {
            "id": "s",
            "media": {"path": "a.mp4", **(media or {})},
            "conversation": [{"role": "user", "text": question}, {"role": "assistant", "text": answer}],
            **more,
        }
        path = write_records(tmp_path / "s.jsonl", [{"schema": "tpo_lab.sample/1"}, record])
        return [(problem.line, problem.field, problem.rule) for problem in against_media(path)]

    return found


@pytest.mark.parametrize(("box", "is_inside"), [([0, 0, 20, 12], True), ([0, 0, 20.5, 12], False), ([0, 0, 12, 12.5], False)])
def test_boxes_lie_in_the_frame(problems: Any, box: list[float], is_inside: bool) -> None:
    def wrong(field: str) -> list[tuple[int, str, str]]:
        return [] if is_inside else [(2, field, "box_in_frame")]

    assert problems("<region>", targets={"region": [{"xyxy": box}]}) == wrong("targets.region[0].xyxy")
    track = {"track": {"times_sec": [0.0, 1.0], "xyxy": [None, box]}}
    assert problems("<track>", targets=track) == wrong("targets.track.xyxy[1]")
    assert problems(question="Where is <prompt:0>?", prompts=[{"type": "box", "xyxy": box}]) == wrong("prompts[0].xyxy")


def test_points_lie_in_the_frame(problems: Any) -> None:
    stroke = {"type": "scribble", "xys": [[1, 1], [20, 12], [3, 13]]}
    assert problems(question="<prompt:0>?", prompts=[stroke]) == [(2, "prompts[0]", "point_in_frame")]
    assert problems(question="<prompt:0>?", prompts=[{"type": "point", "xy": [20, 12]}]) == []


def test_masks_have_the_size_of_the_frame(problems: Any) -> None:
    upright, turned = (encode_rle(np.ones(shape, bool)) for shape in ((HEIGHT, WIDTH), (WIDTH, HEIGHT)))
    assert problems("<mask>", targets={"mask": {"times_sec": [0.0, 1.0], "rle": [None, upright]}}) == []
    wrong = {"mask": {"times_sec": [0.0, 1.0], "rle": [None, turned]}}
    assert problems("<mask>", targets=wrong) == [(2, "targets.mask.rle[1].size", "mask_is_frame")]


@pytest.mark.parametrize(("media", "last_sec"), [({}, 3.0), ({"start_sec": 1.0}, 2.0), ({"start_sec": 1.0, "end_sec": 9.0}, 2.0)])
def test_times_lie_in_the_part_of_the_video_that_there_is(problems: Any, media: dict[str, float], last_sec: float) -> None:
    def windows(end: float) -> Any:
        return problems("<temporal>", media=media, targets={"temporal": {"windows_sec": [[0.0, 0.5], [1.0, end]]}})

    assert windows(last_sec + LATE_SEC) == []
    assert windows(last_sec + LATE_SEC + 0.01) == [(2, "targets.temporal.windows_sec[1]", "time_in_video")]


def test_media_that_do_not_open_are_named_and_world_media_left_alone(problems: Any, tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(b"no film")
    assert problems(media={"path": "b.mp4"}) == [(2, "media.path", "media_opens")]
    assert problems(media={"path": "c.mp4"}) == [(2, "media.path", "media_opens")]
    assert problems("<region>", media={"path": "world://train/easy/0/0/1-2"}, targets={"region": [{"xyxy": [0, 0, 900, 900]}]}) == []


def test_records_that_break_the_schema_are_left_to_validate(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"id": "a"}\nno json\n', encoding="utf-8")
    assert against_media(tmp_path / "s.jsonl") == []
    with pytest.raises(UsageError, match=r"expected a JSONL file of samples, got '.*none.jsonl'"):
        against_media(tmp_path / "none.jsonl")
