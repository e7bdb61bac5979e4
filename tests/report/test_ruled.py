"""Rulers and film strips: a mark stands where its pixel begins, and a frame below its time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tpo_lab.errors import UsageError
from tpo_lab.report.ruled import MARGIN, film_strip, ruled_picture
from tpo_lab.video import write_clip

WIDTH, HEIGHT = 40, 24


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Black, and from the third of six frames (0.5 s each) on with a white box [8, 4, 24, 16]."""
    frames = np.zeros((6, HEIGHT, WIDTH, 3), np.uint8)
    frames[2:, 4:16, 8:24] = 255
    return write_clip(tmp_path / "clip.mp4", frames, 2.0)


@pytest.mark.parametrize("scale", [3, 8])
def test_the_frame_lies_behind_the_rulers_in_its_scale(clip: Path, scale: int) -> None:
    picture = np.asarray(ruled_picture(clip, 1.0, scale=scale).convert("L")).astype(int)
    frame = picture[MARGIN : MARGIN + scale * HEIGHT, MARGIN : MARGIN + scale * WIDTH]
    rows, columns = np.nonzero(frame > 128)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (8 * scale, 4 * scale, 24 * scale, 16 * scale)
    above = np.flatnonzero(picture[MARGIN - 1, MARGIN:] < 128)
    left = np.flatnonzero(picture[MARGIN:, MARGIN - 1] < 128)
    assert above.tolist() == [scale * place for place in range(0, WIDTH + 1, 4)]
    assert left.tolist() == [scale * place for place in range(0, HEIGHT + 1, 4)]
    # long marks, the ones with numbers, are sixteen pixels apart
    assert np.flatnonzero(picture[MARGIN - 9, MARGIN:] < 128).tolist() == [0, 16 * scale, 32 * scale]


def test_the_time_chooses_the_frame(clip: Path) -> None:
    inside = MARGIN + 3 * 10
    assert np.asarray(ruled_picture(clip, 0.9, scale=3))[inside, inside + 18].max() < 60
    for time_sec in (1.0, 99.0):
        assert np.asarray(ruled_picture(clip, time_sec, scale=3))[inside, inside + 18].min() > 200


def test_the_strip_has_a_frame_for_each_step_in_rows(clip: Path) -> None:
    strip = film_strip(clip, step_sec=0.5, columns=4, width=60)
    other = film_strip(clip, step_sec=1.0, columns=4, width=60)
    assert strip.width == 4 * 64 + 4 and strip.height == 2 * other.height
    # black to the third frame, white from there on: six frames, of which four have the box, and no seventh
    white = np.asarray(strip.convert("L"))
    first = [white[12 + 16 + 15, 4 + 64 * place + 24] > 128 for place in range(4)]
    second = [white[other.height + 12 + 16 + 15, 4 + 64 * place + 24] > 128 for place in range(2)]
    assert (first, second) == ([False, False, True, True], [True, True])
    assert (white[other.height :, 4 + 64 * 2 :] > 250).all()


def test_wrong_requests_are_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a whole number of at least 1, got 0"):
        ruled_picture(clip, 0.0, scale=0)
    with pytest.raises(UsageError, match="expected positive numbers"):
        film_strip(clip, step_sec=0.0)
    with pytest.raises(UsageError, match="no such file"):
        ruled_picture(tmp_path / "none.mp4", 0.0)
