"""`write_clip`: frames to an mp4 file that is there whole or not at all."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError

# One thread: x264 output depends on the thread count, and the same clip should give the same bytes on every machine.
# No macroblock tree: on frames of a few macroblocks it gives other bytes from run to run.
_OPTIONS = {"libx264": {"crf": "18", "threads": "1", "x264-params": "mbtree=0"}, "mpeg4": {"qscale": "2", "threads": "1"}}


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
    target, clip = Path(path), _checked(frames)
    if target.suffix.lower() != ".mp4":
        raise UsageError("path", expected="a name that ends in .mp4", got=str(path))
    if not (math.isfinite(fps) and fps > 0):
        raise UsageError("fps", expected="a positive number of frames per second", got=fps)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.stem}.{uuid.uuid4().hex}.mp4")
    try:
        _encode(partial, clip, Fraction(fps).limit_denominator(1001))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


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
    from av.video.reformatter import Colorspace, VideoReformatter

    codec: Literal["libx264", "mpeg4"] = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(codec, rate=rate, options=_OPTIONS[codec])
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = Colorspace.ITU709
        reformatter = VideoReformatter()
        for pixels in clip:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(reformatter.reformat(frame, format="yuv420p", dst_colorspace=Colorspace.ITU709)))
        container.mux(stream.encode(None))
