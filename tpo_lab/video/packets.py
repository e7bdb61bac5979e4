"""The index of a video file: what its packets say about time, keyframes and damage, read without decoding anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError

if TYPE_CHECKING:
    from av import Packet, VideoStream
    from av.container import InputContainer

# Headers round their duration and audio may outlast the picture: only a larger shortfall is called a truncation.
_SHORTFALL_SEC, _SHORTFALL_SHARE = 1.0, 0.05


@dataclass(frozen=True)
class PacketIndex:
    """What the packets of a video stream say; "position" is decode order, "frame" is display order.

    Attributes:
        pts: presentation stamp of each packet in ticks, [position]; the display number where `counted`.
        dts: decoding stamp in ticks, [position].
        key: True where decoding can begin, [position].
        faulty: True where the container itself marks the packet as damaged, [position].
        shown: False for packets that an edit list hides, [position].
        tick_sec: seconds per tick.
        end: the tick at which the last frame goes off display.
        counted: the file holds no presentation stamps; frames are numbered as they leave the decoder, at the announced rate.
        seekable: decoding can begin at any keyframe; otherwise only at the start of the file.
        notes: faults of the whole file.
    """

    pts: NDArray[np.int64]
    dts: NDArray[np.int64]
    key: NDArray[np.bool_]
    faulty: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    tick_sec: float
    end: int
    counted: bool
    seekable: bool
    notes: tuple[str, ...]

    @cached_property
    def positions(self) -> NDArray[np.intp]:
        """Position of each frame, [frame], in display order; of two packets with one stamp the first counts."""
        shown = np.flatnonzero(self.shown)
        return shown[np.unique(self.pts[shown], return_index=True)[1]]

    def keyframe_of(self, position: int) -> int:
        """Position of the keyframe that the packet at `position` depends on.

        Pictures displayed before their keyframe but stored after it (open groups of pictures) need the keyframe before that.
        """
        keys = np.flatnonzero(self.key[: position + 1] & (self.pts[: position + 1] <= self.pts[position]))
        return int(keys[-1]) if len(keys) else 0


def read_index(path: Path) -> PacketIndex:
    """Read every packet of the first video stream of `path`.

    Raises:
        UsageError: FFmpeg cannot open the file, or it holds no video stream or no frame.
    """
    with open_video(path) as container:
        stream = video_stream(container, path)
        notes: list[str] = []
        packets = [packet for packet in demux(container, stream, notes) if packet.size]
        if not packets:
            raise UsageError(str(path), expected="a video with at least one frame", got="a video stream without frames")
        counted = _lacks_stamps(container, stream, packets)
        tick_sec = _tick_sec(stream, counted)
        pts = _stamps(range(len(packets)) if counted else (packet.pts for packet in packets))
        shown = np.array([not packet.is_discard for packet in packets])
        shown |= not shown.any()
        last = int(np.where(shown, pts, pts.min()).argmax())
        end = int(pts[last]) + (1 if counted else packets[last].duration or _typical_step(pts[shown], stream, tick_sec))
        notes += _shortfall(container, stream, len(packets), 0.0 if counted else end * tick_sec)
        key = np.array([packet.is_keyframe and not (counted and position) for position, packet in enumerate(packets)])
        return PacketIndex(
            pts=pts,
            dts=_stamps(packet.dts if packet.dts is not None else stamp for packet, stamp in zip(packets, pts, strict=True)),
            key=key,
            faulty=np.array([packet.is_corrupt for packet in packets]),
            shown=shown,
            tick_sec=tick_sec,
            end=end,
            counted=counted,
            seekable=not counted and _can_seek(container, stream, int(pts[0])),
            notes=tuple(notes),
        )


def _stamps(values: Iterable[int | None]) -> NDArray[np.int64]:
    return np.array(list(values), dtype=np.int64)


def _lacks_stamps(container: InputContainer, stream: VideoStream, packets: Sequence[Packet[VideoStream]]) -> bool:
    stamps = [packet.pts for packet in packets if packet.pts is not None]
    if len(stamps) < len(packets):
        return True
    # AVI stores no presentation stamps: for a codec that reorders frames, stamps that rise in decode order are not theirs.
    return container.format.name == "avi" and stream.codec_context.has_b_frames and bool(np.all(np.diff(stamps) > 0))


def _tick_sec(stream: VideoStream, counted: bool) -> float:
    if counted:
        return float(1 / (stream.guessed_rate or stream.average_rate or 25))
    return float(stream.time_base or 1)


def _typical_step(pts: NDArray[np.int64], stream: VideoStream, tick_sec: float) -> int:
    """How long a frame lasts, in ticks, where its packet does not say."""
    if len(pts) > 1:
        return max(int(np.median(np.diff(np.sort(pts)))), 1)
    return max(round(float(1 / (stream.average_rate or 1)) / tick_sec), 1)


def _shortfall(container: InputContainer, stream: VideoStream, count: int, end_sec: float) -> list[str]:
    """A note where the file holds clearly less than its header announces, as truncated files do."""
    if stream.frames:
        announced = f"truncated: the header announces {stream.frames} frames, the file holds {count}"
        return [announced] if count + 1 < stream.frames else []
    if not (end_sec and container.duration):
        return []
    announced_end_sec = container.duration / 1e6
    if announced_end_sec - end_sec <= max(_SHORTFALL_SEC, _SHORTFALL_SHARE * announced_end_sec):
        return []
    return [f"truncated: the header announces {announced_end_sec:.2f} s, the video ends at {end_sec:.2f} s"]


def _can_seek(container: InputContainer, stream: VideoStream, stamp: int) -> bool:
    import av

    try:
        container.seek(stamp, stream=stream)
    except av.FFmpegError:
        return False
    return True


def demux(container: InputContainer, stream: VideoStream, notes: list[str]) -> Iterator[Packet[VideoStream]]:
    """The packets of `stream`; a container that breaks off ends the iteration and leaves a note."""
    import av

    try:
        yield from container.demux(stream)
    except av.FFmpegError as error:
        notes.append(f"truncated: the container breaks off ({error.strerror})")


def open_video(path: Path) -> InputContainer:
    """Open a media file, or say in one sentence why that fails."""
    import av

    try:
        return av.open(str(path), metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        hint = "The file is empty." if path.stat().st_size == 0 else "Is it complete? FFmpeg cannot open it."
        raise UsageError(str(path), expected="a video or image file", got=str(error.strerror), hint=hint) from error


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream, set to report decoding errors at the packet that is at fault."""
    streams = container.streams.video
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no streams"
        raise UsageError(str(path), expected="a file with a video stream", got=kinds)
    # Frame threads report errors some packets late, slice threads do not.
    streams[0].thread_type = "SLICE"
    return streams[0]
