"""Sixteen frames of a 720p clip of 300, by window: how much of the file a reader has to decode for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tpo_lab.video import read_clip, write_clip

FPS, COUNT, SIZE = 30.0, 300, (720, 1280)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright bar that walks over a fixed noisy background: cheap to make, not trivial to decode."""
    height, width = SIZE
    background = np.random.default_rng(0).integers(0, 90, (height, width, 3), dtype=np.uint8)
    frames = np.repeat(background[None], COUNT, axis=0)
    for index, frame in enumerate(frames):
        frame[:, 4 * index : 4 * index + 40] = 220
    return write_clip(tmp_path_factory.mktemp("video") / "bar.mp4", frames, FPS)


@pytest.mark.parametrize("window_sec", [(0.0, 10.0), (0.0, 1.0), (8.0, 9.0)], ids=["whole", "first-second", "ninth-second"])
def test_read_16_frames(clip: Path, window_sec: tuple[float, float], measure):
    start, end = window_sec
    measure(lambda: read_clip(clip, num_frames=16, start_sec=start, end_sec=end), rounds=3)


def test_read_16_frames_small(clip: Path, measure):
    measure(lambda: read_clip(clip, num_frames=16, size=(384, 384)), rounds=3)
