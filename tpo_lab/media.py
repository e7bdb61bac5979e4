"""From a sample's media to the frames that a backbone sees: files by the video reader, `world://` references by rendering."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tpo_lab.batch import Row
from tpo_lab.datasets.world.scene import WORLD
from tpo_lab.errors import UsageError
from tpo_lab.heads.base import ClipInfo
from tpo_lab.sample import Media, Sample

if TYPE_CHECKING:
    from tpo_lab.backbones.base import Backbone


def media_key(sample: Sample) -> str:
    """Names a sample's clip: samples with equal keys may share one row."""
    media = sample.media
    path = str(sample.media_path) if media.is_file else media.path
    return f"{path}|{media.start_sec}|{media.end_sec}"


class Frames:
    """Loads and keeps the frames of clips, resized for one backbone.

    Args:
        keep: whether to keep frames in memory (uint8, resized: 100 kB for eight frames of 64 pixels, 7 MB for 16 of 384).
        limit_bytes: how much to keep; clips that come later are loaded each time.
        on_corrupt: what the video reader does with damaged files.
    """

    def __init__(self, backbone: Backbone, *, keep: bool = True, limit_bytes: int = 2 << 30, on_corrupt: str = "raise") -> None:
        self.backbone, self.on_corrupt = backbone, on_corrupt
        self._kept: dict[str, tuple[Tensor, ClipInfo]] = {}
        self._free = limit_bytes if keep else 0

    def row(self, samples: Iterable[Sample]) -> Row:
        """One row of samples about the same clip.

        Raises:
            UsageError: for samples about different clips, or media that cannot be read.
        """
        group = tuple(samples)
        keys = {media_key(sample) for sample in group}
        if len(keys) != 1:
            raise UsageError("samples", expected="samples about one clip", got=sorted(keys))
        key = keys.pop()
        frames, clip = self._kept.get(key) or self._load(group[0])
        if key not in self._kept and frames.nbytes <= self._free:
            self._free -= frames.nbytes
            self._kept[key] = (frames, clip)
        return Row(frames, clip, group, f"{key}|{self.backbone.num_frames}|{self.backbone.image_size}")

    def _load(self, sample: Sample) -> tuple[Tensor, ClipInfo]:
        if sample.media.path.startswith(WORLD):
            pixels, times, duration = _rendered(sample.media, self.backbone.num_frames)
            height, width = pixels.shape[1:3]
        else:
            from tpo_lab.video import read_clip

            found = read_clip(
                sample.media_path,
                num_frames=self.backbone.num_frames,
                start_sec=sample.media.start_sec,
                end_sec=sample.media.end_sec,
                on_corrupt=self.on_corrupt,
            )
            pixels, duration, width, height = found.frames, found.end_sec - found.start_sec, found.width, found.height
            # annotated seconds count from the start of the clip, pts from the start of the file
            times = tuple(float(time) - found.start_sec for time in found.times_sec)
        tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
        return self.backbone.resize(tensor), ClipInfo(width, height, duration, times)


def _rendered(media: Media, count: int) -> tuple[NDArray[np.uint8], tuple[float, ...], float]:
    """What `read_clip` would give for the same scene written as a file: pixels, seconds from the start of the clip, its duration."""
    from tpo_lab.datasets.world.render import render
    from tpo_lab.datasets.world.scene import FRAME_COUNT, FRAME_RATE, scene_at
    from tpo_lab.video.sampling import displayed_frames, segment_centres

    scene = scene_at(media.path)
    start, end = media.start_sec, min(media.end_sec or math.inf, FRAME_COUNT / FRAME_RATE)
    if start >= end:
        raise UsageError("media.start_sec", expected=f"a time before the end of {media.path} at {end:g} s", got=start)
    times = np.arange(FRAME_COUNT) / FRAME_RATE
    chosen = displayed_frames(times, segment_centres(start, end, count))
    return render(scene, chosen.tolist()), tuple((times[chosen] - start).tolist()), end - start
