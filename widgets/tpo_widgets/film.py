"""The frames of a clip for looking at: read when they are asked for, made smaller, as JPEG; memory is bounded however long the clip."""

from __future__ import annotations

import io
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import TPOError, UsageError

if TYPE_CHECKING:
    from tpo_lab.sample import Sample

LONGEST = 512
"""Pixels of the longer side of a frame that is looked at."""
RUN = 16
"""Neighbours that are read together, since videos are decoded from one key frame to the next."""
KEPT_BYTES = 32 << 20
QUALITY = 85

Pixels = NDArray[np.uint8]
Read = Callable[[Sequence[int]], Iterator[tuple[int, Any]]]
"""Yields (number, uint8 RGB [h, w, 3]) of frames, or in a picture's place the reason why there is none."""


@dataclass
class Film:
    """The frames of one clip.

    Attributes:
        size_wh: pixels of an original frame.
        times_sec: when each comes on display, seconds from the start of the clip.
        duration_sec: of the clip.
        read: gives frames by their numbers.
        longest: pixels of the longer side of a JPEG.
    """

    size_wh: tuple[int, int]
    times_sec: tuple[float, ...]
    duration_sec: float
    read: Read
    longest: int = LONGEST
    _kept: OrderedDict[int, bytes] = field(default_factory=OrderedDict, repr=False)

    def __len__(self) -> int:
        return len(self.times_sec)

    def jpeg(self, number: int) -> bytes:
        """One frame as JPEG, no side longer than `longest`.

        Raises:
            UsageError: there is no such frame.
            TPOError: it cannot be read.
        """
        if not 0 <= number < len(self):
            raise UsageError("frame", expected=f"a number from 0 to {len(self) - 1}", got=number)
        if number not in self._kept:
            self._read_run(number)
        self._kept.move_to_end(number)
        return self._kept[number]

    def picture(self, number: int) -> Any:
        """One frame as a Pillow image, as small as its JPEG."""
        from PIL import Image

        return Image.open(io.BytesIO(self.jpeg(number))).convert("RGB")

    def nearest(self, time_sec: float) -> int:
        """The frame that is on display at a time: the last one that came before."""
        place = int(np.searchsorted(self.times_sec, time_sec + 1e-6, side="right")) - 1
        return min(max(place, 0), len(self) - 1)

    def _read_run(self, number: int) -> None:
        first = number - number % RUN
        wanted = [place for place in range(first, min(first + RUN, len(self))) if place not in self._kept]
        for place, pixels in self.read(wanted):
            if isinstance(pixels, str):
                if place == number:
                    raise TPOError(f"frame {number}: {pixels}")
                continue
            self._kept[place] = encode(pixels, self.longest)
        if number not in self._kept:
            raise TPOError(f"frame {number}: it could not be read.")
        while len(self._kept) > RUN and sum(map(len, self._kept.values())) > KEPT_BYTES:
            self._kept.popitem(last=False)


def encode(pixels: Pixels, longest: int = LONGEST) -> bytes:
    """A frame as JPEG; small ones, which are shown enlarged, lose next to nothing."""
    from PIL import Image

    image = Image.fromarray(pixels)
    scale = longest / max(image.size)
    if scale < 1:
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    file = io.BytesIO()
    small = max(image.size) <= longest // 2
    image.save(file, "JPEG", quality=95 if small else QUALITY, subsampling=0 if small else 2)
    return file.getvalue()


def film_of(sample: Sample) -> Film:
    """All frames of a sample's clip.

    Raises:
        UsageError: the clip cannot be read.
    """
    media = sample.media
    if media.path.startswith("world://"):
        return _rendered(sample)
    from tpo_lab.video import open_source

    opened = open_source(sample.media_path, fps=media.fps or 1.0)
    end = min(opened.duration_sec, math.inf if media.end_sec is None else media.end_sec)
    chosen = _on_display(np.asarray(opened.times_sec), media.start_sec, end)
    if not len(chosen):
        raise UsageError(
            "media.start_sec", expected=f"a time before the end of {media.path} at {opened.duration_sec:g} s", got=media.start_sec
        )

    def read(numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        place_of = {int(chosen[number]): number for number in numbers}
        for index, found in opened.decode(sorted(place_of), lambda picture: picture):
            if index in place_of:
                yield place_of[index], found

    size = next(iter(read([0])))[1]
    if isinstance(size, str):
        raise UsageError("media.path", expected="a video whose first frame can be read", got=f"{media.path}: {size}")
    times = np.asarray(opened.times_sec)[chosen] - media.start_sec
    return Film((size.shape[1], size.shape[0]), tuple(np.maximum(times, 0).tolist()), end - media.start_sec, read)


def film_of_frames(frames: Any, times_sec: Sequence[float] | None = None, duration_sec: float | None = None) -> Film:
    """Frames that are in memory.

    Args:
        frames: uint8 RGB [frame, h, w, 3].
        times_sec: of each frame, rising; one a second where None.
        duration_sec: of the clip; where None, until the last frame has been shown as long as the one before.

    Raises:
        UsageError: other axes or numbers, no frames, or times that do not rise.
    """
    pixels = np.asarray(frames)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3:] != (3,) or not pixels.size:
        raise UsageError("frames", expected="uint8 RGB [frame, h, w, 3], at least one", got=f"{pixels.dtype} {list(pixels.shape)}")
    times = tuple(float(time) for time in (range(len(pixels)) if times_sec is None else times_sec))
    if len(times) != len(pixels) or not all(math.isfinite(time) for time in times) or list(times) != sorted(set(times)):
        raise UsageError("times_sec", expected=f"{len(pixels)} rising seconds, one for each frame", got=list(times)[:8])
    step = times[-1] - times[-2] if len(times) > 1 else 1.0
    duration = times[-1] + step if duration_sec is None else float(duration_sec)
    return Film((pixels.shape[2], pixels.shape[1]), times, duration, lambda numbers: iter([(number, pixels[number]) for number in numbers]))


def _on_display(times: NDArray[np.float64], start: float, end: float) -> NDArray[np.intp]:
    """Frames that are shown between two times: the one on display at the start, and those that come before the end."""
    first = max(int(np.searchsorted(times, start + 1e-6, side="right")) - 1, 0)
    return np.arange(first, int(np.searchsorted(times, end - 1e-6, side="left")), dtype=np.intp)


def _rendered(sample: Sample) -> Film:
    from tpo_lab.datasets.world.render import render
    from tpo_lab.datasets.world.scene import FRAME_COUNT, FRAME_RATE, scene_at

    media = sample.media
    scene = scene_at(media.path)
    times = np.arange(FRAME_COUNT) / FRAME_RATE
    end = min(FRAME_COUNT / FRAME_RATE, math.inf if media.end_sec is None else media.end_sec)
    chosen = _on_display(times, media.start_sec, end)
    if not len(chosen):
        raise UsageError("media.start_sec", expected=f"a time before the end of {media.path}", got=media.start_sec)

    def read(numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        yield from zip(numbers, render(scene, [int(chosen[number]) for number in numbers]), strict=True)

    height, width = next(read([0]))[1].shape[:2]
    shown = np.maximum(times[chosen] - media.start_sec, 0)
    return Film((width, height), tuple(shown.tolist()), end - media.start_sec, read)
