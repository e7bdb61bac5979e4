"""From a sample's media to what a model sees: frames by the video reader, `world://` references by rendering, features from files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tpo_lab.batch import Row
from tpo_lab.datasets.world.scene import WORLD
from tpo_lab.errors import UsageError
from tpo_lab.heads.base import ClipInfo
from tpo_lab.precomputed import ClipFeatures, FeatureFiles
from tpo_lab.sample import Media, Sample, heads_asked

if TYPE_CHECKING:
    from tpo_lab.backbones.base import Backbone


def media_key(sample: Sample) -> str:
    """Names a sample's clip: samples with equal keys may share one row."""
    media = sample.media
    path = str(sample.media_path) if media.is_file else media.path
    return f"{path}|{media.start_sec}|{media.end_sec}" + (f"|{media.fps}" if media.fps else "")


class Frames:
    """Loads and keeps the frames of clips, resized for one backbone, and the features that heads want from files.

    Features are read for the heads that a row's answers ask. A question without an answer may ask any: it gets those that there are.

    Args:
        features: by head, the files of features that it looks at: `TPOModel.feature_files`.
        keep: whether to keep what was loaded in memory (frames as uint8, resized: 100 kB for eight of 64 pixels, 7 MB for 16 of 384).
        limit_bytes: how much to keep; clips that come later are loaded each time.
        on_corrupt: what the video reader does with damaged files.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        features: Mapping[str, FeatureFiles] | None = None,
        keep: bool = True,
        limit_bytes: int = 2 << 30,
        on_corrupt: str = "raise",
    ) -> None:
        self.backbone, self.features, self.on_corrupt = backbone, features or {}, on_corrupt
        self._kept: dict[str, tuple[Tensor, ClipInfo, str]] = {}
        self._kept_features: dict[tuple[str, Path | None, str], ClipFeatures] = {}
        self._free = limit_bytes if keep else 0

    def row(self, samples: Iterable[Sample]) -> Row:
        """One row of samples about the same clip.

        Raises:
            UsageError: for samples about different clips, or media or features that cannot be read.
        """
        group = tuple(samples)
        keys = {media_key(sample) for sample in group}
        if len(keys) != 1:
            raise UsageError("samples", expected="samples about one clip", got=sorted(keys))
        key = keys.pop()
        frames, clip, stamp = self._kept.get(key) or (*self._load(group[0]), _stamp(group[0]))
        if key not in self._kept and frames.nbytes <= self._free:
            self._free -= frames.nbytes
            self._kept[key] = (frames, clip, stamp)
        features = {head: self._features(head, group[0], clip) for head, files in self.features.items() if _wanted(head, files, group)}
        return Row(frames, clip, group, f"{key}|{stamp}|{self.backbone.num_frames}|{self.backbone.image_size}", features)

    def _features(self, head: str, sample: Sample, clip: ClipInfo) -> ClipFeatures:
        # equal media may be read from two files of samples, each with feature folders beside it
        key = (media_key(sample), sample.root, head)
        found = self._kept_features.get(key) or self.features[head].load(sample, clip.duration_sec)
        if key not in self._kept_features and found.values.nbytes <= self._free:
            self._free -= found.values.nbytes
            self._kept_features[key] = found
        return found

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
                fps=sample.media.fps or 1.0,
            )
            pixels, duration, width, height = found.frames, found.end_sec - found.start_sec, found.width, found.height
            # annotated seconds count from the start of the clip, pts from the start of the file
            times = tuple(float(time) - found.start_sec for time in found.times_sec)
        tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
        return self.backbone.resize(tensor), ClipInfo(width, height, duration, times)


def _stamp(sample: Sample) -> str:
    """Tells two states of a clip's file apart; "" for a pattern of files and for what is no file."""
    if not sample.media.is_file or not sample.media_path.is_file():
        return ""
    found = sample.media_path.stat()
    return f"{found.st_size}.{found.st_mtime_ns}"


def _wanted(head: str, files: FeatureFiles, group: Iterable[Sample]) -> bool:
    """Whether a row needs the features of a head."""
    for sample in group:
        if sample.conversation[-1].role == "user":
            if files.complete(sample):
                return True
        elif any(head in heads_asked(turn.text) for turn in sample.conversation if turn.role == "assistant"):
            return True
    return False


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
