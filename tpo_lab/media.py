"""From a sample's media to the frames that a backbone sees: files by the video reader, `world://` references by rendering."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tpo_lab.batch import Row
from tpo_lab.errors import UsageError
from tpo_lab.heads.base import ClipInfo
from tpo_lab.sample import Sample

if TYPE_CHECKING:
    from tpo_lab.backbones.base import Backbone

WORLD = "world://"


def sample_times(duration_sec: float, count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Centres of `count` equal parts of a clip, in seconds."""
    return (np.arange(count) + 0.5) * duration_sec / count  # type: ignore[no-any-return]


def media_key(sample: Sample) -> str:
    """Names a sample's clip: samples with equal keys may share one row."""
    media = sample.media
    path = media.path if media.path.startswith(WORLD) else str(sample.media_path)
    return f"{path}|{media.start_sec}|{media.end_sec}"


class Frames:
    """Loads and keeps the frames of clips, resized for one backbone.

    Args:
        keep: whether to keep frames in memory (uint8, resized: 100 kB for eight frames of 64 pixels).
        on_corrupt: what the video reader does with damaged files.
    """

    def __init__(self, backbone: Backbone, *, keep: bool = True, on_corrupt: str = "raise") -> None:
        self.backbone, self.on_corrupt = backbone, on_corrupt
        self._kept: dict[str, tuple[Tensor, ClipInfo]] | None = {} if keep else None

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
        if self._kept is not None and key in self._kept:
            frames, clip = self._kept[key]
        else:
            frames, clip = self._load(group[0])
            if self._kept is not None:
                self._kept[key] = (frames, clip)
        return Row(frames, clip, group, f"{key}|{self.backbone.num_frames}|{self.backbone.image_size}")

    def _load(self, sample: Sample) -> tuple[Tensor, ClipInfo]:
        if sample.media.path.startswith(WORLD):
            pixels, times, duration = _rendered(sample.media.path, self.backbone.num_frames)
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


def _rendered(path: str, count: int) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], tuple[float, ...], float]:
    from tpo_lab.datasets.world.render import render
    from tpo_lab.datasets.world.scene import FRAME_COUNT, FRAME_RATE, sample_scene

    parts = path.removeprefix(WORLD).split("/")
    try:
        split, level, seed, index, things = parts
        low, high = (int(number) for number in things.split("-"))
        numbers = int(seed), int(index)
    except ValueError as error:
        raise UsageError("media.path", expected="world://split/level/seed/index/lowest-highest", got=path) from error
    scene = sample_scene(numbers[1], seed=numbers[0], split=split, level=level, things=(low, high))
    duration = FRAME_COUNT / FRAME_RATE
    times = sample_times(duration, count)
    chosen = [min(int(time * FRAME_RATE), FRAME_COUNT - 1) for time in times]
    return render(scene, chosen), tuple(float(time) for time in times), duration
