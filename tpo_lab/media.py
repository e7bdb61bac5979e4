"""Rows of samples with the frames of their clips: what was loaded is kept, and what another process loads is waited for.

How one clip is loaded is `tpo_lab.clips`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tpo_lab.batch import Row
from tpo_lab.clips import ClipLoader, LoadedClip, media_key
from tpo_lab.errors import UsageError
from tpo_lab.frame_files import FrameFiles
from tpo_lab.heads.base import ClipInfo
from tpo_lab.precomputed import ClipFeatures, FeatureFiles
from tpo_lab.sample import Sample, heads_asked

if TYPE_CHECKING:
    from tpo_lab.backbones.base import Backbone

__all__ = ["Frames", "media_key"]


class Frames:
    """Loads and keeps the frames of clips, resized for one backbone, and the features that heads want from files.

    Features are read for the heads that a row's answers ask. A question without an answer may ask any: it gets those that there are.

    Args:
        features: by head, the files of features that it looks at: `TPOModel.feature_files`.
        keep: whether to keep what was loaded in memory (frames as uint8, resized: 100 kB for eight of 64 pixels, 7 MB for 16 of 384).
        limit_bytes: how much to keep; clips that come later are loaded each time.
        on_corrupt: what the video reader does with damaged files.
        files: a folder of decoded frames that other processes and later runs share; None has none.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        features: Mapping[str, FeatureFiles] | None = None,
        keep: bool = True,
        limit_bytes: int = 2 << 30,
        on_corrupt: str = "raise",
        files: FrameFiles | None = None,
    ) -> None:
        self.loader = ClipLoader(backbone, features=features, on_corrupt=on_corrupt, files=files)
        self._kept: dict[str, LoadedClip] = {}
        self._kept_features: dict[tuple[str, Path | None, str], ClipFeatures] = {}
        self._awaited: set[str] = set()
        self._free = limit_bytes if keep else 0

    def row(self, samples: Iterable[Sample], loaded: LoadedClip | None = None, features: Mapping[str, ClipFeatures] | None = None) -> Row:
        """One row of samples about the same clip.

        Args:
            loaded: the clip, where another process has loaded it.
            features: of it, by head, where another process has loaded them.

        Raises:
            UsageError: for samples about different clips.
            UnreadableClip: media or features cannot be read.
        """
        group = tuple(samples)
        keys = {media_key(sample) for sample in group}
        if len(keys) != 1:
            raise UsageError("samples", expected="samples about one clip", got=sorted(keys))
        found = self._clip(keys.pop(), group[0], loaded)
        given = features or {}
        wanted = {head: self._features(head, group[0], found.clip, given.get(head)) for head in self.heads_of(group)}
        return Row(found.frames, found.clip, group, self.loader.key(group[0], found.stamp), wanted)

    def heads_of(self, group: Iterable[Sample]) -> list[str]:
        """The heads for which a row of these samples needs features from files."""
        group = tuple(group)
        return [head for head, files in self.loader.features.items() if _wanted(head, files, group)]

    def has_features(self, head: str, sample: Sample) -> bool:
        """Whether they are kept."""
        return (media_key(sample), sample.root, head) in self._kept_features

    def await_clip(self, sample: Sample) -> bool:
        """Whether another process should load a sample's clip now: it is neither kept nor awaited as one that will be kept.

        A clip for which there is room counts as awaited from then on, until a row of it is made or `give_up` is called.
        """
        key = media_key(sample)
        if key in self._kept or key in self._awaited:
            return False
        if self.loader.clip_bytes <= self._free:
            self._free -= self.loader.clip_bytes
            self._awaited.add(key)
        return True

    def give_up(self, sample: Sample) -> None:
        """No longer await a sample's clip."""
        key = media_key(sample)
        if key in self._awaited:
            self._awaited.discard(key)
            self._free += self.loader.clip_bytes

    def give_up_all(self) -> None:
        """No longer await anything."""
        self._free += self.loader.clip_bytes * len(self._awaited)
        self._awaited.clear()

    def _clip(self, key: str, sample: Sample, loaded: LoadedClip | None) -> LoadedClip:
        if key in self._kept:
            return self._kept[key]
        found = loaded or self.loader.clip(sample)
        self.give_up(sample)
        if found.frames.nbytes <= self._free:
            # what another process has sent is a part of a piece of shared memory
            found = found if loaded is None else replace(found, frames=found.frames.clone())
            self._free -= found.frames.nbytes
            self._kept[key] = found
        return found

    def _features(self, head: str, sample: Sample, clip: ClipInfo, given: ClipFeatures | None) -> ClipFeatures:
        # equal media may be read from two files of samples, each with feature folders beside it
        key = (media_key(sample), sample.root, head)
        found = self._kept_features.get(key) or given or self.loader.features_of(head, sample, clip.duration_sec)
        if key not in self._kept_features and found.values.nbytes <= self._free:
            self._free -= found.values.nbytes
            self._kept_features[key] = found
        return found


def _wanted(head: str, files: FeatureFiles, group: Iterable[Sample]) -> bool:
    """Whether a row needs the features of a head."""
    for sample in group:
        if sample.conversation[-1].role == "user":
            if files.complete(sample):
                return True
        elif any(head in heads_asked(turn.text) for turn in sample.conversation if turn.role == "assistant"):
            return True
    return False
