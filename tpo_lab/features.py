"""A cache of vision features for as long as the vision side is frozen."""

from __future__ import annotations

from collections.abc import Sequence

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
        self.keep_frames = any("frame_features" in model.head(name).needs for name in model.heads)
        self._kept: dict[str, VideoFeatures] = {}
        self._free = limit_bytes

    @torch.no_grad()
    def __call__(self, rows: Sequence[Row]) -> list[VideoFeatures]:
        """Features of each row."""
        found: dict[str, VideoFeatures] = {}
        for row in rows:
            if row.key not in found:
                found[row.key] = self._kept.get(row.key) or self._encode(row)
        weights = next(self.model.backbone.model.parameters())
        moved = {key: VideoFeatures(both.tokens.to(weights), both.frames.to(weights)) for key, both in found.items()}
        return [moved[row.key] for row in rows]

    def _encode(self, row: Row) -> VideoFeatures:
        training = self.model.training
        self.model.eval()
        try:
            (both,) = self.model.encode_video([row])
        finally:
            self.model.train(training)
        frames = both.frames if self.keep_frames else both.frames[..., :0]
        made = VideoFeatures(both.tokens.half().cpu(), frames.half().cpu())
        size = made.tokens.nbytes + made.frames.nbytes
        if size <= self._free:
            self._free -= size
            self._kept[row.key] = made
        return made
