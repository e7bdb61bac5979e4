"""One clip for one backbone: frames by the video reader, `world://` references by rendering, features from files; nothing is kept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tpo_lab.datasets.world.scene import WORLD
from tpo_lab.errors import UsageError
from tpo_lab.frame_files import FrameFiles
from tpo_lab.heads.base import ClipInfo
from tpo_lab.precomputed import ClipFeatures, FeatureFiles
from tpo_lab.sample import Media, Sample

if TYPE_CHECKING:
    from tpo_lab.backbones.base import Backbone


def media_key(sample: Sample) -> str:
    """Names a sample's clip: samples with equal keys may share one row."""
    media = sample.media
    path = str(sample.media_path) if media.is_file else media.path
    return f"{path}|{media.start_sec}|{media.end_sec}" + (f"|{media.fps}" if media.fps else "")


class UnreadableClip(UsageError):
    """The media of a sample cannot be opened or decoded.

    Attributes:
        sample_id: of the first sample about the clip.
        file: the media as the sample names them.
    """

    def __init__(self, argument: str, *, expected: str, got: object, hint: str = "", sample_id: str = "", file: str = "") -> None:
        super().__init__(argument, expected=expected, got=got, hint=hint)
        self.sample_id, self.file = sample_id, file

    @classmethod
    def of(cls, sample: Sample, error: Exception) -> UnreadableClip:
        """The same error, or any other one that came up while a clip was read, with the sample and its file."""
        file = str(sample.media_path) if sample.media.is_file else sample.media.path
        if isinstance(error, UsageError):
            return cls(error.argument, expected=error.expected, got=error.got, hint=error.hint, sample_id=sample.id, file=file)
        got = f"{type(error).__name__}: {error}".splitlines()[0]
        return cls(file, expected="media that can be read", got=got, sample_id=sample.id, file=file)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuilt, (type(self), self.argument, self.expected, self.got, self.hint, self.sample_id, self.file))


class UnreadableFeatures(UnreadableClip):
    """The media may be sound, but the features that a head looks at cannot be read, or are of another clip."""


def _rebuilt(kind: type[UnreadableClip], argument: str, expected: str, got: object, hint: str, sample_id: str, file: str) -> UnreadableClip:
    return kind(argument, expected=expected, got=got, hint=hint, sample_id=sample_id, file=file)


@dataclass(frozen=True)
class LoadedClip:
    """The frames of a clip as a backbone takes them.

    Attributes:
        frames: uint8 [frame, 3, image_size, image_size].
        clip: size of the original frames, length and times.
        stamp: tells two states of the clip's file apart.
    """

    frames: Tensor
    clip: ClipInfo
    stamp: str


class ClipLoader:
    """Loads clips for one backbone; keeps nothing in memory. Can be pickled, without the backbone's weights.

    Args:
        features: by head, the files of features that it looks at.
        on_corrupt: what the video reader does with damaged frames; see `tpo_lab.video.read_clip`.
        files: decoded frames of earlier runs on disk; None reads every clip anew.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        features: Mapping[str, FeatureFiles] | None = None,
        on_corrupt: str = "raise",
        files: FrameFiles | None = None,
    ) -> None:
        self.backbone, self.features, self.on_corrupt, self.files = backbone, dict(features or {}), on_corrupt, files

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "backbone": _without_weights(self.backbone)}

    def key(self, sample: Sample, stamp: str) -> str:
        """Names the frames exactly: what `Row.key` is."""
        return f"{media_key(sample)}|{stamp}|{self.backbone.num_frames}|{self.backbone.image_size}"

    @property
    def clip_bytes(self) -> int:
        """Of the frames of one clip."""
        return self.backbone.num_frames * 3 * self.backbone.image_size**2

    def clip(self, sample: Sample) -> LoadedClip:
        """The frames of a sample's clip.

        Raises:
            UnreadableClip: the media cannot be read.
        """
        try:
            return self._stored_or_read(sample)
        except (MemoryError, UnreadableClip):
            raise
        except Exception as error:
            # damaged files make decoders fail in more ways than can be listed
            raise UnreadableClip.of(sample, error) from error

    def features_of(self, head: str, sample: Sample, duration_sec: float) -> ClipFeatures:
        """The features of a sample's clip for a head.

        Raises:
            UnreadableFeatures: their files cannot be read, or are not of this clip.
        """
        try:
            return self.features[head].load(sample, duration_sec)
        except UsageError as error:
            raise UnreadableFeatures.of(sample, error) from error

    def _stored_or_read(self, sample: Sample) -> LoadedClip:
        stamp = _stamp(sample)
        if self.files is None or not stamp:
            return LoadedClip(*self._read(sample)[:2], stamp)
        # another way to resize makes other frames of the same size
        key = f"{self.key(sample, stamp)}|{getattr(self.backbone.resize, '__qualname__', '')}"
        stored = self.files.get(key)
        if stored is not None:
            return LoadedClip(*stored, stamp)
        frames, clip, is_whole = self._read(sample)
        if is_whole:
            self.files.put(key, frames, clip)
        return LoadedClip(frames, clip, stamp)

    def _read(self, sample: Sample) -> tuple[Tensor, ClipInfo, bool]:
        """Frames and clip, and whether no frame had to be replaced by another one."""
        is_whole = True
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
            is_whole = not found.dropped
        tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
        # in one layout, wherever they are loaded: convolutions round by it
        return self.backbone.resize(tensor).contiguous(), ClipInfo(width, height, duration, times), is_whole


def _without_weights(backbone: Any) -> Any:
    """What `resize` of a backbone needs in another process: its settings and its model's configuration."""
    if not isinstance(backbone, nn.Module):
        return backbone
    whole: Any = backbone
    light: Any = type(backbone).__new__(type(backbone))
    nn.Module.__init__(light)
    plain = (bool, int, float, str, tuple, type(None))
    vars(light).update({name: value for name, value in vars(backbone).items() if name not in vars(light) and isinstance(value, plain)})
    light.model = SimpleNamespace(config=whole.model.config)
    return light


def _stamp(sample: Sample) -> str:
    """Tells two states of a clip's files apart; "" where it is no file, or there is none."""
    if not sample.media.is_file:
        return ""
    if sample.media_path.is_file():
        return _state(sample.media_path)
    from tpo_lab.video import open_source
    from tpo_lab.video.images import ImageSequence

    try:
        images = open_source(sample.media_path)
    except UsageError:
        return ""
    assert isinstance(images, ImageSequence)
    return hashlib.sha256("|".join(f"{file.name} {_state(file)}" for file in images.files).encode()).hexdigest()[:16]


def _state(file: Path) -> str:
    found = file.stat()
    return f"{found.st_size}.{found.st_mtime_ns}"


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
