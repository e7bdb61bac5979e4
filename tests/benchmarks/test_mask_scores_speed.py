"""Object-frames per second of J and F at 480p on one core, in memory and from PNG files.

The table shows the time on the clock; the bar is on the time of the processor, which other jobs do not change.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tpo_lab.metrics.masks import contour_accuracy, region_similarity
from tpo_lab.scoring import Request, score

SIZE = (480, 854)
OBJECTS, FRAMES = 3, 12
PER_SECOND = 30.0


def frame(place: int, *, moved: int) -> np.ndarray:
    """Three objects with wavy contours, 90 to 330 pixels wide."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    labels = np.zeros(SIZE, dtype=np.uint8)
    for each, (row, column, radius) in enumerate(((240, 250, 165), (200, 560, 110), (380, 720, 45)), start=1):
        down, right = rows - row - moved, columns - column - 2 * place
        wave = radius * (1 + 0.1 * np.sin(9 * np.arctan2(down, right)))
        labels[down**2 + right**2 < wave**2] = each
    return labels


@pytest.fixture(scope="module")
def frames() -> list[tuple[np.ndarray, np.ndarray]]:
    return [(frame(place, moved=4), frame(place, moved=0)) for place in range(FRAMES)]


def per_second(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    rate = FRAMES * OBJECTS / (time.process_time() - start)
    print(f"{rate:.0f} object-frames per second of one core")
    return rate


def test_j_and_f_of_arrays(frames, measure):
    def call() -> None:
        for pred, true in frames:
            for each in range(1, OBJECTS + 1):
                masks = pred == each, true == each
                region_similarity(*masks), contour_accuracy(*masks)

    measure(call, rounds=3, units=FRAMES * OBJECTS)
    assert per_second(call) >= PER_SECOND


def test_j_and_f_of_files(frames, measure, tmp_path: Path):
    from PIL import Image

    for side, name in enumerate(("pred", "gt")):
        (tmp_path / name / "a").mkdir(parents=True)
        for place, pair in enumerate(frames):
            Image.fromarray(pair[side]).save(tmp_path / name / "a" / f"{place:05d}.png")
    request = Request(tmp_path / "pred", tmp_path / "gt", variant="all-frames")
    measure(lambda: score("sav", request), rounds=3, units=FRAMES * OBJECTS)
    assert per_second(lambda: score("sav", request)) >= PER_SECOND
