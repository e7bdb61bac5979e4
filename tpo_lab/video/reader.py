"""`read_clip`: frames of a video file, an image or an image sequence, chosen by time, with a policy for corrupt frames."""

from __future__ import annotations

import glob
import math
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.video.images import IMAGE_SUFFIXES, ImageSequence, image_files
from tpo_lab.video.pyav import PyAVSource
from tpo_lab.video.sampling import displayed_frames, segment_centres
from tpo_lab.video.source import Picture, Source

READERS: Mapping[str, Callable[[Path], Source]] = MappingProxyType({"pyav": PyAVSource})
CORRUPTION_POLICIES = ("raise", "drop", "warn")


@dataclass(frozen=True)
class Clip:
    """Frames sampled from a video, upright, with the time at which each came on display.

    Attributes:
        frames: uint8 RGB [frame, h, w, 3].
        times_sec: true presentation times, float64 [frame]; 0 is the first frame of the video stream, whatever offset the
            container gives it. Rising, with repeats where a frame is shown for longer than one sampling segment.
        duration_sec: when the last frame of the whole video goes off display, from what the file holds.
        start_sec: start of the window that was sampled.
        end_sec: end of that window (a window that reached past the video was cut to `duration_sec`).
        source: the path as it was given.
        width: width in pixels of the original frame as displayed (after rotation, before `size`).
        height: height of that frame.
        dropped: one note for each sampled frame that was corrupt and was replaced, and for a truncation of the file.
    """

    frames: NDArray[np.uint8]
    times_sec: NDArray[np.float64]
    duration_sec: float
    start_sec: float
    end_sec: float
    source: str
    width: int
    height: int
    dropped: tuple[str, ...] = ()


def read_clip(
    path: str | os.PathLike[str],
    *,
    num_frames: int,
    start_sec: float = 0.0,
    end_sec: float | None = None,
    size: tuple[int, int] | None = None,
    on_corrupt: str = "raise",
    reader: str = "pyav",
    fps: float = 1.0,
) -> Clip:
    """Sample `num_frames` frames at the centres of equal segments of [start_sec, end_sec].

    Each is the frame that a player shows at that time, so a video with fewer frames than `num_frames` repeats some. Nothing is
    taken from the header: times and duration come from the packets, and hold for variable frame rates, start offsets and
    reordered (B) frames. Rotation metadata and EXIF orientation are applied.

    A frame is corrupt if it does not decode, is marked so by the decoder, or is predicted from such a frame. The bytes of
    one damaged packet therefore condemn all frames up to the next keyframe. A picture in which the decoder notices nothing
    cannot be told from a good one. (`corrupted.mp4` of the decord test files: 50 frames, 5 s, one keyframe; the packet of
    the frame at 3.0 s does not decode, and FFmpeg gives out the later ones unmarked. Windows that end by 2.9 s are read as
    usual; for others "raise" refuses, and "drop" and "warn" show the last good frame, at 3.2 s, to the end: it is stored
    before the damaged packet, while the frame at 2.9 s is predicted from it.)

    Args:
        path: a video file, an image (one frame), a directory of images, or a glob pattern of images ("frames/a/*.jpg");
            image sequences are taken in natural order.
        num_frames: how many frames to return.
        start_sec: start of the window in seconds from the first frame.
        end_sec: its end; None is the end of the video, and a later time is cut to that. Equal to `start_sec`, every frame
            is the one displayed at that moment.
        size: (height, width) of the returned frames, resampled bicubically without keeping the aspect; None keeps the original.
        on_corrupt: "raise" refuses a clip that needs a corrupt frame or the lost part of a truncated file; "drop" shows the
            last good frame in its place, as if the corrupt one were not in the file; "warn" does the same with a warning.
        reader: the decoder, one of `READERS`.
        fps: images per second of an image sequence; videos carry their own times.

    Raises:
        UsageError: the path holds no readable video or image, an argument is out of range, or the policy says so.
    """
    _check_request(num_frames, start_sec, end_sec, size, on_corrupt, reader, fps)
    source = open_source(path, reader=reader, fps=fps)
    name, duration = os.fspath(path), source.duration_sec
    if start_sec >= duration:
        raise UsageError("start_sec", expected=f"a time before the end of {name} at {duration:.3f} s", got=start_sec)
    if on_corrupt == "raise" and source.notes and (end_sec is None or end_sec > duration):
        raise UsageError(name, expected="a complete file", got=source.notes[0], hint='on_corrupt="drop" uses what decodes.')
    end = duration if end_sec is None else min(end_sec, duration)
    fit = _Fit(size)
    picked = _pick(source, segment_centres(start_sec, end, num_frames), fit, name, strict=on_corrupt == "raise")
    dropped = (*source.notes, *picked.notes)
    if dropped and on_corrupt == "warn":
        warnings.warn(f"{name}: {'; '.join(dropped)}", stacklevel=2)
    return Clip(
        frames=_stack(picked.pictures, name),
        times_sec=source.times_sec[picked.frames],
        duration_sec=duration,
        start_sec=start_sec,
        end_sec=end,
        source=name,
        width=fit.displayed[1],
        height=fit.displayed[0],
        dropped=dropped,
    )


