"""The PyAV reader: a keyframe seek for each group of pictures that is needed, and a verdict on every frame it gives out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tpo_lab.video.packets import PacketIndex, demux, open_video, read_index, video_stream
from tpo_lab.video.source import Picture

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer


class PyAVSource:
    """A video file decoded by PyAV (FFmpeg); it holds no open file between calls."""

    def __init__(self, path: Path) -> None:
        """Read the packets of the file at `path`; nothing is decoded yet."""
        self.path = path
        self.index: PacketIndex = read_index(path)

    @property
    def times_sec(self) -> NDArray[np.float64]:
        """When each frame comes on display, [frame]; 0 is the first frame of the video stream."""
        stamps = self.index.pts[self.index.positions]
        return np.asarray((stamps - stamps[0]) * self.index.tick_sec, dtype=np.float64)

    @property
    def duration_sec(self) -> float:
        """When the last frame goes off display, from its packet, not from the header."""
        return float((self.index.end - self.index.pts[self.index.positions[0]]) * self.index.tick_sec)

    @property
    def notes(self) -> tuple[str, ...]:
        """Faults of the whole file."""
        return self.index.notes

    def decode(self, frames: Sequence[int], fit: Callable[[Picture], Picture]) -> Iterator[tuple[int, Picture | str]]:
        """Yield `fit(picture)`, or the reason why the picture cannot be trusted, for every index in `frames`.

        A decoder marks the packet in which it meets damage, but not the pictures predicted from it, although their pixels
        are wrong as well. So one fault condemns every picture that follows it in decode order, up to the next keyframe.
        """
        frame_at = {int(position): frame for frame, position in enumerate(self.index.positions)}
        by_start = sorted((self._start_of(position), position) for position in self.index.positions[list(frames)].tolist())
        upright = _Upright()
        with open_video(self.path) as container:
            stream = video_stream(container, self.path)
            for start, group in groupby(by_start, key=lambda pair: pair[0]):
                positions = [position for _, position in group]
                for position, result in self._decode_run(container, stream, start, positions, lambda frame: fit(upright(frame))):
                    if position in frame_at:
                        yield frame_at[position], result

    def _start_of(self, position: int) -> int:
        return self.index.keyframe_of(position) if self.index.seekable else 0

    def _decode_run(
        self, container: InputContainer, stream: VideoStream, start: int, positions: list[int], see: Callable[[VideoFrame], Picture]
    ) -> Iterator[tuple[int, Picture | str]]:
        pts = self.index.pts
        faults: dict[int, str] = {}
        pending = deque(sorted(pts[positions].tolist()))
        pictures: dict[int, Picture] = {}
        displayed: VideoFrame | None = None
        # Frames come out in display order: only at this stamp has the decoder reported on all that the last position depends on.
        finish = pts[start : positions[-1] + 1].max()
        for stamp, frame in self._emitted(container, stream, start, faults):
            while displayed is not None and pending and pending[0] < stamp:
                pictures[pending.popleft()] = see(displayed)
            displayed = frame
            if stamp >= finish:
                break
        while displayed is not None and pending:
            pictures[pending.popleft()] = see(displayed)
        condemned = self._condemned(start, positions[-1], faults)
        yield from condemned.items()
        for position in positions:
            if position not in condemned:
                yield position, pictures.get(int(pts[position]), "does not come out of the decoder")

    def _emitted(
        self, container: InputContainer, stream: VideoStream, start: int, faults: dict[int, str]
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Frames in display order from the keyframe at `start`, with their stamps; `faults` is filled on the way."""
        import av

        count = 0
        for packet in self._packets_from(container, stream, start):
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                faults[count if self.index.counted or packet.pts is None else packet.pts] = f"does not decode ({error.strerror})"
                continue
            for frame in frames:
                stamp = count if self.index.counted or frame.pts is None else frame.pts
                count += 1
                if frame.is_corrupt:
                    faults[stamp] = "is marked corrupt by the decoder"
                if stamp >= self.index.pts[start]:
                    yield stamp, frame

    def _packets_from(self, container: InputContainer, stream: VideoStream, start: int) -> Iterator[Packet[VideoStream]]:
        if not self.index.seekable:
            yield from demux(container, stream, [])
            return
        # Demuxers seek by decoding stamp or by presentation stamp, and may land late; then the file is read from its beginning.
        for target in (self.index.dts[start], self.index.dts.min()):
            container.seek(int(target), stream=stream)
            landed = False
            for packet in demux(container, stream, []):
                landed = landed or packet.pts == self.index.pts[start]
                if landed:
                    yield packet
            if landed:
                return

    def _condemned(self, start: int, last: int, faults: Mapping[int, str]) -> dict[int, str]:
        """The positions in start..last whose pictures cannot be trusted, with the reason; `faults` is by stamp."""
        condemned: dict[int, str] = {}
        key, since_key, since_previous = start, "", ""
        for position in range(start, last + 1):
            if self.index.key[position]:
                key, since_key, since_previous = position, "", since_key
            stamp = int(self.index.pts[position])
            # Pictures displayed before their keyframe depend on the group before it, and nothing after the keyframe on them.
            leading = stamp < self.index.pts[key]
            if leading and key == start:
                continue
            own = "is marked corrupt by the container" if self.index.faulty[position] else faults.get(stamp, "")
            inherited = since_key or (since_previous if leading else "")
            if own or inherited:
                condemned[position] = own or f"is predicted from a frame that {inherited}"
            if leading:
                since_previous = since_previous or own
            else:
                since_key = since_key or own
        return condemned


class _Upright:
    """Turns decoded frames into pictures the right way up.

    One converter serves all frames of a file, in this thread: setting one up, with the threads that PyAV gives it unasked from 17 on,
    takes 6 ms a frame, and converting a frame of 64 pixels 0.03.
    """

    def __init__(self) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self._converter = VideoReformatter()
        self._threads: dict[str, int] = {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}

    def __call__(self, frame: VideoFrame) -> Picture:
        pixels = self._converter.reformat(frame, format="rgb24", **self._threads).to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, k=round(frame.rotation / 90)))
