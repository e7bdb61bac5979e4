"""The yard: what its films show is what its days say, and what is written about them is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tpo_lab as tpo
from tpo_lab.datasets import yard
from tpo_lab.datasets.against_media import against_media
from tpo_lab.video import read_clip

NUMBERS = (*range(8), *range(20, 25))


@pytest.mark.parametrize("number", NUMBERS)
def test_a_day_fits_its_frame_and_its_film(number: int) -> None:
    which = yard.day(number)
    x0, y0, x1, y1 = which.parcel_xyxy
    assert 0 <= x0 < x1 <= yard.WIDTH and 0 <= y0 < y1 <= yard.HEIGHT
    assert not any(edge % 2 for edge in which.parcel_xyxy)
    assert 0 < which.lamp_sec[0] < which.lamp_sec[1] <= yard.DURATION_SEC
    assert 0 < which.stop_frame < yard.FRAMES
    assert yard.day(number) == which


def test_days_differ() -> None:
    assert len({yard.day(number).parcel_xyxy for number in NUMBERS}) > len(NUMBERS) // 2


@pytest.mark.parametrize("number", [0, 5])
def test_the_film_shows_the_parcel_in_its_box_and_the_lamp_in_its_window(tmp_path: Path, number: int) -> None:
    which = yard.day(number)
    clip = read_clip(yard.film(tmp_path, number), num_frames=yard.FRAMES)
    assert (clip.width, clip.height, clip.duration_sec) == (64, 48, pytest.approx(6.0))
    pixels = clip.frames.astype(int)
    # the parcel is the only thing whose red is far above its blue, but for the lit lamp above
    parcel = (pixels[-1, ..., 0] - pixels[-1, ..., 2] > 35) & (np.arange(yard.HEIGHT)[:, None] > 16)
    rows, columns = np.nonzero(parcel)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == which.parcel_xyxy
    lit = [time for time, frame in zip(clip.times_sec, pixels, strict=True) if frame[8, 54].sum() > 450]
    assert (lit[0], lit[-1] + 1 / yard.FPS) == pytest.approx(which.lamp_sec)
    stopped = pixels[which.stop_frame :, which.parcel_xyxy[1] + 3, which.parcel_xyxy[0] + 3]
    assert np.abs(stopped - stopped[-1]).max() < 12 and not (pixels[0, 20:, :, 0] - pixels[0, 20:, :, 2] > 35).any()


def test_what_is_written_is_valid_and_holds_the_truth(tmp_path: Path) -> None:
    yard.film(tmp_path, 3)
    where, when = yard.written(tmp_path, 3)
    tpo.write(tmp_path / "own.jsonl", [where, when])
    assert tpo.validate(tmp_path / "own.jsonl", check_media=True) == against_media(tmp_path / "own.jsonl") == []
    assert where.targets.region is not None and where.targets.region[0].xyxy == yard.day(3).parcel_xyxy
    assert when.targets.temporal is not None and when.targets.temporal.windows_sec == (yard.day(3).lamp_sec,)