def _check_request(
    num_frames: int, start_sec: float, end_sec: float | None, size: tuple[int, int] | None, on_corrupt: str, reader: str, fps: float
) -> None:
    if num_frames < 1:
        raise UsageError("num_frames", expected="at least 1", got=num_frames)
    if not (math.isfinite(start_sec) and start_sec >= 0):
        raise UsageError("start_sec", expected="a time of at least 0 s", got=start_sec)
    if end_sec is not None and not end_sec >= start_sec:
        raise UsageError("end_sec", expected=f"a time of at least start_sec ({start_sec} s)", got=end_sec)
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise UsageError("size", expected="(height, width) in pixels, each at least 1", got=size)
    if on_corrupt not in CORRUPTION_POLICIES:
        raise unknown_name("on_corrupt", on_corrupt, CORRUPTION_POLICIES)
    if reader not in READERS:
        raise unknown_name("reader", reader, READERS)
    if not (math.isfinite(fps) and fps > 0):
        raise UsageError("fps", expected="a positive number of images per second", got=fps)


def open_source(path: str | os.PathLike[str], *, reader: str = "pyav", fps: float = 1.0) -> Source:
    """Open what `read_clip` reads, for those who choose frames themselves; nothing is decoded yet.

    Args:
        path: as for `read_clip`.
        reader: the decoder, one of `READERS`.
        fps: images per second of an image sequence.

    Raises:
        UsageError: the path holds no readable video or image.
    """
    path = Path(path)
    if path.is_file():
        return ImageSequence((path,), fps) if path.suffix.lower() in IMAGE_SUFFIXES else READERS[reader](path)
    # A pattern is tried only for what is no path itself: names may hold brackets.
    is_pattern = not path.is_dir() and glob.has_magic(str(path))
    if not (is_pattern or path.is_dir()):
        raise UsageError(str(path), expected="a video, an image, a directory of images or a glob pattern", got="no such file")
    files = image_files(Path(file) for file in glob.glob(str(path), recursive=True)) if is_pattern else image_files(path.iterdir())
    if not files:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UsageError(
            str(path), expected=f"images ({kinds})", got="a pattern that matches none" if is_pattern else "a directory without any"
        )
    return ImageSequence(files, fps)


@dataclass
class _Fit:
    """Resizes each picture as it is decoded, and remembers the (height, width) of the first as displayed."""

    size: tuple[int, int] | None
    displayed: tuple[int, int] = (0, 0)

    def __call__(self, picture: Picture) -> Picture:
        from PIL import Image

        height, width = picture.shape[:2]
        if self.displayed == (0, 0):
            self.displayed = (height, width)
        if self.size is None or self.size == (height, width):
            return picture
        return np.asarray(Image.fromarray(picture).resize((self.size[1], self.size[0]), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class _Picked:
    frames: NDArray[np.intp]
    pictures: list[Picture]
    notes: tuple[str, ...]


def _pick(source: Source, at_sec: NDArray[np.float64], fit: _Fit, name: str, *, strict: bool) -> _Picked:
    """The frame displayed at each time; corrupt frames are taken out of the index until all that are chosen are good."""
    times_sec = source.times_sec
    usable = np.ones(len(times_sec), dtype=bool)
    pictures: dict[int, Picture] = {}
    notes: dict[int, str] = {}
    asked = set(displayed_frames(times_sec, at_sec).tolist())
    while usable.any():
        remaining = np.flatnonzero(usable)
        chosen = remaining[displayed_frames(times_sec[remaining], at_sec)]
        missing = sorted(set(chosen.tolist()) - pictures.keys())
        if not missing:
            return _Picked(chosen, [pictures[frame] for frame in chosen.tolist()], tuple(notes[frame] for frame in sorted(notes)))
        for frame, result in source.decode(missing, fit):
            if not isinstance(result, str):
                pictures[frame] = result
                continue
            usable[frame] = False
            note = f"the frame at {times_sec[frame]:.3f} s {result}"
            if strict and frame in asked:
                raise UsageError(name, expected="frames that decode", got=note, hint='on_corrupt="drop" shows the last good frame instead.')
            if frame in asked:
                notes[frame] = note
    first_note = next(iter(notes.values()))
    raise UsageError(name, expected="at least one frame that decodes", got=f"{len(usable)} corrupt frames: {first_note}")


def _stack(pictures: list[Picture], name: str) -> NDArray[np.uint8]:
    shapes = sorted({picture.shape[:2] for picture in pictures})
    if len(shapes) > 1:
        raise UsageError(name, expected="frames of one (height, width)", got=shapes, hint="Give size=(height, width).")
    return np.stack(pictures)
