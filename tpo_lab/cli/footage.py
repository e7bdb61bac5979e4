"""The files of `tpo-lab track`: tracks.jsonl as frames are found, then, in a second walk through the video, overlay.mp4 and frames.png."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from tpo_lab.sam2.footage import Followed
    from tpo_lab.tracking import Pursuit

TRACKS, OVERLAY, FRAMES, SUMMARY = "tracks.jsonl", "overlay.mp4", "frames.png", "summary.json"
_HELD_BYTES = 256 << 20
"""Decoded pictures in their own size that are held at once, at most."""
_SHOWN, _PER_ROW, _WIDEST = 8, 4, 400


@dataclass
class Tracks:
    """The file tracks.jsonl of a call, and where each frame's line begins in it: lines come in the order found.

    Attributes:
        path: of the file.
        size: height and width of the frames.
        places: byte at which the line of a frame begins.
        seen: per object, in how many frames, and the first and the last time in seconds.
    """

    path: Path
    size: tuple[int, int]
    places: dict[int, int] = field(default_factory=dict)
    seen: list[dict[str, Any]] = field(default_factory=list)

    def read(self, frames: Sequence[int]) -> Iterator[dict[str, Any]]:
        """The lines of some frames."""
        with self.path.open("rb") as file:
            for frame in frames:
                file.seek(self.places[frame])
                yield json.loads(file.readline())

    def note(self, line: Mapping[str, Any], place: int) -> None:
        """Keep where a line is, and what it says of each object."""
        self.places[line["frame"]] = place
        if not self.seen:
            self.seen = [{"frames": 0, "first_sec": None, "last_sec": None} for _ in line["objects"]]
        for found, each in zip(self.seen, line["objects"], strict=True):
            if each["rle"] is not None:
                time = line["time_sec"]
                found["frames"] += 1
                found["first_sec"] = time if found["first_sec"] is None else min(found["first_sec"], time)
                found["last_sec"] = time if found["last_sec"] is None else max(found["last_sec"], time)


def write_tracks(found: Iterator[Followed], folder: Path, tell: Callable[[int], None]) -> Tracks:
    """Follow, and write a line per frame as soon as it is found. What an earlier call left in the folder goes first.

    Args:
        found: frames in the order of being found. The folder is left alone until the first has come.
        folder: created where it is missing.
        tell: called with the number of frames written.

    Raises:
        Stopped: Ctrl-C; the file then holds whole lines of what was found.
    """
    from tpo_lab.cli.command import Stopped
    from tpo_lab.tracking import to_line

    tracks: Tracks | None = None
    try:
        first = next(found)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (OVERLAY, FRAMES, SUMMARY):
            (folder / name).unlink(missing_ok=True)
        # without a buffer a line is written by one call of the system: Ctrl-C cannot leave half of one
        with (folder / TRACKS).open("wb", buffering=0) as file:
            tracks = Tracks(folder / TRACKS, first.size)
            for each in _chained(first, found):
                line = to_line(each)
                place = file.tell()
                file.write((json.dumps(line) + "\n").encode())
                tracks.note(line, place)
                tell(len(tracks.places))
    except KeyboardInterrupt:
        if tracks is None:
            raise
        with tracks.path.open("rb") as written:
            count = sum(1 for _ in written)
        raise Stopped(f"Interrupted. {tracks.path} holds what was found in {count} frames.") from None
    return tracks


def write_overlay(pursuit: Pursuit, tracks: Tracks, folder: Path, tell: Callable[[int], None]) -> None:
    """Write overlay.mp4: every frame in which objects were looked for, in the order and at the time of its display.

    Args:
        pursuit: that was followed.
        tracks: what was found.
        folder: of the file.
        tell: called with the number of frames drawn.
    """
    from tpo_lab.video import clip_writer

    numbers = sorted(tracks.places)
    times = pursuit.source.times_sec
    end = times[numbers[-1] + 1] if numbers[-1] + 1 < len(times) else pursuit.source.duration_sec
    fps = len(numbers) / max(end - times[numbers[0]], 1e-3)
    with clip_writer(folder / OVERLAY, fps) as add, closing(_drawn(pursuit, tracks, numbers)) as pictures:
        for done, (number, picture) in enumerate(pictures, 1):
            add(_even(picture), float(times[number] - times[numbers[0]]))
            tell(done)


def write_frames(pursuit: Pursuit, tracks: Tracks, folder: Path, title: str) -> None:
    """Write frames.png: some frames from the first to the last, and the prompted one among them."""
    import numpy as np

    from tpo_lab.drawing import contact_sheet

    numbers = sorted(tracks.places)
    evenly = np.linspace(0, len(numbers) - 1, min(_SHOWN - 1, len(numbers))).round().astype(int).tolist()
    chosen = sorted({pursuit.at, *(numbers[place] for place in evenly)})
    shown = [(number, _thumbnail(picture)) for number, picture in _drawn(pursuit, tracks, chosen)]
    rows = [shown[place : place + _PER_ROW] for place in range(0, len(shown), _PER_ROW)]
    captions = [",  ".join(_caption(pursuit, number) for number, _ in row) for row in rows]
    captions[0] = f"{title}\n{captions[0]}"
    contact_sheet([[image for _, image in row] for row in rows], captions).save(folder / FRAMES)


def _chained(first: Followed, rest: Iterator[Followed]) -> Iterator[Followed]:
    yield first
    yield from rest


def _drawn(pursuit: Pursuit, tracks: Tracks, numbers: Sequence[int]) -> Generator[tuple[int, NDArray[np.uint8]], None, None]:
    """Frames with what was found in them, enlarged where they are small, in the order of `numbers`, which rise."""
    from tpo_lab.cli.overlays import scale_of
    from tpo_lab.sam2.footage import FRAMES_AT_ONCE, pictures_in_order

    height, width = tracks.size
    at_once = min(max(_HELD_BYTES // (height * width * 3), 1), FRAMES_AT_ONCE)
    pictures = pictures_in_order(pursuit.source, numbers, lambda picture: picture, strict=True, at_once=at_once)
    for (number, picture), line in zip(pictures, tracks.read(numbers), strict=True):
        yield number, _draw(picture, line, pursuit, scale_of(height, width))


def _draw(picture: NDArray[np.uint8], line: Mapping[str, Any], pursuit: Pursuit, scale: int) -> NDArray[np.uint8]:
    import numpy as np

    from tpo_lab.cli.overlays import colour_of, ordered
    from tpo_lab.drawing import VEIL, draw_boxes, draw_masks, draw_strokes
    from tpo_lab.rle import decode_rle

    found = [(place, each["rle"]) for place, each in enumerate(line["objects"]) if each["rle"] is not None]
    image = draw_masks(picture, [(decode_rle(TRACKS, rle), colour_of(place), VEIL) for place, rle in found], scale=scale)
    if line["frame"] != pursuit.at:
        return np.asarray(image)
    for place, prompt in enumerate(pursuit.shown):
        label, colour = f"prompt {place}", colour_of(place)
        if prompt.type == "box":
            box = [edge * scale for edge in ordered(prompt.xyxy)]
            image = draw_boxes(np.asarray(image), [(box, label, colour)])
        else:
            image = draw_strokes(np.asarray(image), [([(x * scale, y * scale) for x, y in prompt.points], label, colour)])
    return np.asarray(image)


def _even(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with its last row or column doubled where their number is odd."""
    import numpy as np

    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _thumbnail(picture: NDArray[np.uint8]) -> Image:
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((_WIDEST, _WIDEST))
    return image


def _caption(pursuit: Pursuit, number: int) -> str:
    return f"{pursuit.source.times_sec[number]:.2f} s" + (" (prompted)" if number == pursuit.at else "")
