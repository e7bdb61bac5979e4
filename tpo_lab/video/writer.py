"""Frames to an mp4 file that is there whole or not at all: `write_clip` at once, `clip_writer` one by one."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import OutputContainer

# One thread: x264 output depends on the thread count, and the same clip should give the same bytes on every machine.
# No macroblock tree: on frames of a few macroblocks it gives other bytes from run to run.
_OPTIONS = {"libx264": {"crf": "18", "threads": "1", "x264-params": "mbtree=0"}, "mpeg4": {"qscale": "2", "threads": "1"}}
_TICK_SEC = Fraction(1, 60000)
"""Times of frames are rounded to this; MPEG-4 part 2 takes nothing much finer, and common rates are whole numbers of it."""


def write_clip(path: str | os.PathLike[str], frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], fps: float) -> Path:
    """Write frames as H.264 (yuv420p, crf 18, BT.709), or as MPEG-4 part 2 where FFmpeg was built without x264.

    The file appears under its name only when it is complete; parent directories are made.

    Args:
        path: ends in .mp4; an existing file is replaced.
        frames: uint8 RGB [frame, h, w, 3], or a list of [h, w, 3]. Colour is stored for blocks of 2 x 2 pixels, so h and w
            are even.
        fps: frames per second.

    Returns:
        The path.

    Raises:
        UsageError: shape, type, size, rate or suffix cannot be written.
    """
    target, clip = _target(path, fps), _checked(frames)
    with _whole_or_not(target) as partial:
        _encode(partial, clip, Fraction(fps).limit_denominator(1001))
    return target


@contextmanager
def clip_writer(path: str | os.PathLike[str], fps: float) -> Iterator[Callable[[NDArray[np.uint8], float], None]]:
    """Write frames one by one, each with the time at which it comes on display; else as `write_clip`.

    Only a few frames are held. The file appears when the block ends, and not at all where it ends by an error.

    Args:
        path: ends in .mp4; an existing file is replaced.
        fps: frames per second on average, for the codec; the last frame is shown for as long as that says.

    Yields:
        a function of a frame, uint8 RGB [h, w, 3] with even h and w, and its time in seconds, 0 or more and rising.

    Raises:
        UsageError: shape, type, rate or suffix cannot be written.
    """
    import av

    target = _target(path, fps)
    with _whole_or_not(target) as partial, av.open(str(partial), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        rate = Fraction(fps).limit_denominator(1001)
        streams: list[VideoStream] = []
        waiting: list[VideoFrame] = []

        def write(end: int) -> None:
            frame = waiting.pop()
            # a player ends the video where the durations do, however late the last frame comes
            frame.duration = end - (frame.pts or 0)
            container.mux(streams[0].encode(frame))

        def add(pixels: NDArray[np.uint8], time_sec: float) -> None:
            (checked,) = _checked([pixels])
            if not streams:
                # without B-frames, whose reordering makes the file end before its last frame where times are uneven
                streams.append(_stream(container, rate, checked.shape[0], checked.shape[1], bf="0"))
                streams[0].codec_context.time_base = _TICK_SEC
            frame = _frame(checked)
            frame.pts, frame.time_base = round(time_sec / _TICK_SEC), _TICK_SEC
            if waiting:
                frame.pts = max(frame.pts, (waiting[0].pts or 0) + 1)
                write(frame.pts)
            waiting.append(frame)

        yield add
        if not waiting:
            raise UsageError("frames", expected="at least one frame", got="none")
        write((waiting[0].pts or 0) + round(1 / rate / _TICK_SEC))
        container.mux(streams[0].encode(None))


def _target(path: str | os.PathLike[str], fps: float) -> Path:
    if Path(path).suffix.lower() != ".mp4":
        raise UsageError("path", expected="a name that ends in .mp4", got=str(path))
    if not (math.isfinite(fps) and fps > 0):
        raise UsageError("fps", expected="a positive number of frames per second", got=fps)
    return Path(path)


@contextmanager
def _whole_or_not(target: Path) -> Iterator[Path]:
    """A name beside the target, which gets what is written there when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.stem}.{uuid.uuid4().hex}.mp4")
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _checked(frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    shapes = sorted({np.shape(frame) for frame in frames})
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][2] != 3:
        raise UsageError("frames", expected="at least one frame, all of one shape [h, w, 3]", got=shapes)
    clip = np.asarray(frames)
    if clip.dtype != np.uint8:
        raise UsageError("frames", expected="uint8 pixels", got=str(clip.dtype))
    height, width = clip.shape[1:3]
    if height % 2 or width % 2:
        even = (height + height % 2, width + width % 2)
        raise UsageError("frames", expected="an even height and width", got=(height, width), hint=f"Pad them to {even}.")
    return clip


def _encode(path: Path, clip: NDArray[np.uint8], rate: Fraction) -> None:
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = _stream(container, rate, *clip.shape[1:3])
        for pixels in clip:
            container.mux(stream.encode(_frame(pixels)))
        container.mux(stream.encode(None))


def _stream(container: OutputContainer, rate: Fraction, height: int, width: int, **options: str) -> VideoStream:
    import av
    from av.video.reformatter import Colorspace

    codec: Literal["libx264", "mpeg4"] = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    stream = container.add_stream(codec, rate=rate, options={**_OPTIONS[codec], **options})
    stream.height, stream.width = height, width
    stream.pix_fmt = "yuv420p"
    stream.codec_context.colorspace = Colorspace.ITU709
    return stream


def _frame(pixels: NDArray[np.uint8]) -> VideoFrame:
    import av
    from av.video.reformatter import Colorspace, VideoReformatter

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return VideoReformatter().reformat(frame, format="yuv420p", dst_colorspace=Colorspace.ITU709)
