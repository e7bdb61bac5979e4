"""A cache of vision features for as long as the vision side is frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from tpo_lab.backbones.base import VideoFeatures
from tpo_lab.batch import Row
from tpo_lab.model import TPOModel


class FeatureCache:
    """Encodes each clip once and keeps the result in half precision; valid only while no vision or connector weight changes.

    Every clip is encoded on its own and in evaluation mode. So what comes out depends on the clip alone, not on the batch or on what
    the cache holds, and a resumed run sees the same features as one that was never stopped. The tower's patch features are kept
    only where a head asks for them.

    Args:
        model: whose vision side encodes.
        limit_bytes: how much of the main memory to take; clips that come later are encoded each time.
    """

    def __init__(self, model: TPOModel, *, limit_bytes: int = 4 << 30) -> None:
        self.model = model
        self.keep_frames = any("frame_features" in head.needs and head.features is None for head in map(model.head, model.heads))
        self._kept: dict[str, VideoFeatures] = {}
        self._free = limit_bytes

    @torch.no_grad()
    def __call__(self, rows: Sequence[Row]) -> list[VideoFeatures]:
        """Features of each row."""
        new = {row.key: row for row in rows if row.key not in self._kept}
        found = {row.key: self._kept[row.key] for row in rows if row.key in self._kept} | self._encode(new)
        weights = next(self.model.backbone.model.parameters())
        moved = {key: VideoFeatures(both.tokens.to(weights), both.frames.to(weights)) for key, both in found.items()}
        return [moved[row.key] for row in rows]

    def _encode(self, rows: Mapping[str, Row]) -> dict[str, VideoFeatures]:
        if not rows:
            return {}
        training = self.model.training
        self.model.eval()
        try:
            made = {key: self._stored(*self.model.encode_video([row])) for key, row in rows.items()}
        finally:
            self.model.train(training)
        for key, both in made.items():
            size = both.tokens.nbytes + both.frames.nbytes
            if size <= self._free:
                self._free -= size
                self._kept[key] = both
        return made

    def _stored(self, both: VideoFeatures) -> VideoFeatures:
        frames = both.frames if self.keep_frames else both.frames[..., :0]
        return VideoFeatures(both.tokens.half().cpu(), frames.half().cpu())
