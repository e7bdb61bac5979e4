"""Samples held against their opened media: what their own fields cannot show, such as a box beyond the frame.

`tpo_lab.sample.validate` reads no pixels. This opens every file once, which takes longer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tpo_lab.errors import UsageError
from tpo_lab.sample import Media, Problem, Sample, scan, shorten

LATE_SEC = 0.5
"""How far a time may lie behind the end of its video: annotators and containers round differently."""


@dataclass(frozen=True)
class _Opened:
    """What the media of a sample are: pixels of a frame as displayed, and seconds of the whole file."""

    width: int
    height: int
    duration_sec: float


def against_media(path: str | os.PathLike[str]) -> list[Problem]:
    """Every problem of a JSONL file of samples that only its media show; records that break a rule of the schema are passed over.

    The rules: "media_opens", "box_in_frame", "point_in_frame", "mask_is_frame" (one size for masks and frames) and "time_in_video" (up
    to `LATE_SEC` later). Media that are no file are passed over too.

    Raises:
        UsageError: there is no such file.
    """
    line_of = id_lines(Path(path))
    media = OpenedMedia()
    problems: list[Problem] = []
    for sample in scan(path):
        if isinstance(sample, Sample):
            problems += media.problems(sample, line_of[sample.id])
    return problems


class OpenedMedia:
    """Media that were opened, each once, and samples held against them."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, float | None], _Opened | str] = {}

    def problems(self, sample: Sample, line: int = 0) -> list[Problem]:
        """What the media of one sample show to be wrong with it, see `against_media`; `line` is where it stands."""
        if not sample.media.is_file:
            return []
        key = (str(sample.media_path), sample.media.fps)
        if key not in self._opened:
            self._opened[key] = _open(sample)
        return list(_problems(line, sample, self._opened[key]))


def id_lines(path: Path) -> dict[str, int]:
    """The first line of each id of a JSONL file of samples, from 1; nothing where there is no such file."""
    found: dict[str, int] = {}
    if not path.is_file():
        return found
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                record = json.loads(raw.decode("utf-8-sig"))
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and isinstance(record.get("id"), str):
                found.setdefault(record["id"], number)
    return found


def _open(sample: Sample) -> _Opened | str:
    """What the file is, or why it cannot be opened."""
    from tpo_lab.video import read_clip

    try:
        clip = read_clip(sample.media_path, num_frames=1, end_sec=0.0, fps=sample.media.fps or 1.0)
    except UsageError as error:
        return f"{error.expected}, got {error.got}"
    return _Opened(clip.width, clip.height, clip.duration_sec)


def _problems(line: int, sample: Sample, opened: _Opened | str) -> Iterator[Problem]:
    if isinstance(opened, str):
        yield Problem(line, "media.path", sample.media.path, "media_opens", f"media that can be opened ({shorten(opened)})")
        return
    size = f"the frame of {opened.width} x {opened.height} pixels"
    for field, x, y, value, rule in _corners(sample):
        if x > opened.width or y > opened.height:
            yield Problem(line, field, value, rule, f"pixels inside {size}")
    for place, rle in enumerate(sample.targets.mask.rle if sample.targets.mask else ()):
        if rle is not None and rle.size != (opened.height, opened.width):
            yield Problem(line, f"targets.mask.rle[{place}].size", list(rle.size), "mask_is_frame", f"[height, width] of {size}")
    last_sec = _length_sec(sample.media, opened.duration_sec) + LATE_SEC
    for field, time_sec in _latest(sample):
        if time_sec > last_sec:
            yield Problem(line, field, time_sec, "time_in_video", f"a time within the {last_sec - LATE_SEC:g} s that the video has")


def _length_sec(media: Media, file_sec: float) -> float:
    """Seconds of the part that a sample is about, as far as the file goes."""
    return min(file_sec, media.end_sec if media.end_sec is not None else file_sec) - media.start_sec


def _corners(sample: Sample) -> Iterator[tuple[str, float, float, Sequence[float], str]]:
    """Field, largest x and y, the value there, and the rule, of all that lies somewhere in a frame."""
    for place, prompt in enumerate(sample.prompts):
        if prompt.type == "box":
            yield f"prompts[{place}].xyxy", *prompt.xyxy[2:], prompt.xyxy, "box_in_frame"
        else:
            for x, y in prompt.points:
                yield f"prompts[{place}]", x, y, (x, y), "point_in_frame"
    for place, target in enumerate(sample.targets.region or ()):
        yield f"targets.region[{place}].xyxy", *target.xyxy[2:], target.xyxy, "box_in_frame"
    for place, box in enumerate(sample.targets.track.xyxy if sample.targets.track else ()):
        if box is not None:
            yield f"targets.track.xyxy[{place}]", *box[2:], box, "box_in_frame"


def _latest(sample: Sample) -> Iterator[tuple[str, float]]:
    """Field and seconds, of all that has a time."""
    targets = sample.targets
    yield from ((f"prompts[{place}].time_sec", prompt.time_sec) for place, prompt in enumerate(sample.prompts))
    yield from ((f"targets.region[{place}].time_sec", box.time_sec) for place, box in enumerate(targets.region or ()))
    for place, window in enumerate(targets.temporal.windows_sec if targets.temporal else ()):
        yield f"targets.temporal.windows_sec[{place}]", window[1]
    for name, many in (("mask", targets.mask), ("track", targets.track)):
        if many is not None:
            yield f"targets.{name}.times_sec", many.times_sec[-1]
