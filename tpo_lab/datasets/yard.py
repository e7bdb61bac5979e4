"""A yard and what happens in it on numbered days: real video files that nobody has annotated, to write samples about by hand.

A parcel slides in from the left and stops; a lamp shines for a while. The truth of each day is known, so that what a reader writes
can be checked. Not here: the synthetic world, whose clips come with their samples.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tpo_lab.sample import Sample

WIDTH, HEIGHT = 64, 48
"""Pixels of a frame."""
FRAMES, FPS = 24, 4.0
DURATION_SEC = FRAMES / FPS
WHERE, WHEN = "Where is the parcel?", "When does the lamp shine?"
_WALL, _GROUND, _PARCEL, _DARK, _LIT = (96, 112, 128), (120, 128, 104), (240, 216, 168), (56, 56, 56), (255, 232, 96)
_GROUND_Y = 28
_LAMP_XYXY = (50, 4, 58, 12)


@dataclass(frozen=True)
class Day:
    """What is true of one day.

    Attributes:
        number: of the day; equal numbers are equal days on every machine.
        parcel_xyxy: where the parcel lies once it has stopped, in pixels; the upper edges not included.
        stop_frame: the first frame in which it lies there.
        lamp_sec: when the lamp goes on and off, seconds.
    """

    number: int
    parcel_xyxy: tuple[int, int, int, int]
    stop_frame: int
    lamp_sec: tuple[float, float]

    @property
    def file_name(self) -> str:
        """Of its video."""
        return f"yard-{self.number}.mp4"


def day(number: int) -> Day:
    """The truth of a day, drawn from its number."""
    rng = random.Random(f"tpo-lab/yard/{number}")
    width, height = 2 * rng.randint(5, 8), 2 * rng.randint(4, 6)
    # even numbers: video files keep colour for blocks of 2 x 2 pixels, and edges inside a block are smeared
    left, bottom = 2 * rng.randint(7, (WIDTH - width) // 2 - 2), 2 * rng.randint(_GROUND_Y // 2 + 3, HEIGHT // 2 - 1)
    on = 2 * rng.randint(1, 6)
    lamp_sec = (on / FPS, (on + 2 * rng.randint(3, 5)) / FPS)
    return Day(number, (left, bottom - height, left + width, bottom), rng.randint(5, 12), lamp_sec)


def frames_of(which: Day) -> NDArray[np.uint8]:
    """The pixels of a day, uint8 RGB [frame, h, w, 3]."""
    pixels = np.empty((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, :_GROUND_Y], pixels[:, _GROUND_Y:] = _WALL, _GROUND
    on, off = (round(edge * FPS) for edge in which.lamp_sec)
    x0, y0, x1, y1 = _LAMP_XYXY
    pixels[:, y0:y1, x0:x1] = _DARK
    pixels[on:off, y0:y1, x0:x1] = _LIT
    x0, y0, x1, y1 = which.parcel_xyxy
    for frame in range(FRAMES):
        # it comes from beyond the left edge
        back = round(x1 * max(0.0, 1 - frame / which.stop_frame))
        pixels[frame, y0:y1, max(x0 - back, 0) : max(x1 - back, 0)] = _PARCEL
    return pixels


def film(folder: str | os.PathLike[str], number: int) -> Path:
    """Write the video of a day to `folder`; returns its path."""
    from tpo_lab.video import write_clip

    which = day(number)
    return write_clip(Path(folder) / which.file_name, frames_of(which), FPS)


def written(folder: str | os.PathLike[str], number: int) -> list[Sample]:
    """The two samples of a day whose video lies in `folder`, as one who knows the truth writes them: where, and when."""
    which = day(number)
    region = {"region": [{"time_sec": DURATION_SEC, "xyxy": list(which.parcel_xyxy)}]}
    temporal = {"temporal": {"windows_sec": [list(which.lamp_sec)]}}
    asked = (("where", WHERE, "<region>", region), ("when", WHEN, "<temporal>", temporal))
    return [
        Sample.model_validate(
            {
                "id": f"yard-{number}-{name}",
                "source": "yard",
                "media": {"path": which.file_name, "start_sec": 0.0, "end_sec": DURATION_SEC},
                "conversation": [{"role": "user", "text": question}, {"role": "assistant", "text": marker}],
                "targets": targets,
            }
        ).at(folder)
        for name, question, marker, targets in asked
    ]
